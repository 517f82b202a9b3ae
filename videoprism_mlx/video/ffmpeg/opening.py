"""Opening a video file with FFmpeg's libraries: one local file, and nothing that it refers to."""

import os
import stat
from pathlib import Path
from typing import IO

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.container import InputContainer
from av.video.stream import VideoStream

from videoprism_mlx.errors import InputError, VideoError
from videoprism_mlx.video.failures import reason
from videoprism_mlx.video.ffmpeg import damage
from videoprism_mlx.video.ffmpeg.decoding import PLAIN, Decoding
from videoprism_mlx.video.opencv import MAX_PIXELS

# A file that is open, and the stream of it that is read.
Opened = tuple[InputContainer, VideoStream]

# How much of a file is read to tell whether it is text, and what begins with text and is a video.
TEXT_BYTES, TEXT_MAGIC = 4096, b"YUV4MPEG2"

# FFmpeg reads so many bytes at a time through Python.
BUFFER_BYTES = 2**18


def open_stream(path: Path, decoding: Decoding = PLAIN, threads: bool = True) -> Opened:
    """Opens a file and one of its video streams.

    FFmpeg gets the open file and may use no protocol: a playlist, a script or a reference inside
    the file leads nowhere. VideoError if it is no video.
    """
    file = opened(path)
    try:
        container: InputContainer = av.open(
            file,
            "r",
            buffer_size=BUFFER_BYTES,
            metadata_errors="replace",
            container_options={"protocol_whitelist": "none"},
            hwaccel=accelerator(decoding.hardware),
        )
    except av.FFmpegError as error:
        file.close()
        if fault := damage.fault(path):
            raise VideoError(f"{path} cannot be opened: {fault}") from None
        raise VideoError(f"{path} is no video that FFmpeg can open ({reason(error)})") from None
    try:
        chosen = choose_stream(container, path, decoding.stream)
        width, height = chosen.codec_context.width, chosen.codec_context.height
        if width * height > MAX_PIXELS:
            raise VideoError(
                f"{path} says its frames are {width} x {height}; "
                f"expected at most {MAX_PIXELS:,} pixels: the file is damaged, or scale it down"
            )
        chosen.thread_type = "AUTO" if threads else "NONE"
        chosen.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    except BaseException:
        container.close()
        raise
    return container, chosen


def opened(path: Path) -> IO[bytes]:
    """The open file. VideoError if it is a device or a pipe, empty, or text."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # A pipe must not keep us waiting.
    file = open(descriptor, "rb", buffering=0)  # noqa: SIM115 - The caller closes it.
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise VideoError(f"{path} is no regular file; expected a video file")
        beginning = file.read(TEXT_BYTES)
        if not beginning:
            raise VideoError(f"{path} is empty: it has 0 bytes")
        # FFmpeg would draw text, or take it for a playlist.
        if is_text(beginning) and not beginning.startswith(TEXT_MAGIC):
            raise VideoError(f"{path} is text, and no video that FFmpeg can open")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def choose_stream(container: InputContainer, path: Path, wanted: int | None) -> VideoStream:
    """The video stream of that number in the file, or the one that FFmpeg shows.

    That is a default one before others, then the one of the most pixels. Cover pictures are none.
    """
    attached = av.stream.Disposition.attached_pic
    videos = [one for one in container.streams.video if not one.disposition & attached]
    if wanted is not None:
        for one in videos:
            if one.index == wanted:
                return one
        numbers = ", ".join(str(one.index) for one in videos) or "none"
        raise InputError(f"{path} has no video stream {wanted}; its video streams are: {numbers}")
    if videos and all(one.codec_context is None for one in videos):
        raise VideoError(
            f"{path} is of a codec that this FFmpeg has no decoder for; convert it, for example "
            "with `ffmpeg -i IN -c:v libx264 OUT.mp4`"
        )
    videos = [one for one in videos if one.codec_context is not None]
    if not videos:
        raise VideoError(
            f"{path} is no video that FFmpeg can open; expected a file with a video stream: "
            "is it sound alone, or something else?"
        )

    def rank(one: VideoStream) -> tuple[bool, int]:
        is_default = bool(one.disposition & av.stream.Disposition.default)
        return is_default, one.codec_context.width * one.codec_context.height

    return max(videos, key=rank)


def accelerator(hardware: str) -> HWAccel | None:
    """The machine's video decoder, if it may be used and there is one."""
    if hardware == "off" or "videotoolbox" not in hwdevices_available():
        return None
    return HWAccel("videotoolbox", allow_software_fallback=True)


def is_text(beginning: bytes) -> bool:
    """Whether these bytes are text, in UTF-8 or older."""
    controls = set(range(32)) - set(b"\t\n\f\r\x1b")
    return controls.isdisjoint(beginning) and b"\x7f" not in beginning
