"""OpenCV, set up before its first import. It reads images, resizes and draws."""

import os
import sys

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
    _remedy = (
        "pip install 'opencv-python>=4.11,<4.12'"
        if sys.platform == "darwin"
        # Over an opencv-python that may be there, and that needs libGL of the system.
        else "pip install --force-reinstall --no-deps 'opencv-python-headless>=4.11'"
    )
    raise MissingLibraryError(f"OpenCV cannot be imported ({error}); run: {_remedy}") from error

__all__ = ["cv2"]
