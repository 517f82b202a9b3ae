"""Pictures and clips that are dropped on the page: checked, embedded, and not kept."""

import os
import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import EXPECTED, InputError, VideoError
from videoprism_mlx.library.searcher import Searcher
from videoprism_mlx.library.web.limits import Limits
from videoprism_mlx.video.ffmpeg.opening import open_stream
from videoprism_mlx.video.ffmpeg.reader import VideoFile
from videoprism_mlx.video.stills import describe_image

Vector = npt.NDArray[np.float32]

# How images begin. Everything else is taken for a video.
IMAGES = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
BRANDS = {b"avif": ".avif"}


class TooLarge(InputError):
    """An upload that has too many bytes."""


class Uploads:
    """The embeddings of uploads, by the keys that the page knows them by."""

    def __init__(self, searcher: Searcher, limits: Limits):
        self.searcher = searcher
        self.limits = limits
        self.slots = threading.BoundedSemaphore(limits.uploads)
        self._kept: OrderedDict[str, Vector] = OrderedDict()
        self._lock = threading.Lock()

    def vector(self, key: str) -> Vector | None:
        """The embedding of an earlier upload. None if it is not kept any more."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def add(self, path: Path) -> str:
        """The key of a file's embedding. Raises VideoError if it cannot be used."""
        try:
            check_upload(path, self.limits)
            vector = self.searcher.embed_video(path)
        except EXPECTED as error:
            message = str(error).replace(str(path), "the file").replace(str(path.parent), "")
            raise VideoError(message) from None
        key = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[key] = vector
            while len(self._kept) > self.limits.kept_uploads:
                self._kept.popitem(last=False)
        return key


async def receive(stream: AsyncIterator[bytes], folder: Path, limits: Limits) -> Path:
    """Writes an upload to a file in a folder, with the ending of what it is."""
    path, size = folder / "upload", 0
    with open(path, "wb") as file:
        async for part in stream:
            size += len(part)
            if size > limits.upload_bytes:
                raise TooLarge(too_large(limits))
            file.write(part)
    if not size:
        raise InputError("the file is empty")
    with open(path, "rb") as file:
        named = path.with_suffix(ending_of(file.read(16)))
    os.rename(path, named)
    return named


def too_large(limits: Limits) -> str:
    """The message about a file with too many bytes."""
    return f"the file is too large: at most {limits.upload_bytes // 2**20} MB can be searched by"


def ending_of(beginning: bytes) -> str:
    """The ending that a file gets, by how it begins."""
    for magic, ending in IMAGES.items():
        if beginning.startswith(magic):
            return ending
    if beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP":
        return ".webp"
    return BRANDS.get(beginning[8:12], ".mp4") if beginning[4:8] == b"ftyp" else ".mp4"


def check_upload(path: Path, limits: Limits) -> None:
    """Raises InputError if a picture or clip is too large or too long to be read soon."""
    most = f"at most {limits.upload_pixels // 10**6} million pixels can be searched by"
    if path.suffix != ".mp4":
        if describe_image(path.read_bytes()).pixels > limits.upload_pixels:
            raise InputError(f"the picture is too large: {most}")
        return
    with closing(open_stream(path)) as opened:
        pixels = opened.stream.codec_context.width * opened.stream.codec_context.height
    if pixels > limits.upload_pixels:
        raise VideoError(f"its frames are too large: {most}")
    with closing(VideoFile(path)) as file:
        count, seconds = len(file.times), float(file.times[-1]) + file.interval
        if seconds > limits.upload_duration:
            raise VideoError(
                f"the clip is {seconds:.0f} s long; one of at most {limits.upload_duration:g} s "
                "can be searched by"
            )
        if pixels * count > limits.upload_decoded_pixels:
            raise VideoError("the clip is too large to be read at once; scale it down or cut it")


def new_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder for one upload, which is removed with it."""
    return tempfile.TemporaryDirectory(prefix="videoprism_mlx-")
