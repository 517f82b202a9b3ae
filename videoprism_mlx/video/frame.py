"""One frame of a video, and how large it may be."""

from typing import Any

import numpy.typing as npt

# One frame: (H, W, 3), RGB, uint8 from 0 to 255 or float32 from 0 to 1.
Frame = npt.NDArray[Any]

# Frames with more pixels are refused. 15,360 x 8,640 is the largest format in use.
MAX_PIXELS = 2**27
