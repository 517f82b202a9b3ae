"""Which frames a video file holds: when each is shown, and where decoding can begin.

A clock is a time as the file has it, a whole number of its time base.
"""

import dataclasses
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from videoprism_mlx.video.failures import DAMAGE
from videoprism_mlx.video.ffmpeg.opening import Opened

Clocks = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]

# The clock of a frame that has no time.
NO_CLOCK = int(np.iinfo(np.int64).min)

# Seconds. A clock that jumps back looks like one that jumps ahead by most of its range, which is
# 26 hours.
CLOCK_JUMP = 2**32 / 90_000

# Frames that a decoder may hold back until the end, where they come without a time of decoding.
HELD_BACK = 32


@dataclasses.dataclass(frozen=True)
class Index:
    """The n frames of a video file, in the order in which they are shown."""

    times: Seconds  # (n,) when each frame is shown, the first at 0
    clocks: Clocks  # (n,) the times of the same frames as the file has them
    keys: Clocks  # (k,) the clocks of the key frames, ascending
    is_exact: bool  # Whether the clocks tell the frames apart.
    by_dts: bool = False  # Whether the clocks say when frames are decoded, not shown.

    @classmethod
    def of_clocks(
        cls, clocks: Clocks, keys: Clocks, base: float, fps: float, by_dts: bool = False
    ) -> "Index":
        """The index of frames with these clocks, in units of `base` seconds.

        Where the clocks make no sense, frames follow each other at the frame rate.
        """
        has_clock, steps = clocks != NO_CLOCK, np.diff(clocks)
        seconds = steps * base
        is_step = (steps > 0) & (seconds < CLOCK_JUMP) & has_clock[1:] & has_clock[:-1]
        times = np.append(0, np.cumsum(np.where(is_step, seconds, 1 / fps)))
        return cls(times, clocks, keys, bool(has_clock.all() and (steps > 0).all()), by_dts)


def make_index(
    reopen: Callable[[], Opened],
    stream: VideoStream,
    first: VideoFrame,
    fps: float,
    has_table: bool,
) -> Index:
    """The index of a stream, whose first frame is known: from its table, else its packets."""
    if has_table and first.pts is not None and (index := read_table(stream, first.pts, fps)):
        return index
    container, stream = reopen()
    with container:
        return read_packets(container, stream, first.pts, fps)


def read_table(stream: VideoStream, first: int, fps: float) -> Index | None:
    """The index from the container's own table, if that shows a constant frame rate.

    `first` is the clock of the first frame. The clocks of key frames are approximate where frames
    after them are shown before them.
    """
    entries = stream.index_entries
    if len(entries) < 2 or len(entries) != stream.frames:
        return None
    table = np.array([(one.timestamp, one.is_keyframe, one.is_discard) for one in entries])
    steps = np.diff(table[:, 0])
    if steps[0] <= 0 or (steps != steps[0]).any() or table[:, 2].any():
        return None
    clocks = first + steps[0] * np.arange(len(table))
    return Index.of_clocks(clocks, clocks[table[:, 1] > 0], float(stream.time_base or 0), fps)


def read_packets(
    container: InputContainer, stream: VideoStream, first: int | None, fps: float
) -> Index:
    """The index from the packets of a stream. They are read, not decoded.

    `first` is the clock of the first frame that can be decoded: a recording may begin anywhere.
    """
    clocks, keys = array("q"), array("q")
    with suppress(*DAMAGE):  # Decoding will find it.
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                clocks.append(NO_CLOCK if packet.pts is None else packet.pts)
                if packet.is_keyframe:
                    keys.append(clocks[-1])
    shown = np.sort(np.asarray(clocks or [NO_CLOCK], np.int64))
    if (np.diff(shown) <= 0).any() or shown[0] == NO_CLOCK:
        shown = np.full(len(shown), NO_CLOCK)
    elif first is not None and first in shown:
        shown = shown[shown >= first]
    ascending_keys = np.unique(np.asarray(keys, np.int64))
    return Index.of_clocks(shown, ascending_keys, float(stream.time_base or 0), fps)


def from_frames(
    shown: Sequence[int | None],
    decoded: Sequence[int | None],
    keys: Clocks,
    base: float,
    fps: float,
) -> Index:
    """The index from the frames themselves: the clocks when they are shown and decoded.

    Some containers number frames as they are decoded. Then the order of decoding tells them apart.
    """
    clocks, by_decoding = (
        np.array([NO_CLOCK if one is None else one for one in each], np.int64)
        for each in (shown, decoded)
    )
    by_dts = bool((np.diff(clocks) <= 0).any() and (np.diff(by_decoding[:-HELD_BACK]) > 0).all())
    return Index.of_clocks(by_decoding if by_dts else clocks, keys, base, fps, by_dts)


def first_lost(index: Index, shown: Sequence[int | None]) -> int | None:
    """The number of the first frame that the index promises and that was not shown.

    Frames before the first one shown do not count: a recording may begin anywhere.
    """
    if not index.is_exact or None in shown:
        return None
    promised = index.clocks[index.clocks >= np.int64(shown[0] or 0)]
    lost = np.flatnonzero(~np.isin(promised, np.asarray(shown, np.int64)))
    return int(lost[0]) if len(lost) else None
