"""Which frames a video file holds: when each is shown, and where decoding can begin.

A clock is a time as the file has it, a whole number of its time base.
"""

import dataclasses
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.stream import VideoStream

Clocks = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]

# The clock of a frame that has no time.
NO_CLOCK = int(np.iinfo(np.int64).min)

# Seconds. A clock that jumps back looks like one that jumps ahead by most of its range, which is
# 26 hours.
CLOCK_JUMP = 2**32 / 90_000

# A step between packets is a gap if it is longer than LONG_STEP usual ones. Frames are lost there
# if one of the GAP_WITHIN packets before it is marked as corrupt.
LONG_STEP, GAP_WITHIN = 1.5, 2

# The flags of an entry of a container's table, in FFmpeg's numbers.
KEY, DISCARDED = 1, 2

# Clocks that go back more often than this, as a share of the frames, do not say when frames are
# shown: H.264 in AVI has such ones.
MOST_BACK = 0.02


@dataclasses.dataclass(frozen=True)
class Index:
    """The n frames of a video file, in the order in which they are shown."""

    times: Seconds  # (n,) when each frame is shown, the first at 0
    clocks: Clocks  # (n,) the times of the same frames as the file has them
    keys: Clocks  # (k,) the clocks of the key frames, ascending
    is_exact: bool  # Whether the clocks tell the frames apart.
    lost: int | None = None  # The first frame that the packets themselves say is lost.

    def key_of(self, number: int) -> int:
        """The last key frame at or before a frame, as its place in `keys`; -1 if there is none."""
        return int(np.searchsorted(self.keys, self.clocks[number], "right")) - 1

    def begun_at(self, first: int | None, is_table: bool) -> "Index":
        """The index of the same frames, the first of which is decoded with the clock `first`.

        Those before it cannot be decoded: a recording may begin anywhere. The clocks of a table are
        moved to it.
        """
        if first is None or not self.is_exact:
            return self
        if is_table:
            later = first - self.clocks[0]
            return dataclasses.replace(self, clocks=self.clocks + later, keys=self.keys + later)
        begun = int(np.searchsorted(self.clocks, first))
        if begun == len(self.clocks) or self.clocks[begun] != first:
            return self
        times, lost = self.times[begun:] - self.times[begun], self.lost
        lost = None if lost is None else max(lost - begun, 0)
        return dataclasses.replace(self, times=times, clocks=self.clocks[begun:], lost=lost)

    def first_lost(self, shown: Sequence[int]) -> int | None:
        """The number of the first frame of the index that is not among the clocks `shown`.

        Frames before the first one shown do not count: a recording may begin anywhere.
        """
        if not self.is_exact or NO_CLOCK in shown:
            return None
        promised = self.clocks[self.clocks >= shown[0]]
        lost = np.flatnonzero(~np.isin(promised, np.asarray(shown, np.int64)))
        return int(lost[0]) if len(lost) else None


def index_of(
    clocks: Sequence[int] | Clocks, keys: Sequence[int] | Clocks, base: float, fps: float
) -> Index:
    """The index of frames with these clocks, in units of `base` seconds.

    Where the clocks make no sense, frames follow each other at the frame rate.
    """
    known, steps = np.asarray(clocks, np.int64), np.diff(np.asarray(clocks, np.int64))
    if (steps < 0).sum() > max(1, MOST_BACK * len(steps)) or (steps <= 0).sum() > len(steps) / 2:
        known = np.full(len(known), NO_CLOCK)
    seconds: Seconds = steps.astype(np.float64) * base
    has_clock = known != NO_CLOCK
    is_step = (steps >= 0) & (seconds < CLOCK_JUMP) & has_clock[1:] & has_clock[:-1]
    times = np.append(0, np.cumsum(np.where(is_step, seconds, 1 / fps)))
    is_exact = bool(has_clock.all() and (steps > 0).all())
    return Index(times, known, np.unique(np.asarray(keys, np.int64)), is_exact)


def read_table(stream: VideoStream, fps: float) -> Index | None:
    """The index from the container's own table, if that shows a constant frame rate.

    Its clocks are those of decoding, and begin earlier than those of display: see `Index.begun_at`.
    The clocks of key frames are approximate where frames after them are shown before them.
    """
    entries = stream.index_entries
    if len(entries) < 2 or len(entries) != stream.frames:
        return None
    table = [(one.timestamp, one.flags) for one in entries]
    clocks, flags = np.array(table, np.int64).T
    if (np.diff(clocks) != clocks[1] - clocks[0]).any() or (flags & DISCARDED).any():
        return None
    index = index_of(clocks, clocks[flags & KEY > 0], float(stream.time_base or 0), fps)
    return index if index.is_exact else None


def read_packets(
    packets: Iterable["Packet[VideoStream]"], base: float, fps: float, hides: bool = False
) -> Index:
    """The index from the packets of a stream, with clocks in units of `base` seconds.

    A codec that `hides` has packets that are never shown, with the clock of one that is.
    """
    clocks, keys, decoded, marked = array("q"), array("q"), array("q"), array("q")
    is_key = array("b")
    for packet in packets:
        if not packet.is_discard:
            clocks.append(NO_CLOCK if packet.pts is None else packet.pts)
            decoded.append(NO_CLOCK if packet.dts is None else packet.dts)
            is_key.append(packet.is_keyframe)
            if packet.is_keyframe:
                keys.append(clocks[-1])
            if packet.is_corrupt:
                marked.append(len(clocks) - 1)
    shown = in_order(np.asarray(clocks or [NO_CLOCK]), np.asarray(decoded), hides)
    index = index_of(shown, keys, base, fps)
    gap = first_gap(np.asarray(decoded), marked, base, is_key) if index.is_exact else None
    if gap is None:
        return index
    lost = int(np.searchsorted(shown, clocks[gap], "right"))
    return dataclasses.replace(index, lost=min(lost, len(shown) - 1))


def in_order(clocks: Clocks, decoded: Clocks, hides: bool) -> Clocks:
    """The clocks of packets in the order in which their frames are shown.

    A clock that goes back in the order of decoding begins another recording.
    """
    if NO_CLOCK in clocks:
        return np.full(len(clocks), NO_CLOCK)
    is_back = (np.diff(decoded) < 0) & (NO_CLOCK not in decoded)
    begun = np.flatnonzero(is_back) + 1
    order = np.unique if hides else np.sort
    return np.concatenate([order(part) for part in np.split(clocks, begun)])


def first_gap(
    decoded: Clocks, marked: Sequence[int], base: float, is_key: Sequence[int]
) -> int | None:
    """The first packet after which some are lost, given the clocks when packets are decoded.

    A packet just before is `marked` as corrupt, and a gap in time follows; or the last packet is
    marked. The mark alone is no loss: FFmpeg also marks packets where two recordings were joined.
    The second one then begins with a key frame.
    """
    last, steps = len(decoded) - 1, np.diff(decoded)
    if not marked or not last:
        return None
    is_gap = (steps > LONG_STEP * np.median(steps)) & (steps * base < CLOCK_JUMP)
    is_gap &= ~np.asarray(is_key[1:], bool)
    gaps = (place + near for place in marked for near in range(GAP_WITHIN))
    return next((gap for gap in gaps if gap == last or (gap < last and is_gap[gap])), None)
