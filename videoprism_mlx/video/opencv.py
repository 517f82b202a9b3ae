"""OpenCV, set up before its first import. It reads images, resizes and draws."""

import os

from videoprism_mlx.errors import MissingLibraryError
from videoprism_mlx.video.frame import MAX_PIXELS

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

__all__ = ["cv2"]
