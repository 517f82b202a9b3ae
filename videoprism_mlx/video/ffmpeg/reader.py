"""A video file: any of its frames by number, through FFmpeg's libraries (PyAV).

Frame n is the nth that the file decodes to, in the order of display. An index says when each frame
is shown and where decoding can begin, and every decoded frame is compared with it. Where the two
differ, all frames are decoded once to see what the file really holds: see `consistently`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from av.video.stream import VideoStream

from videoprism_mlx.errors import VideoError, counted
from videoprism_mlx.video.failures import CONVERT, video_errors
from videoprism_mlx.video.ffmpeg import damage
from videoprism_mlx.video.ffmpeg.colours import HDR, Converter, note_hdr, pixel_aspect
from videoprism_mlx.video.ffmpeg.decoder import Decoder
from videoprism_mlx.video.ffmpeg.decoding import PLAIN, Decoding
from videoprism_mlx.video.ffmpeg.index import (
    NO_CLOCK,
    Index,
    Seconds,
    index_of,
    read_packets,
    read_table,
)
from videoprism_mlx.video.ffmpeg.opening import open_stream
from videoprism_mlx.video.ffmpeg.walker import Walker
from videoprism_mlx.video.frame import Frame

# Rates above this, which no camera has, are mistakes of the file.
DEFAULT_FPS, FASTEST_FPS = 25.0, 1000.0

# Codecs with packets that are never shown: they promise nothing.
HIDING = ("vp8",)

NO_FRAME = (
    "has no frame that can be decoded: either there is no decoder for its codec ({}), or it is "
    f"damaged throughout; {CONVERT}"
)

T = TypeVar("T")


class _Reindexed(Exception):
    """The file holds other frames than its index said. The index is correct now."""


class VideoFile:
    """A video file as a `FrameSource`.

    With `partial`, a damaged file is taken for what can be decoded of it. `index` is that of the
    same file in another process.
    """

    def __init__(
        self,
        path: str | Path,
        partial: bool = False,
        decoding: Decoding = PLAIN,
        index: Index | None = None,
    ):
        self.path = Path(path)
        self.partial = partial
        self._known, self.is_table = index, False
        self._convert = Converter(decoding.tone_map)
        with video_errors(f"{self.path} cannot be opened"):
            self._decoder = Decoder(functools.partial(open_stream, self.path, decoding))
            try:
                self._walker = Walker(self._decoder, self._begun())
                self._walker.can_leave_out = not partial and self.damage is None
            except BaseException:
                self.close()
                raise

    def _begun(self) -> Index:
        """The index of a file that was just opened. The first frame is decoded, and comes next."""
        if self.partial and damage.fault(self.path, deep=True):
            self._decoder.threads = False
            self._decoder.restart()
        stream = self._decoder.opened.stream
        rate = float(stream.guessed_rate or stream.average_rate or 0)
        self.fps = rate if 0 < rate <= FASTEST_FPS else DEFAULT_FPS
        self.codec, self.recorded = self._decoder.opened.facts()
        self._declared = stream.frames if stream.frames < 2**31 else 0
        self._base = float(stream.time_base or 0)
        index = self._known or self._read(stream)
        first, stream = self._decoder.first(), self._decoder.opened.stream
        if first is None:
            raise VideoError(f"{self.path} {NO_FRAME.format(self.codec or 'unknown')}")
        if not self._convert.tone_map and (transfer := HDR.get(first.color_trc)):
            note_hdr(self.path, transfer)
        self.aspect = pixel_aspect(stream, first)
        return index if self._known else index.begun_at(first.pts, self.is_table)

    def _read(self, stream: VideoStream) -> Index:
        """The index that a table of the file has, or else that of its packets, which are read."""
        table = None if damage.fault(self.path) else read_table(stream, self.fps)
        hides = self.codec in HIDING
        index = table or read_packets(self._decoder.packets(), self._base, self.fps, hides)
        self.is_table = index is table
        return index

    @property
    def index(self) -> Index | None:
        """What another process needs to open the file without reading all of it."""
        return None if self.is_table else self._index

    @property
    def _index(self) -> Index:
        return self._walker.index

    def close(self) -> None:
        """Closes the file."""
        self._decoder.opened.close()

    @property
    def times(self) -> Seconds:
        """The seconds (n,) at which the frames are shown, the first at 0."""
        return self._index.times

    @property
    def interval(self) -> float:
        """The usual time from frame to frame, in seconds."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 1 / self.fps

    @functools.cached_property
    def damage(self) -> str | None:
        """What is wrong with the file's structure; None if nothing is."""
        lost = self._index.lost
        return damage.fault(self.path) or (None if lost is None else self._broken_frame(lost))

    def consistently(self, produce: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Yields what `produce` yields, and calls it anew when the frames are counted anew."""
        while True:
            try:
                yield from produce()
                return
            except _Reindexed:
                continue

    def fetch(self, numbers: Iterable[int]) -> Iterator[Frame]:
        """The frames of ascending `numbers`, each (H, W, 3), RGB, 0-255, the right way up."""
        for number in self._walker.only(numbers):
            with video_errors(f"{self.path}: frame {number} cannot be decoded"):
                self._go_to(number)
                frame = self._convert(self._walker.frame)
            yield frame

    def require_whole(self) -> None:
        """Raises VideoError if the file is cut short or damaged, unless a part of it will do."""
        if self.damage and not self.partial:
            lost = self._index.lost
            raise self._broken(len(self.times) if lost is None else lost, self.damage)

    def lead(self, number: int) -> int | None:
        """How many frames before this one are decoded first; None if decoding begins at 0."""
        index, walker = self._index, self._walker
        key = index.key_of(number) if index.is_exact and walker.can_seek else -1
        if key < 0 or walker.is_counted:
            return None
        return number - int(np.searchsorted(index.clocks, index.keys[key]))

    def finish(self, others_began: bool = False) -> None:
        """Reads on to the end, to make sure that no frame is missing."""
        with video_errors(f"{self.path} cannot be read to its end"):
            self._go_to(len(self.times) - 1)
            if any(frame is not None for frame in self._decoder.frames):
                self._count()
        self.require_whole()
        has_seen_all = self._walker.has_seen_all or others_began
        is_hidden = self._decoder.skips_damage and has_seen_all
        if is_hidden and not self.partial and (why := damage.fault(self.path, deep=True)):
            raise self._broken(len(self.times), why)

    def _broken_frame(self, number: int) -> str:
        return (
            f"frame {number}, at {self.times[min(number, len(self.times) - 1)]:.2f} s, "
            "is damaged or missing"
        )

    def _broken(self, frames: int, why: str) -> VideoError:
        of = f" of {self._declared:,}" if self._declared > frames else ""
        seconds = self.times[frames - 1] + self.interval if 0 < frames <= len(self.times) else 0
        return VideoError(
            f"{self.path} breaks off after {counted(frames, 'frame')}{of} "
            f"({seconds:.1f} s): {why}. With partial=True (--partial), what can be decoded is used"
        )

    def _go_to(self, number: int) -> None:
        """Makes frame `number` the one that was decoded last."""
        if not self._walker.go_to(number):
            self._count()

    def _count(self) -> None:
        """Makes the index from the frames themselves, which decodes all of them."""
        walker = self._walker
        if walker.is_counted:
            if not walker.can_seek:
                raise VideoError(f"{self.path} does not decode to the same frames each time")
            walker.can_seek = False  # In this file, a seek may end at a wrong frame.
            raise _Reindexed
        self._decoder.wanted = None
        clocks, broken_at = self._decode_all()
        if broken_at is not None and self.partial:
            self._decoder.threads = False
            clocks, _ = self._decode_all()
        elif broken_at is not None:
            raise self._broken(broken_at, self.damage or self._broken_frame(broken_at))
        index = index_of(clocks, walker.index.keys, self._base, self.fps)
        walker.index = dataclasses.replace(index, lost=walker.index.lost)
        walker.is_counted, walker.can_seek = True, walker.can_seek and broken_at is None
        self.__dict__.pop("damage", None)
        walker.start_from(-1, 0)
        raise _Reindexed

    def _decode_all(self) -> tuple[list[int], int | None]:
        """The clocks of all frames, and the first frame that is damaged or lost."""
        self._walker.start_from(-1, 0)
        clocks: list[int] = []
        broken_at = None
        for frame in self._decoder.frames:
            if frame is not None:
                clocks.append(NO_CLOCK if frame.pts is None else frame.pts)
            elif broken_at is None:
                broken_at = len(clocks)
        if not clocks:
            raise VideoError(f"{self.path} has no frame that can be decoded: it is damaged")
        if broken_at is None and self._decoder.opened.stream.codec_context.name not in HIDING:
            broken_at = self._index.first_lost(clocks)
        return clocks, broken_at
