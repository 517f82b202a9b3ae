"""One video file, any frame of it by number or time, through OpenCV.

Frame n is the nth that the file decodes to, in the order of display. Where in the file it lies is
read from the packets, which costs next to nothing; that every frame is then the one that was asked
for is seen from its time. Headers are not believed.
"""

import functools
import logging
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

# OpenCV and FFmpeg read these once. What they would print is said in our errors; a file may hold
# more sound between two frames than OpenCV is willing to skip; an image's header may be absurd.
MAX_PIXELS = 2**27  # 15,360 x 8,640 is the largest format in use.
for _name, _value in (
    ("OPENCV_LOG_LEVEL", "OFF"),
    ("OPENCV_FFMPEG_LOGLEVEL", "-8"),
    ("OPENCV_FFMPEG_READ_ATTEMPTS", "10000000"),
    ("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS)),
):
    os.environ.setdefault(_name, _value)

# ruff: noqa: E402
try:
    import cv2
except ImportError as error:
    hint = "on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0"
    raise ImportError(f"OpenCV lacks a system library ({error}); {hint}") from error

from videoprism_mlx.errors import VideoError
from videoprism_mlx.video import containers

# Going further ahead than this, a seek is cheaper than decoding: it starts at a key frame, which
# encoders rarely set further apart.
SEEK_BEYOND = 300

# A seek may end some frames late, as many as are reordered.
SEEK_SHORT = 8

# Times of a packet and of its frame are the same number, rounded.
SAME_TIME = 5e-4

# How many packets in a row may fail, on top of those that are missing, until it is the end.
FAILURES = 64

DEFAULT_FPS = 25.0

# Seconds. A packet without a time has one beyond this, which no date reaches; and a recording
# whose clock jumps back is taken for one that jumps ahead by most of its clock's 26 hours.
NO_TIME, CLOCK_JUMP = 5e9, 2**32 / 90_000

# How much of a file is read to tell whether it is text, and what begins with text and is a video.
TEXT_BYTES, TEXT_MAGIC = 4096, b"YUV4MPEG2"

logger = logging.getLogger(__name__)

if tuple(map(int, cv2.__version__.split(".")[:2])) >= (4, 13):
    logger.warning(
        "OpenCV %s gives wrong frames of interlaced video, without an error; "
        "install opencv-python<4.13",
        cv2.__version__,
    )


class Reindexed(Exception):
    """The file holds other frames than its packets promised; `times` is now what it holds."""


class VideoFile:
    """A video file. `times` (n,) are the seconds at which its frames are shown, the first at 0.

    `partial` takes a damaged file for what can be decoded of it.
    """

    def __init__(self, path: str | Path, partial: bool = False):
        self.path = Path(path)
        self.partial = partial
        self._require_file()
        self._capture = self._opened()
        if not self._capture.isOpened():
            raise VideoError(f"{self.path} {self._why_closed()}")
        width, height = (
            int(self._capture.get(property))
            for property in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > MAX_PIXELS:
            raise VideoError(
                f"{self.path} says its frames are {width} x {height}; "
                f"expected at most {MAX_PIXELS:,} pixels: the file is damaged, or scale it down"
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else DEFAULT_FPS
        self.aspect = self._pixel_aspect()
        declared = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._declared = int(declared) if 0 < declared < 2**31 else 0

        if not self._grab_any():
            raise VideoError(f"{self.path} {self._why_blank()}")
        self._last_clock = self._clock()
        self._position = 0
        self._sought: int | None = None  # The key frame it was last sought for.
        self._measured = False
        self._can_seek = True
        self._index()

    def close(self) -> None:
        self._capture.release()

    @property
    def interval(self) -> float:
        """The usual time from frame to frame, in seconds."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 1 / self.fps

    @functools.cached_property
    def damage(self) -> str | None:
        """What is wrong with the file's structure, if it is short of what its header says."""
        is_short = len(self.times) < self._declared
        return containers.fault(self.path, deep=is_short)

    def fetch(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """The frames of ascending `numbers`, each (H, W, 3), RGB, 0-255, the right way up."""
        for number in numbers:
            self._go_to(number)
            try:
                read, image = self._capture.retrieve()
            except cv2.error:  # Such as of a damaged size.
                read = False
            if not read:
                raise VideoError(f"{self.path}: frame {number} cannot be converted to colours")
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def require_whole(self) -> None:
        """That the file is not cut short, unless part of it will do."""
        if self.damage and not self.partial:
            self._break(len(self.times), self.damage)

    def finish(self) -> None:
        """Reads on to the end, so that it is known that no frame is missing."""
        self._go_to(len(self.times) - 1)
        self._position += 1
        if self._grab():
            self._measure()
        self.require_whole()

    def _require_file(self) -> None:
        """That there is a file, that it may be read, and that a video may be in it."""
        try:
            str(self.path).encode()
        except UnicodeEncodeError:  # OpenCV would crash.
            name = os.fsencode(self.path)
            raise VideoError(f"{name!r} is no UTF-8, and OpenCV needs that: rename it") from None
        with open(self.path, "rb") as file:
            beginning = file.read(TEXT_BYTES)
        if not beginning:
            raise VideoError(f"{self.path} is empty: it has 0 bytes")
        # FFmpeg would draw it, or follow it to other files if it is a playlist.
        if is_text(beginning) and not beginning.startswith(TEXT_MAGIC):
            raise VideoError(f"{self.path} is text, and no video that OpenCV can open")

    def _opened(self, *settings: int) -> cv2.VideoCapture:
        # As an absolute path, no name can be taken for a protocol or a pattern of images.
        return cv2.VideoCapture(os.path.abspath(self.path), cv2.CAP_FFMPEG, list(settings))

    def _why_closed(self) -> str:
        if fault := containers.fault(self.path):
            return f"cannot be opened: {fault}"
        return (
            "is no video that OpenCV can open; expected a file with a video stream: "
            "is it sound alone, or something else?"
        )

    def _why_blank(self) -> str:
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True)
        name = code.decode("ascii", "replace").strip("\0 ")
        return (
            f"has no frame that can be decoded: either this OpenCV has no decoder for its codec "
            f"({name or 'unknown'}), or it is damaged throughout; convert it, for example with "
            "`ffmpeg -i IN -c:v libx264 OUT.mp4`"
        )

    def _pixel_aspect(self) -> float:
        """Width to height of one pixel, as the frame is seen the right way up."""
        across, down = (
            self._capture.get(property) for property in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN)
        )
        aspect = across / down if across > 0 and down > 0 else 1.0
        turned = round(self._capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90
        return 1 / aspect if turned else aspect

    def _clock(self) -> float:
        """The file's own time of the frame that was grabbed last."""
        return self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000

    def _index(self) -> None:
        """Takes `times` from the packets, which are not decoded."""
        packets = self._opened(cv2.CAP_PROP_FORMAT, -1)
        clocks, keys, failures = array("d"), array("d"), 0
        while failures <= FAILURES:
            if packets.grab():
                clocks.append(packets.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                if packets.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME):
                    keys.append(clocks[-1])
                failures = 0
            else:
                failures += 1
        packets.release()
        # There is a frame at least: it was decoded.
        times = np.sort(np.asarray(clocks or [self._last_clock]))
        is_told = (np.diff(times) > 0).all()
        self._keys = np.sort(np.asarray(keys)) - times[0] + self._last_clock
        self._take(times if is_told else np.full(len(times), NO_TIME))

    def _take(self, clocks: np.ndarray) -> None:
        """Takes `times` from the file's own ones, or from the frame rate where those fail."""
        has_time = np.abs(clocks) < NO_TIME
        steps = np.diff(clocks)
        self._has_times = bool(has_time.all() and (steps > 0).all())
        is_step = (steps > 0) & (steps < CLOCK_JUMP) & has_time[1:] & has_time[:-1]
        self.times = np.append(0, np.cumsum(np.where(is_step, steps, 1 / self.fps)))
        # Packets and frames may differ in where they begin to count.
        self._clocks = clocks - clocks[0] + self._last_clock

    def _measure(self) -> None:
        """Takes `times` from the frames themselves, decoding all of them."""
        if self._measured:
            if not self._can_seek:
                raise VideoError(f"{self.path} does not decode to the same frames each time")
            self._can_seek = False  # Seeking leads astray in this file.
            raise Reindexed
        self._rewind()
        clocks, broken_at = array("d", [self._clock()]), None
        while True:
            if not self._grab():
                if not self._grab_any(FAILURES + max(0, len(self.times) - len(clocks))):
                    break
                broken_at = broken_at or len(clocks)
            clocks.append(self._clock())
        self._rewind()
        self._take(np.asarray(clocks))
        self._measured = True
        self._can_seek &= broken_at is None
        self.__dict__.pop("damage", None)
        if broken_at is not None and not self.partial:
            self._break(broken_at, self.damage or "what follows is damaged")
        raise Reindexed

    def _break(self, frames: int, why: str) -> None:
        of = f" of {self._declared:,}" if self._declared > frames else ""
        raise VideoError(
            f"{self.path} breaks off after {frames:,} frames{of} "
            f"({self.times[min(frames, len(self.times)) - 1] + self.interval:.1f} s): {why}. "
            "Ask for the partial video (partial=True, --partial) to use what can be decoded"
        )

    def _grab(self) -> bool:
        """Decodes the next frame; False at the end and where a packet cannot be decoded."""
        return self._capture.grab()

    def _grab_any(self, attempts: int = 4096) -> bool:
        """Decodes the next frame that can be, past packets that cannot."""
        return any(self._grab() for _ in range(attempts))

    def _rewind(self) -> None:
        """Back to the first frame."""
        self._capture.release()
        self._capture = self._opened()
        self._grab_any()
        self._position, self._last_clock, self._sought = 0, self._clock(), None

    def _go_to(self, number: int) -> None:
        """Makes frame `number` the one that was grabbed last."""
        ahead = number - self._position
        if ahead < 0 or ahead > SEEK_BEYOND:
            self._seek(number)
        while self._position < number:
            # Once measured, it is known that the frame comes, be it after some that cannot.
            came = self._grab_any() if self._measured else self._grab()
            self._position += 1
            if came and self._is_on_time():
                continue
            if self._sought is None:
                self._measure()
            self._seek(number, before=self._sought)

    def _is_on_time(self) -> bool:
        """Whether the frame grabbed last is shown when it should be, where it says when."""
        clock, expected = self._clock(), self._clocks[self._position]
        is_told = self._has_times and clock > self._last_clock
        self._last_clock = clock
        return not is_told or abs(clock - expected) <= SAME_TIME

    def _seek(self, number: int, before: int | None = None) -> None:
        """Goes to a frame at or before `number`, near it if the file can be sought in.

        That is a key frame, one before that numbered `before` if it is given: a seek may land
        between two of them, where pictures are guesses.
        """
        last = self._clocks[number] + SAME_TIME
        key, step = int(np.searchsorted(self._keys, last)) - 1, 1
        can_seek = self._has_times and self._can_seek and key >= 0
        if before is not None:
            key = before - 1
        elif can_seek and self._keys[key] <= self._clocks[self._position] < last:
            return  # It is sooner reached from here.
        while can_seek and key > 0:
            start = self._keys[key] - SEEK_SHORT * self.interval
            self._capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * start)
            while self._grab_any(FAILURES) and (clock := self._clock()) <= last:
                position = nearest(self._clocks, clock)
                if position is not None and nearest(self._keys, clock) is not None:
                    self._position, self._last_clock, self._sought = position, clock, key
                    return
            key, step = key - step, 2 * step
        if number < self._position or can_seek:
            self._rewind()


def nearest(clocks: np.ndarray, clock: float) -> int | None:
    """Which of ascending clocks is this one."""
    place = int(np.searchsorted(clocks, clock - SAME_TIME))
    is_it = place < len(clocks) and abs(clocks[place] - clock) <= SAME_TIME
    return place if is_it else None


def is_text(beginning: bytes) -> bool:
    """Whether these bytes are text, in UTF-8 or older."""
    controls = set(range(32)) - set(b"\t\n\f\r\x1b")
    return controls.isdisjoint(beginning) and b"\x7f" not in beginning
