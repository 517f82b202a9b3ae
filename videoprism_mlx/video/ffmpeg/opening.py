"""Opening a video file with FFmpeg's libraries: one local file, and nothing that it refers to."""

import errno
import io
import os
import re
import stat
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.video.stream import VideoStream

from videoprism_mlx.errors import VideoError
from videoprism_mlx.runtime.limits import available_cores
from videoprism_mlx.video.failures import reason
from videoprism_mlx.video.ffmpeg import VERSION, damage
from videoprism_mlx.video.ffmpeg.decoding import PLAIN, Decoding
from videoprism_mlx.video.ffmpeg.streams import accelerator, choose_stream
from videoprism_mlx.video.frame import MAX_PIXELS

# How much of a file is read to tell whether it is text, what text has none of, and what begins with
# text and is a video.
TEXT_BYTES, TEXT_MAGIC = 4096, b"YUV4MPEG2"
CONTROLS = {*range(32), 127} - set(b"\t\n\f\r\x1b")

# FFmpeg itself would take one thread more than there are cores, which is slower.
THREADS = min(available_cores(), 16)

# Titles and comments may not be UTF-8. From PyAV 19 on, this is the only way.
LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if VERSION < 19 else {}

# Where files say when they were recorded. The first, of phones, has a time zone.
RECORDING_TIMES = ("com.apple.quicktime.creationdate", "creation_time", "DATE_RECORDED", "date")
BEFORE_DIGITAL = 1980

# FFmpeg reads so many bytes at a time through Python.
BUFFER_BYTES = 2**18


class LocalFile(io.FileIO):
    """A file that FFmpeg reads, and where a damaged file may send it anywhere."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position, or an error code as FFmpeg has them."""
        try:
            return super().seek(offset, whence)
        except OSError as error:
            return -(error.errno or errno.EINVAL)


class Opened(NamedTuple):
    """A file that is open, and the stream of it that is read."""

    file: LocalFile
    container: InputContainer
    stream: VideoStream

    def close(self) -> None:
        """Closes the file."""
        self.container.close()
        self.file.close()


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
            container_options={"protocol_whitelist": "none"},
            hwaccel=accelerator(decoding.hardware),
            **LENIENT,
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
        chosen.codec_context.thread_count = THREADS if threads else 1
        chosen.codec_context.flags |= Flags.unaligned  # Pictures are cropped to the pixel.
        chosen.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    except BaseException:
        container.close()
        file.close()
        raise
    return Opened(file, container, chosen)


def recording_time(metadata: Mapping[str, str]) -> float | None:
    """When the metadata of a file say that it was recorded, in seconds since 1970."""
    for name in RECORDING_TIMES:
        try:
            # Before Python 3.11, ISO 8601 was understood in part.
            text = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", metadata[name].replace("Z", "+00:00"))
            moment = datetime.fromisoformat(text)
        except (KeyError, ValueError):
            continue
        if moment.year > BEFORE_DIGITAL:  # Clocks that were never set begin in 1904 or 1970.
            return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    return None


def opened(path: Path) -> LocalFile:
    """The open file. VideoError if it is a device or a pipe, empty, or text."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # A pipe must not keep us waiting.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise VideoError(f"{path} is no regular file; expected a video file")
    file = LocalFile(descriptor)
    try:
        beginning = file.read(TEXT_BYTES)
        if not beginning:
            raise VideoError(f"{path} is empty: it has 0 bytes")
        # FFmpeg would draw text, or take it for a playlist.
        if CONTROLS.isdisjoint(beginning) and not beginning.startswith(TEXT_MAGIC):
            raise VideoError(f"{path} is text, and no video that FFmpeg can open")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file
