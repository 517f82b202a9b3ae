"""Limits that the readers of video and the models share."""

import os

# The largest absolute value of a pixel. Frames are expected in [0, 1]. Values that resampling or
# normalization moves out of this range are accepted; pixels from 0 to 255 are refused.
PIXEL_LIMIT = 10.0


def available_cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Not on macOS, where it may use all of them.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
