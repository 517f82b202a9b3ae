"""OpenCV, set up before its first import. It reads images, resizes and draws."""

import os
from typing import Any

import numpy.typing as npt

from videoprism_mlx.errors import MissingLibraryError

# Frames with more pixels are refused. 15,360 x 8,640 is the largest format in use.
MAX_PIXELS = 2**27

# OpenCV reads these settings once, when it is imported.
for _name, _value in (
    ("OPENCV_LOG_LEVEL", "OFF"),  # Our errors say what they would print.
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

__all__ = ["MAX_PIXELS", "Frame", "cv2"]

# One frame: (H, W, 3), RGB, uint8 from 0 to 255 or float32 from 0 to 1.
Frame = npt.NDArray[Any]
