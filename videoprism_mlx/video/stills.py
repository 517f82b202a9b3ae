"""Images and arrays as the frames of a video.

Shapes: T frames, H and W the height and width of a frame in pixels.
"""

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from videoprism_mlx.errors import InputError, InputTypeError, VideoError, counted
from videoprism_mlx.files.reading import read_bytes
from videoprism_mlx.runtime.limits import PIXEL_LIMIT
from videoprism_mlx.video.failures import video_errors
from videoprism_mlx.video.frame import MAX_PIXELS, Frame
from videoprism_mlx.video.opencv import cv2

# Images in a file are counted up to this number.
MOST_IMAGES = 1000

# The image formats, by their names in Pillow, that can hold a moving picture.
MOVING = {"GIF", "PNG", "WEBP", "AVIF"}

T = TypeVar("T")


class Stills:
    """Frames that are known before they are read: `fps` of them a second, of square pixels."""

    aspect: float = 1.0
    damage: str | None = None
    codec: str = "images"
    recorded: float | None = None
    index: None = None  # Nothing has to be read before the frames.

    def __init__(self, path: str, count: int, fps: float):
        self.path = path
        self.interval = 1 / fps
        self.times = np.arange(count) / fps

    def consistently(self, produce: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Yields what `produce` yields: the number of frames never changes."""
        return produce()

    def require_whole(self) -> None:
        """Does nothing: no frame can be missing."""

    def lead(self, number: int) -> int:
        """0: no other frame is needed."""
        return 0

    def finish(self, others_began: bool = False) -> None:
        """Does nothing: nothing follows the last frame."""

    def close(self) -> None:
        """Does nothing: nothing is open."""


class ImageFiles(Stills):
    """Image files as a `FrameSource`."""

    def __init__(self, paths: Sequence[Path], fps: float):
        more = f" and {counted(len(paths) - 1, 'more image')}" if len(paths) > 1 else ""
        super().__init__(f"{paths[0]}{more}", len(paths), fps)
        self.paths = paths

    def fetch(self, numbers: Iterable[int]) -> Iterator[Frame]:
        """The frames of `numbers`, each (H, W, 3), RGB, 0-255."""
        for number in numbers:
            yield read_image(self.paths[number])


def read_image(path: Path) -> Frame:
    """An image file as (H, W, 3), RGB, 0-255."""
    with video_errors(f"{path} cannot be read"):
        content = read_bytes(path, VideoError)
        encoded = np.frombuffer(content, np.uint8)
        described = describe_image(content)
        if described.pixels > MAX_PIXELS:
            raise VideoError(
                f"{path} says that it has more than {MAX_PIXELS:,} pixels: it is damaged, or "
                "scale it down"
            )
        if (count := described.images) > 1:
            more = "or more " if count == MOST_IMAGES else ""
            raise VideoError(
                f"{path} holds {count} {more}images; expected one: convert it to a video, for "
                "example with `ffmpeg -i IN -c:v libx264 OUT.mp4`"
            )
        # The result may be None, which OpenCV's stubs do not say.
        image: Any = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
        if image is None:
            what = "not an image that OpenCV can read, or damaged" if encoded.size else "empty"
            raise VideoError(f"{path} is {what}")
        frame: Frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)  # In its place.
        return frame


class Described(NamedTuple):
    """What a file says of its images."""

    pixels: int = 0  # Of the first image.
    images: int = 1  # How many are to be shown one after the other, MOST_IMAGES at most.


def describe_image(content: bytes) -> Described:
    """What an image file says, without decoding it. The default if that is unknown."""
    described = Described()
    try:
        with Image.open(io.BytesIO(content)) as image:
            described = Described(image.width * image.height)
            if isinstance(image, TiffImageFile):
                return described._replace(images=count_pages(image))
            if image.format in MOVING:
                return described._replace(images=min(getattr(image, "n_frames", 1), MOST_IMAGES))
    except Image.DecompressionBombError:
        return Described(pixels=MAX_PIXELS + 1)
    except Exception:  # Damaged files make Pillow raise almost anything. OpenCV decides.
        pass
    return described


def count_pages(image: TiffImageFile) -> int:
    """How many pages of a TIFF file are not smaller versions of other ones."""
    count = 0
    # `n_frames` would read the headers of all pages, of which damaged files claim many.
    for page in range(MOST_IMAGES):
        try:
            image.seek(page)
        except EOFError:
            return count
        count += not image.tag_v2.get(254, 0) & 1
    return MOST_IMAGES


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
