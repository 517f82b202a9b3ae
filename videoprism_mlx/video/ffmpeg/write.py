"""Writing .mp4 files. Every video that this package makes is written here.

Shapes: T frames, H height, W width. Frames are RGB, 0-255.
"""

import errno
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import FileIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from videoprism_mlx.errors import InputError, NotFoundError, VideoError
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.video.failures import reason

# H.264 with 4:2:0 colours, and the index before the frames: browsers and QuickTime play that, and
# can begin before they have all of it. One thread, and no lookahead over macroblocks, which depends
# on what is in memory: the same frames give the same bytes.
CODEC = "libx264"
SETTINGS = {"crf": "16", "preset": "medium", "threads": "1", "x264-params": "no-mbtree=1"}
CONTAINER = {"movflags": "+faststart"}

# What the codec takes.
PICTURE: dict[str, Any] = dict(
    format="yuv420p",
    dst_colorspace="ITU709",
    dst_color_range="MPEG",
    interpolation="BICUBIC",
    threads=1,
)

# The matrix and range of HD video, in FFmpeg's numbers.
BT709, LIMITED_RANGE = 1, 1

# Frames per second: no player shows more, and MP4 has no finer ones. Pixels: H.264 takes no more.
HIGHEST_FPS, LARGEST_DENOMINATOR = 1000, 1001
LONGEST_SIDE = 16_384


def write_video(path: str | Path, frames: Iterable[npt.NDArray[np.uint8]], fps: float) -> None:
    """Writes frames (H, W, 3), uint8, all of one even height and width, to an .mp4 file.

    The file appears when it is complete. Raises OSError if it cannot be written, as on a full disk.
    """
    if Path(path).suffix.lower() != ".mp4":
        raise InputError(f"{path} does not end in .mp4")
    if not 1 / LARGEST_DENOMINATOR <= fps <= HIGHEST_FPS:
        raise InputError(f"fps is {fps}; expected a number above zero, {HIGHEST_FPS} at most")
    rate = Fraction(float(fps)).limit_denominator(LARGEST_DENOMINATOR)
    images = enumerate(frames)
    first = next(images, None)
    if first is None:
        raise VideoError("there are no frames to write")
    height, width = _size(first[1], 0)
    if height % 2 or width % 2 or max(height, width) > LONGEST_SIDE:
        raise VideoError(
            f"the frames are {width} x {height} pixels; expected an even width and height, "
            f"{LONGEST_SIDE:,} at most, which the codec needs"
        )
    path = Path(os.path.abspath(path))  # FFmpeg would take a name with a colon for a protocol.
    if not path.parent.is_dir():
        raise NotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    try:
        with (
            new_file(path, replace=True) as unfinished,
            open(unfinished, "wb", buffering=0) as opened,
            Kept(opened).errors() as file,
            av.open(file, "w", "mp4", container_options=CONTAINER) as output,
        ):
            stream, converter = _add_stream(output, height, width, rate), VideoReformatter()
            for number, frame in itertools.chain([first], images):
                if (size := _size(frame, number)) != (height, width):
                    raise VideoError(
                        f"frame {number} is {size[1]} x {size[0]} pixels, "
                        f"unlike those before it: {width} x {height}"
                    )
                picture = converter.reformat(VideoFrame.from_ndarray(frame, "rgb24"), **PICTURE)
                picture.pts, picture.time_base = number, 1 / rate
                output.mux(stream.encode(picture))
                file.check()
            output.mux(stream.encode())
    except av.FFmpegError as error:
        message = f"cannot be written ({reason(error)}): make room or write elsewhere"
        raise OSError(errno.EIO, message, str(path)) from error


class Kept:
    """A file whose errors are kept, as PyAV hides those of a file that it writes to."""

    def __init__(self, file: FileIO):
        self._file = file
        self._error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        """Writes all of the data, unless there was an error before."""
        rest = memoryview(data)
        while rest and self._error is None:
            try:
                rest = rest[self._file.write(rest) :]
            except OSError as error:
                self._error = error
        return len(data)

    def check(self) -> None:
        """Raises the error of the file, if there was one."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def errors(self) -> Iterator["Kept"]:
        """Raises the error of the file at the end of the block."""
        try:
            yield self
        finally:
            self.check()


def _add_stream(output: OutputContainer, height: int, width: int, rate: Fraction) -> VideoStream:
    stream = output.add_stream(CODEC, rate=rate, options=SETTINGS)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, PICTURE["format"]
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE
    return stream


def _size(frame: npt.NDArray[np.uint8], number: int) -> tuple[int, int]:
    """The height and width of a frame. Raises VideoError unless it is uint8 (H, W, 3)."""
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape or frame.dtype != np.uint8:
        raise VideoError(
            f"frame {number} is {frame.dtype} {frame.shape}; expected uint8 (height, width, 3)"
        )
    return frame.shape[0], frame.shape[1]
