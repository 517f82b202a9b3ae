"""Previews of videos whose codec the browser cannot play: H.264 with sound, a few seconds each."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.audio.resampler import AudioResampler
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from videoprism_mlx.errors import VideoError
from videoprism_mlx.files.atomic import is_partial, new_file
from videoprism_mlx.files.places import cache_directory
from videoprism_mlx.library.web.limits import Limits
from videoprism_mlx.video.failures import DAMAGE, video_errors
from videoprism_mlx.video.ffmpeg.colours import Converter, pixel_aspect
from videoprism_mlx.video.ffmpeg.opening import open_stream
from videoprism_mlx.video.ffmpeg.write import (
    BT709,
    CODEC,
    CONTAINER,
    LIMITED_RANGE,
    PICTURE,
    write_video,
)
from videoprism_mlx.video.source import open_source

CLOCK = Fraction(1, 90_000)
SOUND_RATE = 48_000
SETTINGS = {"preset": "veryfast", "crf": "25", "threads": "2"}

# How many seconds before it is due a frame is taken: clocks of files are rounded.
EARLY = 0.005


class Busy(Exception):
    """Too many previews are being made or waited for."""


class Previews:
    """The previews of a library's videos, made when they are asked for and kept in a folder."""

    def __init__(self, limits: Limits, folder: Path | None = None):
        self.limits = limits
        self.folder = folder or cache_directory() / "previews"
        self._making = threading.Semaphore(limits.previews)
        self._lock = threading.Lock()
        self._waiting = 0
        self._locks: dict[str, threading.Lock] = {}
        self.is_stopped = threading.Event()

    def get(self, row: Mapping[str, Any], number: int) -> Path:
        """The preview of the part `number` of a video, each `preview_length` seconds long.

        Raises Busy if too many are waited for, and VideoError if there is no such part.
        """
        length = self.limits.preview_length
        if not 0 <= number * length < max(row["duration"], 0.001):
            raise VideoError(f"the video ends before {number * length} s")
        path = self.folder / f"{name_of(row, number, self.limits)}.mp4"
        if touched(path):
            return path
        with self._in_turn(path.name), self._making:
            if not touched(path):
                make_preview(row["path"], number * length, path, self.limits, self.is_stopped)
                self.trim(path)
        return path

    @contextmanager
    def _in_turn(self, name: str) -> Iterator[None]:
        """Waits until nobody else makes this preview."""
        with self._lock:
            if self._waiting >= self.limits.waiting_previews:
                raise Busy
            self._waiting += 1
            lock = self._locks.setdefault(name, threading.Lock())
        try:
            with lock:
                yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._locks.clear()

    def trim(self, newest: Path) -> None:
        """Removes the previews that were asked for longest ago, if all are too large together."""
        found = []
        for path in self.folder.glob("*.mp4"):
            with suppress(FileNotFoundError):
                if not is_partial(path) and path != newest:
                    state = path.stat()
                    found.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in found) + newest.stat().st_size
        for _, size, path in sorted(found):
            if total <= self.limits.preview_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def name_of(row: Mapping[str, Any], number: int, limits: Limits) -> str:
    """A name for the preview of a part of this version of a video."""
    settings = (limits.preview_length, limits.preview_height, limits.preview_rate, SETTINGS)
    identity = repr((row["path"], row["size"], row["modified"], number, settings))
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def touched(path: Path) -> bool:
    """Whether there is a file. If so, it counts as just used."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def make_preview(
    path: str, start: float, target: Path, limits: Limits, is_stopped: threading.Event
) -> None:
    """Writes a preview of the seconds from `start` on. It appears when it is complete."""
    deadline = time.monotonic() + limits.preview_seconds
    end = start + limits.preview_length

    def check() -> None:
        if time.monotonic() > deadline or is_stopped.is_set():
            raise VideoError(f"a preview takes longer than {limits.preview_seconds:g} s")

    if Path(path).is_dir():
        with video_errors("no preview can be made"):
            preview_images(path, start, end, target, limits)
        return
    with video_errors("no preview can be made"), new_file(target, replace=True) as unfinished:
        opened = open_stream(Path(path))
        try:
            with av.open(str(unfinished), "w", "mp4", container_options=CONTAINER) as output:
                Transcoder(opened, output, start, end, limits).run(check)
        finally:
            opened.close()


def preview_images(path: str, start: float, end: float, target: Path, limits: Limits) -> None:
    """Writes a preview of a folder of images."""
    with closing(open_source(path)) as source:
        numbers = np.flatnonzero((source.times >= start - EARLY) & (source.times < end - EARLY))
        target.parent.mkdir(parents=True, exist_ok=True)
        size: list[tuple[int, int]] = []

        def frames() -> Iterator[Any]:
            for frame in source.fetch(numbers):
                size.append(size[0] if size else shown_size(frame.shape[1], frame.shape[0], limits))
                yield cv2.resize(frame, size[0], interpolation=cv2.INTER_AREA)

        write_video(target, frames(), 1 / source.interval)


def shown_size(width: float, height: float, limits: Limits) -> tuple[int, int]:
    """The width and height of a preview, both even."""
    scale = min(1.0, limits.preview_height / min(width, height))
    across, down = (max(2, 2 * round(side * scale / 2)) for side in (width, height))
    return across, down


class Transcoder:
    """Part of an open video, as H.264 with AAC, small enough for a page."""

    def __init__(self, opened: Any, output: Any, start: float, end: float, limits: Limits):
        self.opened = opened
        self.output = output
        self.start, self.end = start, end
        self.limits = limits
        self.video: Any = None
        self.convert = Converter(tone_map=True)
        self.reformat = VideoReformatter()
        self.next = 0.0  # When the next frame is due, in the preview.
        self.last: Any = None  # The frame shown at its beginning.
        sounds = [one for one in opened.container.streams.audio if one.codec_context]
        self.sound = sounds[0] if sounds else None
        self.resampler = AudioResampler("fltp", "stereo", SOUND_RATE)
        self.heard: Any = None
        if self.sound is not None:
            self.heard = output.add_stream("aac", rate=SOUND_RATE, layout="stereo")
        self.origin: float | None = None  # When the first frame is shown, on the file's clock.

    def run(self, check: Any) -> None:
        """Reads, encodes and writes. `check` is called for every packet."""
        container, stream = self.opened.container, self.opened.stream
        if self.start:
            self._seek()
        streams = [stream, *([self.sound] if self.sound else [])]
        done = set()
        with suppress(*DAMAGE):
            for packet in container.demux(streams):
                check()
                try:
                    frames = packet.decode()
                except DAMAGE:
                    continue
                for frame in frames:
                    if self._take(frame):
                        done.add(packet.stream.index)
                if stream.index in done and len(done) == len(streams):
                    break
                if stream.index in done and self._is_far(packet):
                    break
        if self.video is None and self.last is not None:
            self._show(self.last, 0.0)
        if self.video is None:
            raise VideoError("there is no frame to show")
        self.output.mux(self.video.encode())
        if self.heard is not None:
            for resampled in self.resampler.resample(None):
                self.output.mux(self.heard.encode(resampled))
            self.output.mux(self.heard.encode())

    def _seek(self) -> None:
        """Goes to the key frame before the start, if the file can be searched."""
        container, stream = self.opened.container, self.opened.stream
        with suppress(*DAMAGE):
            first = next((one for one in container.decode(stream) if one.pts is not None), None)
            if first is None:
                return
            self.origin = float(first.pts * first.time_base)
            container.seek(int((self.start + self.origin) / stream.time_base), stream=stream)

    def _is_far(self, packet: Any) -> bool:
        """Whether the file goes on well beyond the end, without sound up to there."""
        return packet.pts is not None and float(packet.pts * packet.time_base) > self.end + 5

    def _take(self, frame: Any) -> bool:
        """Takes a decoded frame or sound. Whether it lies behind the end."""
        if frame.pts is None:
            return False
        if self.origin is None:
            if not isinstance(frame, VideoFrame):
                return False  # Sound before the first picture.
            self.origin = float(frame.pts * frame.time_base)
        at = float(frame.pts * frame.time_base) - self.origin - self.start
        length = self.end - self.start
        if at >= length - EARLY:
            return True
        if not isinstance(frame, VideoFrame):
            if at >= -EARLY:
                rate = frame.sample_rate
                frame.pts, frame.time_base = round(max(at, 0) * rate), Fraction(1, rate)
                for resampled in self.resampler.resample(frame):
                    self.output.mux(self.heard.encode(resampled))
            return False
        if at < -EARLY:
            self.last = frame
        elif at >= self.next - EARLY:
            if self.video is None and at > EARLY and self.last is not None:
                self._show(self.last, 0.0)
            self._show(frame, max(at, 0.0))
            self.next = at + 1 / self.limits.preview_rate
        return False

    def _show(self, frame: VideoFrame, at: float) -> None:
        """Encodes a frame."""
        pixels = self.convert(frame)
        if self.video is None:
            aspect = pixel_aspect(self.opened.stream, frame)
            self._begin(pixels.shape[1] * aspect, pixels.shape[0])
        size = (self.video.width, self.video.height)
        small: Any = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        picture = self.reformat.reformat(VideoFrame.from_ndarray(small, "rgb24"), **PICTURE)
        picture.pts, picture.time_base = round(at / CLOCK), CLOCK
        self.output.mux(self.video.encode(picture))

    def _begin(self, width: float, height: float) -> None:
        """Adds the stream of pictures of such a shape, made smaller if need be."""
        rate = Fraction(self.limits.preview_rate).limit_denominator(1001)
        video = self.output.add_stream(CODEC, rate=rate, options=SETTINGS)
        video.width, video.height = shown_size(width, height, self.limits)
        video.pix_fmt = PICTURE["format"]
        context = video.codec_context
        context.time_base = CLOCK
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        self.video = video
