"""Which frames a video file holds: when each is shown, and which ones a seek can go to."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from videoprism_mlx.video.libraries import cv2

Seconds = npt.NDArray[np.float64]

# The time of a packet and that of its frame differ by rounding only.
SAME_TIME = 5e-4

# After this many failed packets in a row, beyond those known to be missing, the file has ended.
FAILURES = 64

# Seconds. A packet without a time reports one beyond NO_TIME, which no date reaches. A clock that
# jumps back looks like one that jumps ahead by most of its range, which is 26 hours.
NO_TIME, CLOCK_JUMP = 5e9, 2**32 / 90_000


@dataclass(frozen=True)
class Index:
    """The n frames of a video file, in the order in which they are shown."""

    times: Seconds  # (n,) when each frame is shown, the first at 0
    clocks: Seconds  # (n,) the times of the same frames as the file has them
    keys: Seconds  # (k,) the clocks of the key frames, ascending
    has_times: bool  # Whether the file itself says when each frame is shown.

    @classmethod
    def of_clocks(cls, clocks: Seconds, keys: Seconds, first: float, fps: float) -> "Index":
        """The index of frames with these clocks, the first of which is decoded at clock `first`.

        Where the clocks make no sense, frames follow each other at the frame rate.
        """
        has_time = np.abs(clocks) < NO_TIME
        steps = np.diff(clocks)
        is_step = (steps > 0) & (steps < CLOCK_JUMP) & has_time[1:] & has_time[:-1]
        return cls(
            times=np.append(0, np.cumsum(np.where(is_step, steps, 1 / fps))),
            clocks=clocks - clocks[0] + first,  # Packets and frames may not start from the same.
            keys=keys,
            has_times=bool(has_time.all() and (steps > 0).all()),
        )

    @classmethod
    def of_packets(cls, packets: cv2.VideoCapture, first: float, fps: float) -> "Index":
        """The index that the packets of a file promise. They are read, not decoded."""
        found, found_keys, failures = array("d"), array("d"), 0
        while failures <= FAILURES:
            if packets.grab():
                found.append(packets.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                if packets.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME):
                    found_keys.append(found[-1])
                failures = 0
            else:
                failures += 1
        packets.release()
        clocks = ascending(found or [first])  # A frame was decoded, so there is at least one.
        keys = ascending(found_keys) - clocks[0] + first
        if not (np.diff(clocks) > 0).all():
            clocks = np.full(len(clocks), NO_TIME)
        return cls.of_clocks(clocks, keys, first, fps)


def ascending(clocks: Iterable[float]) -> Seconds:
    """The clocks as an array, in ascending order."""
    return np.sort(np.asarray(clocks, np.float64))


def nearest(clocks: Seconds, clock: float) -> int | None:
    """The place of a clock among ascending ones; None if it is not among them."""
    place = int(np.searchsorted(clocks, clock - SAME_TIME))
    is_it = place < len(clocks) and abs(clocks[place] - clock) <= SAME_TIME
    return place if is_it else None
