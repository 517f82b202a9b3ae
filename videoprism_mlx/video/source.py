"""What a video is to those who read it: frames by number, and when each is shown.

Shapes: n frames in a video, H and W the height and width of a frame in pixels.
"""

import errno
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import InputError, InputTypeError, NotFoundError, VideoError
from videoprism_mlx.video.ffmpeg.decoding import PLAIN, Decoding
from videoprism_mlx.video.ffmpeg.index import Index
from videoprism_mlx.video.ffmpeg.reader import DEFAULT_FPS, VideoFile
from videoprism_mlx.video.find import IMAGE_SUFFIXES, images_in, local_path
from videoprism_mlx.video.frame import Frame
from videoprism_mlx.video.stills import ArrayFrames, ImageFiles

# A video file, or the images of one.
Files = Path | tuple[Path, ...]

# What `read_video` takes: the path of a video, an image or a folder of images, a list of paths of
# images, or an array of frames.
Source = Any

T = TypeVar("T")


class FrameSource(Protocol):
    """A video that is open for reading.

    A file may turn out to hold other frames than it says. So `fetch` and `finish` are only called
    by what `consistently` runs.
    """

    @property
    def path(self) -> str | Path:
        """What the video is called in messages."""

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """The seconds (n,) at which the frames are shown, the first at 0."""

    @property
    def interval(self) -> float:
        """The usual time from frame to frame, in seconds."""

    @property
    def aspect(self) -> float:
        """The width of a pixel divided by its height."""

    @property
    def damage(self) -> str | None:
        """What is wrong with the file's structure; None if nothing is."""

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec, such as h264; `images` for images and arrays."""

    @property
    def recorded(self) -> float | None:
        """When the file says that it was recorded, in seconds since 1970; None if it does not."""

    def consistently(self, produce: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Yields what `produce` yields.

        If the file turns out to hold other frames than `times` says, `times` is corrected and
        `produce` is called anew. It must then skip what it has yielded before.
        """

    def fetch(self, numbers: Iterable[int]) -> Iterator[Frame]:
        """The frames of ascending `numbers`, each (H, W, 3), RGB."""

    def require_whole(self) -> None:
        """Raises VideoError if frames are known to be missing, unless a part will do."""

    @property
    def index(self) -> Index | None:
        """What another process needs to open the same file without reading all of it."""

    def lead(self, number: int) -> int | None:
        """How many frames before this one are decoded first; None if decoding begins at 0."""

    def finish(self, others_began: bool = False) -> None:
        """Reads on to the end, and raises VideoError if frames are missing, as above.

        `others_began` says that others have read all frames before those that were fetched.
        """

    def close(self) -> None:
        """Closes what is open."""


def open_source(
    source: Source,
    frame_rate: float | None = None,
    partial: bool = False,
    decoding: Decoding = PLAIN,
    index: Index | None = None,
) -> FrameSource:
    """Opens whatever `read_video` takes. The caller closes it.

    `index` is that of the same file in another process.
    """
    check_rate("frame_rate", frame_rate)
    rate = frame_rate or DEFAULT_FPS
    if isinstance(source, (str, Path)):
        path = existing(source)
        if images := images_of(path):
            return ImageFiles(images, rate)
        if frame_rate is not None:
            raise InputError(f"{path} has a frame rate of its own; leave frame_rate out")
        return VideoFile(path, partial, decoding, index)
    if isinstance(source, (list, tuple)):
        if not source:
            raise VideoError("the list of images is empty")
        if images := images_of(source):
            return ImageFiles(images, rate)
    elif not hasattr(source, "shape"):
        raise InputTypeError(
            f"a video is a {type(source).__name__}; expected the path of a file or folder, "
            "a list of images' paths, or an array of frames"
        )
    return ArrayFrames(source, rate)


def images_of(source: Source) -> list[Path] | None:
    """The image files of a source; None of a video file or an array."""
    if isinstance(source, (str, Path)):
        path = existing(source)
        if path.is_dir():
            return images_in(path)
        return [path] if path.suffix.lower() in IMAGE_SUFFIXES else None
    if isinstance(source, (list, tuple)) and all(isinstance(one, (str, Path)) for one in source):
        return [local_path(one) for one in source]
    return None


def still_names(source: Source, times: npt.NDArray[np.float64]) -> list[str] | None:
    """What the frames at `times` (T,) are called; None of a video file, whose frames have times.

    Images have the names of their files, frames of an array have numbers from 1 on.
    """
    images = images_of(source)
    if images is None and isinstance(source, (str, Path)):
        return None
    numbers = np.round(times * DEFAULT_FPS).astype(int)
    return [images[n].name if images else f"frame {n + 1}" for n in numbers]


def existing(source: str | Path) -> Path:
    """The path of a file or folder. Raises NotFoundError or VideoError if it is not there."""
    path = local_path(source)
    if not path.exists():
        raise NotFoundError(errno.ENOENT, "there is no such file or folder", str(path))
    if not (path.is_file() or path.is_dir()):
        raise VideoError(f"{path} is neither a file nor a folder")
    return path


def require_one(paths: Iterable[Path]) -> None:
    """Raises NotFoundError for the first path if none of them exists."""
    listed = list(paths)
    if listed and not any(path.exists() for path in listed):
        existing(listed[0])


def check_rate(name: str, rate: float | None) -> None:
    """Raises InputError unless this is a number of frames a second, or None."""
    try:
        is_rate = rate is None or 0 < rate < math.inf
    except TypeError:
        raise InputTypeError(
            f"{name} is {rate!r}, a {type(rate).__name__}; expected frames a second"
        ) from None
    if not is_rate:
        raise InputError(f"{name} is {rate!r}; expected frames a second, above 0")
