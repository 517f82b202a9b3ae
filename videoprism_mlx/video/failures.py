"""Failures of FFmpeg and OpenCV, and memory that runs out, as errors of this package."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from videoprism_mlx.errors import VideoError
from videoprism_mlx.video.ffmpeg import av

# What reading packets of a damaged file raises. PyAV itself fails on a stream that damage makes up.
DAMAGE = (av.FFmpegError, IndexError)

# What to do with a file that cannot be read as it is.
CONVERT = "convert it, for example with `ffmpeg -i IN -c:v libx264 OUT.mp4`"


@contextmanager
def video_errors(failure: str) -> Iterator[None]:
    """Raises VideoError where a library fails or memory runs out; `failure` begins the message."""
    try:
        yield
    except MemoryError as error:
        raise VideoError(f"{failure}: there is not enough memory ({error})") from error
    except av.FFmpegError as error:
        raise VideoError(f"{failure}: {reason(error)}") from error
    except Exception as error:
        opencv = sys.modules.get("cv2")  # Nothing else fails in it.
        if opencv is None or not isinstance(error, opencv.error):
            raise
        raise VideoError(f"{failure}: {' '.join(str(error).split())}") from error


def reason(error: av.FFmpegError) -> str:
    """What FFmpeg says, without the name of the file."""
    return str(error.strerror or error)
