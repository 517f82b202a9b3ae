"""Writing .mp4 files. Every video that this package makes is written here.

Shapes: T frames, H height, W width. Frames are RGB, 0-255.
"""

import errno
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from videoprism_mlx.errors import InputError, VideoError
from videoprism_mlx.files.atomic import explained_if_full
from videoprism_mlx.video.failures import reason

# H.264 with 4:2:0 colours, and the index before the frames: browsers and QuickTime play that, and
# can begin before they have all of it. One thread, and no lookahead over macroblocks, which depends
# on what is in memory: the same frames give the same bytes.
CODEC, PIXEL_FORMAT = "libx264", "yuv420p"
SETTINGS = {"crf": "16", "preset": "medium", "threads": "1", "x264-params": "no-mbtree=1"}
CONTAINER = {"movflags": "+faststart"}

# The matrix and range of HD video, in FFmpeg's numbers.
BT709, LIMITED_RANGE = 1, 1

# No player shows more frames per second.
HIGHEST_FPS = 1000


def write_video(path: str | Path, frames: Iterable[npt.NDArray[np.uint8]], fps: float) -> None:
    """Writes frames (H, W, 3), uint8, all of one even height and width, to a new .mp4 file.

    Raises OSError if the file cannot be written, as on a full disk.
    """
    if Path(path).suffix.lower() != ".mp4":
        raise InputError(f"{path} does not end in .mp4")
    if not 0 < fps <= HIGHEST_FPS:
        raise InputError(f"fps is {fps}; expected a number above zero, {HIGHEST_FPS} at most")
    rate = Fraction(fps).limit_denominator(1001)
    try:
        with (
            explained_if_full(Path(path)),
            open(path, "wb") as file,
            av.open(file, "w", "mp4", container_options=CONTAINER) as output,
        ):
            _write(output, frames, rate)
    except av.FFmpegError as error:  # PyAV hides the error of the file.
        message = f"cannot be written ({reason(error)}): make room or write elsewhere"
        raise OSError(errno.EIO, message, str(path)) from error


def _write(
    output: OutputContainer, frames: Iterable[npt.NDArray[np.uint8]], rate: Fraction
) -> None:
    stream: VideoStream | None = None
    for number, frame in enumerate(frames):
        height, width = _size(frame, number)
        if stream is None:
            stream = _add_stream(output, height, width, rate)
            graph = _to_yuv(height, width, rate)
        if (height, width) != (stream.height, stream.width):
            raise VideoError(
                f"frame {number} is {width} x {height} pixels, "
                f"unlike those before it: {stream.width} x {stream.height}"
            )
        picture = VideoFrame.from_ndarray(frame, "rgb24")
        picture.pts, picture.time_base = number, 1 / rate
        graph.push(picture)
        turned = graph.pull()
        assert isinstance(turned, VideoFrame)  # There is no sound in it.
        output.mux(stream.encode(turned))
    if stream is None:
        raise VideoError("there are no frames to write")
    output.mux(stream.encode())


def _add_stream(output: OutputContainer, height: int, width: int, rate: Fraction) -> VideoStream:
    if height % 2 or width % 2:
        raise VideoError(
            f"the frames are {width} x {height} pixels; expected an even width and height, "
            "which the codec needs"
        )
    stream = output.add_stream(CODEC, rate=rate, options=SETTINGS)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, PIXEL_FORMAT
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE
    return stream


def _to_yuv(height: int, width: int, rate: Fraction) -> Graph:
    """Filters that turn RGB frames into what the codec takes."""
    graph = Graph()
    source = graph.add_buffer(
        width=width, height=height, format=VideoFormat("rgb24"), time_base=1 / rate
    )
    scale = graph.add("scale", "out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd")
    yuv, sink = graph.add("format", f"pix_fmts={PIXEL_FORMAT}"), graph.add("buffersink")
    for one, following in ((source, scale), (scale, yuv), (yuv, sink)):
        one.link_to(following)
    graph.configure()
    return graph


def _size(frame: npt.NDArray[np.uint8], number: int) -> tuple[int, int]:
    """The height and width of a frame. Raises VideoError unless it is uint8 (H, W, 3)."""
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape or frame.dtype != np.uint8:
        raise VideoError(
            f"frame {number} is {frame.dtype} {frame.shape}; expected uint8 (height, width, 3)"
        )
    return frame.shape[0], frame.shape[1]
