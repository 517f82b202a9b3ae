"""Images and arrays as the frames of a video.

Shapes: T frames, H and W the height and width of a frame in pixels.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from videoprism_mlx.errors import InputError, InputTypeError, VideoError
from videoprism_mlx.runtime.limits import PIXEL_LIMIT
from videoprism_mlx.video.failures import video_errors
from videoprism_mlx.video.frame import Frame
from videoprism_mlx.video.opencv import cv2

# The image formats, by their names in Pillow, that can hold a moving picture.
MOVING = {"GIF", "PNG", "WEBP", "AVIF"}

T = TypeVar("T")


class Stills:
    """Frames that are known before they are read: `fps` of them a second, of square pixels."""

    aspect: float = 1.0
    damage: str | None = None

    def __init__(self, path: str, count: int, fps: float):
        self.path = path
        self.interval = 1 / fps
        self.times = np.arange(count) / fps

    def consistently(self, produce: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Yields what `produce` yields: the number of frames never changes."""
        return produce()

    def require_whole(self) -> None:
        """Does nothing: no frame can be missing."""

    def finish(self) -> None:
        """Does nothing: nothing follows the last frame."""

    def close(self) -> None:
        """Does nothing: nothing is open."""


class ImageFiles(Stills):
    """Image files as a `FrameSource`."""

    def __init__(self, paths: Sequence[Path], fps: float):
        more = f" and {len(paths) - 1} more images" if len(paths) > 1 else ""
        super().__init__(f"{paths[0]}{more}", len(paths), fps)
        self.paths = paths

    def fetch(self, numbers: Iterable[int]) -> Iterator[Frame]:
        """The frames of `numbers`, each (H, W, 3), RGB, 0-255."""
        for number in numbers:
            yield read_image(self.paths[number])


def read_image(path: Path) -> Frame:
    """An image file as (H, W, 3), RGB, 0-255."""
    with video_errors(f"{path} cannot be read"):
        encoded = np.frombuffer(path.read_bytes(), np.uint8)
        if (count := count_images(path)) > 1:
            raise VideoError(
                f"{path} holds {count} images; expected one: convert it to a video, for example "
                "with `ffmpeg -i IN -c:v libx264 OUT.mp4`"
            )
        # The result may be None, which OpenCV's stubs do not say.
        image: Any = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
        if image is None:
            what = "not an image that OpenCV can read, or damaged" if encoded.size else "empty"
            raise VideoError(f"{path} is {what}")
        frame: Frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return frame


def count_images(path: Path) -> int:
    """How many images a file holds to be shown one after the other; 1 if unknown."""
    try:
        with Image.open(path) as image:
            if isinstance(image, TiffImageFile):
                return sum(not is_reduced(image, page) for page in range(image.n_frames))
            return getattr(image, "n_frames", 1) if image.format in MOVING else 1
    except Exception:  # Damaged files make Pillow raise almost anything. OpenCV decides.
        return 1


def is_reduced(image: TiffImageFile, page: int) -> bool:
    """Whether a page of a TIFF file is a smaller version of another one."""
    image.seek(page)
    return bool(image.tag_v2.get(254, 0) & 1)


class ArrayFrames(Stills):
    """An array of frames as a `FrameSource`: see `checked_frames`."""

    def __init__(self, frames: Any, fps: float):
        with video_errors("the array of frames cannot be used"):
            array = as_array(frames)
            self.frames = checked_frames(array)
        super().__init__(f"the array of shape {array.shape}", len(self.frames), fps)

    def fetch(self, numbers: Iterable[int]) -> Iterator[Frame]:
        """The frames of `numbers`, each (H, W, 3), of the array's own type."""
        for number in numbers:
            yield self.frames[number]


def as_array(frames: Any) -> npt.NDArray[Any]:
    """A NumPy array of an array of any library, or of a list of frames."""
    mlx = sys.modules.get("mlx.core")  # Whoever has an array of MLX has imported it.
    if mlx and isinstance(frames, mlx.array) and frames.dtype == mlx.bfloat16:
        frames = frames.astype(mlx.float32)  # NumPy has no bfloat16.
    try:
        return np.asarray(frames)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(frames, (list, tuple)):
            raise InputError(
                "the frames of the list differ in shape or kind; expected paths of images, or "
                "arrays that are all (height, width, 3)"
            ) from None
        raise InputError(
            f"the frames are a {type(frames).__name__} that NumPy cannot read ({error}); "
            "convert it to a NumPy array first"
        ) from error


def checked_frames(frames: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Frames (T, H, W, 3), uint8 or float32. Also takes a single frame, and grey and alpha ones."""
    expected = "expected (frames, height, width, 3), uint8 or floats in [0, 1]"
    shape = frames.shape
    if frames.ndim == 2 or (frames.ndim == 3 and shape[-1] in (1, 3, 4)):
        frames = frames[None]
    if frames.ndim == 3:
        frames = frames[..., None]
    if frames.ndim != 4 or frames.shape[-1] not in (1, 3, 4):
        raise InputError(f"the array of frames has shape {shape}; {expected}")
    if 0 in shape:
        raise InputError(f"the array of frames has shape {shape}, which is empty")
    if frames.dtype.kind == "f":
        frames = frames.astype(np.float32)
        low, high = float(frames.min()), float(frames.max())
        if not (low >= -PIXEL_LIMIT and high <= PIXEL_LIMIT):
            raise InputError(
                f"the array of frames holds values from {low:g} to {high:g}; {expected}: "
                "divide 0-255 pixels by 255"
            )
    elif frames.dtype != np.uint8:
        raise InputTypeError(f"the array of frames is of type {frames.dtype}; {expected}")
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames[..., :3]
