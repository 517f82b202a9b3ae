"""The libraries that read and resize: OpenCV, set up before its first import, and its failures."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from videoprism_mlx.errors import MissingLibraryError, VideoError

# Frames with more pixels are refused. 15,360 x 8,640 is the largest format in use.
MAX_PIXELS = 2**27

# OpenCV and FFmpeg read these settings once, when they are imported.
for _name, _value in (
    ("OPENCV_LOG_LEVEL", "OFF"),  # Our errors say what they would print.
    ("OPENCV_FFMPEG_LOGLEVEL", "-8"),
    ("OPENCV_FFMPEG_READ_ATTEMPTS", "10000000"),  # Much audio may lie between two frames.
    ("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS)),
):
    os.environ.setdefault(_name, _value)

try:
    import cv2
except ImportError as error:
    raise MissingLibraryError(
        f"OpenCV cannot be imported ({error}); install opencv-python, and if a system library is "
        "missing, on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0"
    ) from error

__all__ = ["MAX_PIXELS", "Frame", "cv2", "video_errors"]

# One frame: (H, W, 3), RGB, uint8 from 0 to 255 or float32 from 0 to 1.
Frame = npt.NDArray[Any]

logger = logging.getLogger(__name__)

if tuple(map(int, cv2.__version__.split(".")[:2])) >= (4, 13):
    logger.warning(
        "OpenCV %s decodes interlaced video to wrong frames, without an error; "
        "install opencv-python<4.13",
        cv2.__version__,
    )


@contextmanager
def video_errors(failure: str) -> Iterator[None]:
    """Raises VideoError where OpenCV fails or memory runs out; `failure` begins the message."""
    try:
        yield
    except MemoryError as error:
        raise VideoError(f"{failure}: there is not enough memory ({error})") from error
    except cv2.error as error:
        raise VideoError(f"{failure}: {' '.join(str(error).split())}") from error
