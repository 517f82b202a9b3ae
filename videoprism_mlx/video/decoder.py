"""A video file: any of its frames by number, through OpenCV.

Frame n is the nth that the file decodes to, in the order of display. The packets say where each
frame lies, and reading them costs next to nothing. The time of each decoded frame shows whether it
is the one that was asked for. The headers of the file are not relied on.

CONTRIBUTING.md says what a new codec or container needs.
"""

import functools
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from videoprism_mlx.errors import VideoError
from videoprism_mlx.video import damage
from videoprism_mlx.video.index import FAILURES, SAME_TIME, Index, Seconds, nearest
from videoprism_mlx.video.libraries import MAX_PIXELS, Frame, cv2, video_errors

# To go further ahead than this, seeking is cheaper than decoding: a seek starts at a key frame, and
# encoders rarely set key frames further apart.
SEEK_BEYOND = 300

# A seek may end some frames late, as many as the codec reorders.
SEEK_SHORT = 8

DEFAULT_FPS = 25.0

# How many bytes decide whether a file is text, and how a video begins that looks like text.
TEXT_BYTES, TEXT_MAGIC = 4096, b"YUV4MPEG2"

T = TypeVar("T")


class _Reindexed(Exception):
    """The file holds other frames than its packets promised. The index is correct now."""


class VideoFile:
    """A video file as a `FrameSource`.

    With `partial`, a damaged file is taken for what can be decoded of it.
    """

    def __init__(self, path: str | Path, partial: bool = False):
        self.path = Path(path)
        self.partial = partial
        require_video(self.path)
        with video_errors(f"{self.path} cannot be opened"):
            self._capture = open_capture(self.path)
            if not self._capture.isOpened():
                raise VideoError(f"{self.path} {why_closed(self.path)}")
            width, height = (
                int(self._capture.get(property))
                for property in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
            )
            if width * height > MAX_PIXELS:
                raise VideoError(
                    f"{self.path} says its frames are {width} x {height}; expected at most "
                    f"{MAX_PIXELS:,} pixels: the file is damaged, or scale it down"
                )
            fps = self._capture.get(cv2.CAP_PROP_FPS)
            self.fps = fps if 0 < fps < 1000 else DEFAULT_FPS
            self.aspect = pixel_aspect(self._capture)
            declared = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
            self._declared = int(declared) if 0 < declared < 2**31 else 0

            if not self._grab_any():
                raise VideoError(f"{self.path} {why_blank(self._capture)}")
            self._position, self._last_clock = 0, self._clock()
            self._sought: int | None = None  # The key frame of the last seek.
            self._measured = False
            self._can_seek = True
            packets = open_capture(self.path, cv2.CAP_PROP_FORMAT, -1)
            self._index = Index.of_packets(packets, self._last_clock, self.fps)

    def close(self) -> None:
        """Closes the file."""
        self._capture.release()

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
                read, image = self._capture.retrieve()
                if not read:
                    raise VideoError(f"{self.path}: frame {number} cannot be converted to RGB")
                frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            yield frame

    def require_whole(self) -> None:
        """Raises VideoError if the file is cut short or damaged, unless a part of it will do."""
        if self.damage and not self.partial:
            self._break(len(self.times), self.damage)

    def finish(self) -> None:
        """Reads on to the end, to make sure that no frame is missing."""
        with video_errors(f"{self.path} cannot be read to its end"):
            self._go_to(len(self.times) - 1)
            self._position += 1
            if self._grab():
                self._measure()
        self.require_whole()

    def _break(self, frames: int, why: str) -> None:
        of = f" of {self._declared:,}" if self._declared > frames else ""
        raise VideoError(
            f"{self.path} breaks off after {frames:,} frames{of} "
            f"({self.times[min(frames, len(self.times)) - 1] + self.interval:.1f} s): {why}. "
            "Ask for the partial video (partial=True, --partial) to use what can be decoded"
        )

    def _measure(self) -> None:
        """Makes the index from the frames themselves, which decodes all of them."""
        if self._measured:
            if not self._can_seek:
                raise VideoError(f"{self.path} does not decode to the same frames each time")
            self._can_seek = False  # In this file, a seek may end at a wrong frame.
            raise _Reindexed
        self._rewind()
        clocks, broken_at = array("d", [self._clock()]), None
        while True:
            if not self._grab():
                if not self._grab_any(FAILURES + max(0, len(self.times) - len(clocks))):
                    break
                broken_at = broken_at or len(clocks)
            clocks.append(self._clock())
        self._rewind()
        self._index = Index.of_clocks(
            np.asarray(clocks), self._index.keys, self._last_clock, self.fps
        )
        self._measured = True
        self._can_seek &= broken_at is None
        self.__dict__.pop("damage", None)
        if broken_at is not None and not self.partial:
            self._break(broken_at, self.damage or "what follows is damaged")
        raise _Reindexed

    def _clock(self) -> float:
        """The file's own time of the frame that was grabbed last."""
        return self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000

    def _grab(self) -> bool:
        """Decodes the next frame; False at the end and where a packet cannot be decoded."""
        return self._capture.grab()

    def _grab_any(self, attempts: int = 4096) -> bool:
        """Decodes the next frame that can be decoded, and skips packets that cannot."""
        return any(self._grab() for _ in range(attempts))

    def _rewind(self) -> None:
        """Goes back to the first frame."""
        self._capture.release()
        self._capture = open_capture(self.path)
        self._grab_any()
        self._position, self._last_clock, self._sought = 0, self._clock(), None

    def _go_to(self, number: int) -> None:
        """Makes frame `number` the one that was grabbed last."""
        ahead = number - self._position
        if ahead < 0 or ahead > SEEK_BEYOND:
            self._seek(number)
        while self._position < number:
            # Once measured, the frame is known to come, possibly after packets that fail.
            came = self._grab_any() if self._measured else self._grab()
            self._position += 1
            if came and self._is_on_time():
                continue
            if self._sought is None:
                self._measure()
            self._seek(number, before=self._sought)

    def _is_on_time(self) -> bool:
        """Whether the frame grabbed last has the time that the index has for it."""
        clock, expected = self._clock(), self._index.clocks[self._position]
        is_told = self._index.has_times and clock > self._last_clock
        self._last_clock = clock
        return not is_told or bool(abs(clock - expected) <= SAME_TIME)

    def _seek(self, number: int, before: int | None = None) -> None:
        """Goes to a key frame at or before frame `number`, or to the first frame.

        With `before`, it is a key frame before that one: a seek may end between two key frames,
        where the decoder guesses what it shows.
        """
        clocks, keys = self._index.clocks, self._index.keys
        last = clocks[number] + SAME_TIME
        key, step = int(np.searchsorted(keys, last)) - 1, 1
        can_seek = self._index.has_times and self._can_seek and key >= 0
        if before is not None:
            key = before - 1
        elif can_seek and keys[key] <= clocks[self._position] < last:
            return  # Decoding from here is the shorter way.
        while can_seek and key > 0:
            start = keys[key] - SEEK_SHORT * self.interval
            self._capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * start)
            while self._grab_any(FAILURES) and (clock := self._clock()) <= last:
                position = nearest(clocks, clock)
                if position is not None and nearest(keys, clock) is not None:
                    self._position, self._last_clock, self._sought = position, clock, key
                    return
            key, step = key - step, 2 * step
        if number < self._position or can_seek:
            self._rewind()


