"""A video file: any of its frames by number, through FFmpeg's libraries (PyAV).

Frame n is the nth that the file decodes to, in the order of display. An index says when each frame
is shown and where decoding can begin, and every decoded frame is compared with it. Where the two
differ, all frames are decoded once to see what the file really holds: see `consistently`.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeGuard, TypeVar

import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from videoprism_mlx.errors import VideoError
from videoprism_mlx.video.failures import video_errors
from videoprism_mlx.video.ffmpeg import damage
from videoprism_mlx.video.ffmpeg.colours import HDR, Converter, display_matrix, is_on_its_side
from videoprism_mlx.video.ffmpeg.decoder import Decoder
from videoprism_mlx.video.ffmpeg.decoding import PLAIN, Decoding
from videoprism_mlx.video.ffmpeg.index import Seconds, first_lost, from_frames, make_index
from videoprism_mlx.video.ffmpeg.opening import open_stream
from videoprism_mlx.video.opencv import Frame

# To go further ahead than this, seeking is cheaper than decoding: a seek starts at a key frame, and
# encoders rarely set key frames further apart. What lies between is not checked for damage then.
SEEK_BEYOND = 300

# Rates above this, which no camera has, are mistakes of the file.
DEFAULT_FPS, FASTEST_FPS = 25.0, 1000.0

# Codecs with packets that are never shown: they promise nothing.
HIDING = ("vp8",)

# What comes after the last frame.
END = object()

HDR_NOTE = (
    "%s is HDR video (%s): its colours are read as if it were not, as ffmpeg reads them; "
    "tone_map=True (--tone-map) brings them to those of ordinary screens"
)

T = TypeVar("T")

logger = logging.getLogger(__name__)


class _Reindexed(Exception):
    """The file holds other frames than its index said. The index is correct now."""


class VideoFile:
    """A video file as a `FrameSource`.

    With `partial`, a damaged file is taken for what can be decoded of it.
    """

    def __init__(self, path: str | Path, partial: bool = False, decoding: Decoding = PLAIN):
        self.path = Path(path)
        self.partial = partial
        reopen = functools.partial(open_stream, self.path, decoding)
        self._convert = Converter(decoding.tone_map)
        self._is_damaged = False
        self._is_counted = False  # Whether the index comes from the frames themselves.
        self._can_seek = True
        with video_errors(f"{self.path} cannot be opened"):
            self._decoder = Decoder(reopen)
            self._begin(-1)
            stream = self._decoder.stream
            rate = float(stream.guessed_rate or stream.average_rate or 0)
            self.fps = rate if 0 < rate <= FASTEST_FPS else DEFAULT_FPS
            self._declared = stream.frames if stream.frames < 2**31 else 0
            first = self._decoder.first()
            if first is None:
                raise VideoError(f"{self.path} {why_blank(stream)}")
            if not decoding.tone_map and (transfer := HDR.get(first.color_trc)):
                logger.warning(HDR_NOTE, self.path, transfer)
            ratio = float(stream.sample_aspect_ratio or 1)
            self.aspect = 1 / ratio if is_on_its_side(display_matrix(first)) else ratio
            has_table = damage.fault(self.path) is None
            self._index = make_index(reopen, stream, first, self.fps, has_table)

    def close(self) -> None:
        """Closes the file."""
        self._decoder.close()

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
        is_short = len(self.times) < self._declared
        return damage.fault(self.path, deep=is_short)

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
        for number in numbers:
            with video_errors(f"{self.path}: frame {number} cannot be decoded"):
                self._go_to(number)
                frame = self._convert(self._frame)
            yield frame

    def require_whole(self) -> None:
        """Raises VideoError if the file is cut short or damaged, unless a part of it will do."""
        if self.damage and not self.partial:
            raise self._broken(len(self.times), self.damage)

    def finish(self) -> None:
        """Reads on to the end, to make sure that no frame is missing."""
        with video_errors(f"{self.path} cannot be read to its end"):
            self._go_to(len(self.times) - 1)
            if any(is_good(frame) for frame in self._decoder):
                self._count()
        self.require_whole()

    def _broken(self, frames: int, why: str) -> VideoError:
        of = f" of {self._declared:,}" if self._declared > frames else ""
        seconds = self.times[frames - 1] + self.interval if 0 < frames <= len(self.times) else 0
        return VideoError(
            f"{self.path} breaks off after {frames:,} frames{of} ({seconds:.1f} s): {why}. "
            "Ask for the partial video (partial=True, --partial) to use what can be decoded"
        )

    def _begin(self, position: int, sought: int | None = None, since: int | None = None) -> None:
        """Frames are decoded from after number `position`.

        After a seek to key frame `sought`, pictures before the clock `since` are guesses.
        """
        self._position, self._sought, self._since = position, sought, since

    def _go_to_start(self) -> None:
        # Several threads would conceal damage in another way each time.
        self._decoder.restart(threads=not self._is_damaged)
        self._begin(-1)

    def _go_to(self, number: int) -> None:
        """Makes frame `number` the one that was decoded last."""
        self._approach(number)
        while not self._walk(number):
            if self._sought is None:
                self._count()
            self._approach(number, before=self._sought)

    def _approach(self, number: int, before: int | None = None) -> None:
        """Goes to the best place to decode frame `number` from: here, a key frame, or the start.

        With `before`, it is a key frame before that one.
        """
        index, key = self._index, -1
        if index.is_exact and self._can_seek:
            key = int(np.searchsorted(index.keys, index.clocks[number], "right")) - 1
            key = key if before is None else before - 1
        if before is None and number - self._position >= 0:
            is_near = key <= 0 or number - self._position <= SEEK_BEYOND
            if is_near or index.keys[key] <= index.clocks[max(self._position, 0)]:
                return
        for earlier in range(key, 0, -1):
            place = self._decoder.seek(index, earlier, int(index.clocks[number]))
            if place is not None:
                self._begin(place - 1, earlier, int(index.clocks[place]))
                return
        self._go_to_start()

    def _walk(self, number: int) -> bool:
        """Decodes on to frame `number`. Whether it came, and each one before it as expected."""
        index = self._index
        while self._position < number:
            frame = next(self._decoder, END)
            if frame is END:
                return False
            if not is_good(frame):
                if self._is_counted or self._since is not None:
                    continue
                self._is_damaged = True
                return False
            if self._since is not None and frame.pts is not None and frame.pts < self._since:
                continue
            self._position, self._since = self._position + 1, None
            clock = frame.dts if index.by_dts else frame.pts
            if index.is_exact and clock != index.clocks[self._position]:
                return False
            self._frame: VideoFrame = frame
        return True

    def _count(self) -> None:
        """Makes the index from the frames themselves, which decodes all of them."""
        if self._is_counted:
            if not self._can_seek:
                raise VideoError(f"{self.path} does not decode to the same frames each time")
            self._can_seek = False  # In this file, a seek may end at a wrong frame.
            raise _Reindexed
        shown, decoded, broken_at = self._all_frames()
        if broken_at is not None and self.partial:
            self._is_damaged = True
            shown, decoded, broken_at = self._all_frames()
        if broken_at is not None and not self.partial:
            seconds = self.times[min(broken_at, len(self.times) - 1)]
            why = f"frame {broken_at}, at {seconds:.2f} s, is damaged or missing"
            raise self._broken(broken_at, self.damage or why)
        base = float(self._decoder.stream.time_base or 0)
        self._index = from_frames(shown, decoded, self._index.keys, base, self.fps)
        self._is_counted, self._can_seek = True, self._can_seek and broken_at is None
        self.__dict__.pop("damage", None)
        self._go_to_start()
        raise _Reindexed

    def _all_frames(self) -> tuple[list[int | None], list[int | None], int | None]:
        """When the frames are shown and decoded, and the first that is damaged or lost."""
        self._go_to_start()
        shown: list[int | None] = []
        decoded: list[int | None] = []
        broken_at = None
        for frame in self._decoder:
            if is_good(frame):
                shown.append(frame.pts)
                decoded.append(frame.dts)
            elif broken_at is None:
                broken_at = len(shown)
        if not shown:
            raise VideoError(f"{self.path} has no frame that can be decoded: it is damaged")
        if broken_at is None and self._decoder.stream.codec_context.name not in HIDING:
            broken_at = first_lost(self._index, shown)
        return shown, decoded, broken_at


def is_good(frame: object) -> TypeGuard[VideoFrame]:
    """Whether this is a frame, and not a damaged one."""
    return isinstance(frame, VideoFrame) and not frame.is_corrupt


def why_blank(stream: VideoStream) -> str:
    """Why an open file gives no frame."""
    return (
        "has no frame that can be decoded: either there is no decoder for its codec "
        f"({stream.codec_context.name or 'unknown'}), or it is damaged throughout; convert it, "
        "for example with `ffmpeg -i IN -c:v libx264 OUT.mp4`"
    )
