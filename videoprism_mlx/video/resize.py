"""Resizing frames.

Shapes: H and W are the height and width of a frame in pixels.
"""

import math
import operator

import numpy as np
import numpy.typing as npt
from PIL import Image

from videoprism_mlx.errors import InputError, InputTypeError, VideoError
from videoprism_mlx.video.failures import video_errors
from videoprism_mlx.video.frame import MAX_PIXELS, Frame
from videoprism_mlx.video.opencv import cv2

RESIZES = ("stretch", "crop")
RESAMPLINGS = ("area", "lanczos")
MAX_SIZE = 4096


def check_size(size: int | None, resize: str, resample: str) -> None:
    """Raises InputError unless `size`, `resize` and `resample` are valid."""
    if resize not in RESIZES:
        raise InputError(f"resize is {resize!r}; expected one of {', '.join(RESIZES)}")
    if resample not in RESAMPLINGS:
        raise InputError(f"resample is {resample!r}; expected one of {', '.join(RESAMPLINGS)}")
    if size is None:
        return
    try:
        size = operator.index(size)
    except TypeError:
        raise InputTypeError(
            f"size is {size!r}, a {type(size).__name__}; expected a whole number of pixels"
        ) from None
    if not 1 <= size <= MAX_SIZE:
        raise InputError(f"size is {size}; expected 1 to {MAX_SIZE} pixels")


def resized(
    image: Frame, size: int | None, resize: str, resample: str, aspect: float = 1.0
) -> Frame:
    """A frame (H, W, 3) as (size, size, 3), of the same type.

    `aspect` is the width of a pixel divided by its height.
    """
    if size is None:
        return image
    height, width = image.shape[:2]
    target = (size, size)
    if resize == "crop":
        scale = size / min(height, width * aspect)
        target = (round(height * scale), round(width * aspect * scale))
        if math.prod(target) > MAX_PIXELS:
            raise VideoError(
                f"a frame is {width} x {height}, too long and thin to be cropped; "
                "stretch it instead (resize='stretch', --resize stretch)"
            )
    image = scaled(image, *target, resample)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return image[top : top + size, left : left + size]


def thumbnail(image: Frame, height: int, aspect: float = 1.0) -> Frame:
    """A frame (H, W, 3) resized to (height, W', 3), 0-255, with the aspect that players show."""
    width = max(1, round(height * image.shape[1] * aspect / image.shape[0]))
    if width * height > MAX_PIXELS:
        raise VideoError(
            f"a frame is {image.shape[1]} x {image.shape[0]}, too long and thin to be shown"
        )
    with video_errors("a frame cannot be made smaller"):
        if image.dtype != np.uint8:
            image = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return scaled(image, height, width)


def scaled(image: Frame, height: int, width: int, resample: str = "area") -> Frame:
    """A frame (H, W, 3) as (height, width, 3), of the same type, without aliasing."""
    if image.shape[:2] == (height, width):
        return image
    old = f"{image.shape[1]} x {image.shape[0]}"
    with video_errors(f"a frame of {old} cannot be resized to {width} x {height}"):
        if resample == "lanczos":
            return lanczos(image, height, width)
        smaller = min(height, image.shape[0]), min(width, image.shape[1])
        if smaller != image.shape[:2]:
            image = cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA)
        if smaller != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        return image


def lanczos(image: Frame, height: int, width: int) -> Frame:
    """A frame (H, W, 3) as (height, width, 3), resized by Pillow as in the official demos."""
    size, filter = (width, height), Image.Resampling.LANCZOS
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize(size, filter))
    channels = (Image.fromarray(channel.copy()) for channel in np.moveaxis(image, -1, 0))
    resized = [np.asarray(channel.resize(size, filter)) for channel in channels]
    return np.stack(resized, axis=-1)


def as_floats(image: Frame) -> npt.NDArray[np.float32]:
    """A frame (H, W, 3), 0-255 or floats, as float32 in [0, 1]."""
    with video_errors("a frame cannot be converted to float32"):
        if image.dtype == np.uint8:
            return image.astype(np.float32) / np.float32(255)
        floats: npt.NDArray[np.float32] = np.clip(image, 0, 1)
        return floats
