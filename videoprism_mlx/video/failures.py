"""Failures of FFmpeg and OpenCV, and memory that runs out, as errors of this package."""

from collections.abc import Iterator
from contextlib import contextmanager

import av

from videoprism_mlx.errors import VideoError
from videoprism_mlx.video.opencv import cv2

# What reading packets of a damaged file raises. PyAV itself fails on a stream that damage makes up.
DAMAGE = (av.FFmpegError, IndexError)


@contextmanager
def video_errors(failure: str) -> Iterator[None]:
    """Raises VideoError where a library fails or memory runs out; `failure` begins the message."""
    try:
        yield
    except MemoryError as error:
        raise VideoError(f"{failure}: there is not enough memory ({error})") from error
    except av.FFmpegError as error:
        raise VideoError(f"{failure}: {reason(error)}") from error
    except cv2.error as error:
        raise VideoError(f"{failure}: {' '.join(str(error).split())}") from error


def reason(error: av.FFmpegError) -> str:
    """What FFmpeg says, without the name of the file."""
    return str(error.strerror or error)