def require_video(path: Path) -> None:
    """Raises VideoError or OSError unless the file can be read and may hold a video."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # OpenCV would end the process.
        raise VideoError(
            f"the file name {str(path)!a} is not UTF-8, which OpenCV needs: rename the file"
        ) from None
    with open(path, "rb") as file:
        beginning = file.read(TEXT_BYTES)
    if not beginning:
        raise VideoError(f"{path} is empty: it has 0 bytes")
    # FFmpeg would draw a text, and follow a playlist to other files.
    if is_text(beginning) and not beginning.startswith(TEXT_MAGIC):
        raise VideoError(f"{path} is text, and no video that OpenCV can open")


def is_text(beginning: bytes) -> bool:
    """Whether these bytes are text, in UTF-8 or an older encoding."""
    controls = set(range(32)) - set(b"\t\n\f\r\x1b")
    return controls.isdisjoint(beginning) and b"\x7f" not in beginning


def open_capture(path: Path, *settings: int) -> cv2.VideoCapture:
    """OpenCV's decoder of a file, with pairs of a property and its value."""
    # An absolute path cannot be taken for a protocol or a pattern of images.
    return cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, list(settings))


def pixel_aspect(capture: cv2.VideoCapture) -> float:
    """The width of a pixel divided by its height, in frames that are the right way up."""
    across, down = (
        capture.get(property) for property in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN)
    )
    aspect = across / down if across > 0 and down > 0 else 1.0
    is_turned = round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90
    return 1 / aspect if is_turned else aspect


def why_closed(path: Path) -> str:
    """Why OpenCV cannot open a file."""
    if fault := damage.fault(path):
        return f"cannot be opened: {fault}"
    return (
        "is no video that OpenCV can open; expected a file with a video stream: "
        "is it sound alone, or something else?"
    )


def why_blank(capture: cv2.VideoCapture) -> str:
    """Why an open file gives no frame."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    name = code.to_bytes(4, "little").decode("ascii", "replace").strip("\0 ")
    return (
        f"has no frame that can be decoded: either this OpenCV has no decoder for its codec "
        f"({name or 'unknown'}), or it is damaged throughout; convert it, for example with "
        "`ffmpeg -i IN -c:v libx264 OUT.mp4`"
    )
