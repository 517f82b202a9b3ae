"""A video file: any of its frames by number, through FFmpeg's libraries (PyAV).

Frame n is the nth that the file decodes to, in the order of display. An index says when each frame
is shown and where decoding can begin, and every decoded frame is compared with it. Where the two
differ, all frames are decoded once to see what the file really holds: see `consistently`.
"""

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeGuard, TypeVar

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from videoprism_mlx.errors import VideoError
from videoprism_mlx.video.failures import DAMAGE, video_errors
from videoprism_mlx.video.ffmpeg import damage
from videoprism_mlx.video.ffmpeg.colours import HDR, Converter, display_matrix, is_on_its_side
from videoprism_mlx.video.ffmpeg.decoding import PLAIN, Decoding
from videoprism_mlx.video.ffmpeg.index import Seconds, first_lost, from_frames, make_index
from videoprism_mlx.video.ffmpeg.opening import open_stream
from videoprism_mlx.video.opencv import Frame

# To go further ahead than this, seeking is cheaper than decoding: a seek starts at a key frame, and
# encoders rarely set key frames further apart. What lies between is not checked for damage then.
SEEK_BEYOND = 300

# A seek may end a few frames late, as many as the codec reorders. So many frames earlier is tried.
SEEK_EARLY = (0, 8, 64)

# Rates above this, which no camera has, are mistakes of the file.
DEFAULT_FPS, FASTEST_FPS = 25.0, 1000.0

# Codecs with packets that are never shown: they promise nothing.
HIDING = ("vp8",)

# What comes after the last frame.
END = object()

Frames = Iterator[VideoFrame | None]

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

    _frames: Frames  # Those that follow: see `_decoded`.

    def __init__(self, path: str | Path, partial: bool = False, decoding: Decoding = PLAIN):
        self.path = Path(path)
        self.partial = partial
        self._open = functools.partial(open_stream, self.path, decoding)
        self._convert = Converter(decoding.tone_map)
        self._is_damaged = False
        self._is_counted = False  # Whether the index comes from the frames themselves.
        self._can_seek = True
        with video_errors(f"{self.path} cannot be opened"):
            self._container, self._stream = self._open()
            self._begin(-1)
            rate = float(self._stream.guessed_rate or self._stream.average_rate or 0)
            self.fps = rate if 0 < rate <= FASTEST_FPS else DEFAULT_FPS
            self._declared = self._stream.frames if self._stream.frames < 2**31 else 0
            first = self._first_frame()
            if not decoding.tone_map and (transfer := HDR.get(first.color_trc)):
                logger.warning(HDR_NOTE, self.path, transfer)
            ratio = float(self._stream.sample_aspect_ratio or 1)
            self.aspect = 1 / ratio if is_on_its_side(display_matrix(first)) else ratio
            has_table = damage.fault(self.path) is None
            self._index = make_index(self._open, self._stream, first, self.fps, has_table)

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

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
            if any(is_good(frame) for frame in self._frames):
                self._count()
        self.require_whole()

    def _first_frame(self) -> VideoFrame:
        """The first frame, which is still to come when decoding goes on."""
        begun: list[VideoFrame | None] = []
        for frame in self._frames:
            begun.append(frame)
            if frame is not None:
                self._frames = itertools.chain(begun, self._frames)
                return frame
        name = self._stream.codec_context.name or "unknown"
        raise VideoError(
            f"{self.path} has no frame that can be decoded: either there is no decoder for its "
            f"codec ({name}), or it is damaged throughout; convert it, for example with "
            "`ffmpeg -i IN -c:v libx264 OUT.mp4`"
        )

    def _broken(self, frames: int, why: str) -> VideoError:
        of = f" of {self._declared:,}" if self._declared > frames else ""
        seconds = self.times[frames - 1] + self.interval if 0 < frames <= len(self.times) else 0
        return VideoError(
            f"{self.path} breaks off after {frames:,} frames{of} ({seconds:.1f} s): {why}. "
            "Ask for the partial video (partial=True, --partial) to use what can be decoded"
        )

    def _go_to_start(self) -> None:
        self._container.close()
        # Several threads would conceal damage in another way each time.
        self._container, self._stream = self._open(threads=not self._is_damaged)
        self._begin(-1)

    def _begin(
        self, position: int, sought: int | None = None, *read: "Packet[VideoStream]"
    ) -> None:
        """Decodes from after frame `position` on, first the packets that were `read` already.

        `sought` is the number of the key frame that the first of them has.
        """
        self._position, self._sought = position, sought
        self._since = read[0].pts if read else None  # Pictures before the key frame are guesses.
        self._frames = self._decoded(*read)

    def _decoded(self, *read: "Packet[VideoStream]") -> Frames:
        """The frames that follow; None in the place of a packet that cannot be decoded."""
        try:
            for packet in itertools.chain(read, self._container.demux(self._stream)):
                try:
                    yield from packet.decode()
                except av.FFmpegError:
                    yield None
        except DAMAGE:
            yield None

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
        while key > 0 and not self._seek(key, int(index.clocks[number])):
            key -= 1
        if key <= 0:
            self._go_to_start()

    def _seek(self, key: int, latest: int) -> bool:
        """Goes to a key frame of the index. Whether it is there, at a clock up to `latest`."""
        index = self._index
        clock, step = int(index.keys[key]), int(np.diff(index.clocks[:2]).max(initial=1))
        for early in SEEK_EARLY:
            self._container.seek(max(clock - early * step, 0), stream=self._stream)
            for packet in self._container.demux(self._stream):
                if packet.pts is None or (packet.pts > clock and not packet.is_keyframe):
                    break  # It is between two key frames.
                if packet.is_keyframe and packet.pts >= clock:
                    place = int(np.searchsorted(index.clocks, packet.pts))
                    if packet.pts > latest or index.clocks[place] != packet.pts:
                        break
                    self._begin(place - 1, key, packet)
                    return True
        return False

    def _walk(self, number: int) -> bool:
        """Decodes on to frame `number`. Whether it came, and each one before it as expected."""
        index = self._index
        while self._position < number:
            frame = next(self._frames, END)
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
        base = float(self._stream.time_base or 0)
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
        for frame in self._frames:
            if is_good(frame):
                shown.append(frame.pts)
                decoded.append(frame.dts)
            elif broken_at is None:
                broken_at = len(shown)
        if not shown:
            raise VideoError(f"{self.path} has no frame that can be decoded: it is damaged")
        if broken_at is None and self._stream.codec_context.name not in HIDING:
            broken_at = first_lost(self._index, shown)
        return shown, decoded, broken_at


def is_good(frame: object) -> TypeGuard[VideoFrame]:
    """Whether this is a frame, and not a damaged one."""
    return isinstance(frame, VideoFrame) and not frame.is_corrupt
