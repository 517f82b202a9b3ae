"""Writing .mp4 files. Every video that this package makes is written here.

Shapes: T frames, H height, W width. Frames are RGB, 0-255.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import InputError, VideoError

CODEC = "mp4v"  # MPEG-4 Part 2: OpenCV's own encoder has it on every system.

# No player shows more frames per second.
HIGHEST_FPS = 1000


def write_video(path: str | Path, frames: Iterable[npt.NDArray[np.uint8]], fps: float) -> None:
    """Writes frames (H, W, 3), uint8, all of one even height and width, to a new .mp4 file.

    Raises OSError if the file cannot be written or is not complete, as on a full disk.
    """
    if Path(path).suffix.lower() != ".mp4":
        raise InputError(f"{path} does not end in .mp4")
    if not 0 < fps <= HIGHEST_FPS:
        raise InputError(f"fps is {fps}; expected a number above zero, {HIGHEST_FPS} at most")

    writer, count = None, 0
    height = width = 0
    try:
        for frame in frames:
            if writer is None:
                height, width = _size(frame, count)
                if height % 2 or width % 2:
                    raise VideoError(
                        f"the frames are {width} x {height} pixels; expected an even width and "
                        "height, which the codec needs"
                    )
                code = cv2.VideoWriter.fourcc(*CODEC)
                writer = cv2.VideoWriter(str(path), code, fps, (width, height))
                if not writer.isOpened():
                    raise OSError(f"OpenCV cannot write {path}: is its folder there and writable?")
            if _size(frame, count) != (height, width):
                raise VideoError(
                    f"frame {count} is {frame.shape[1]} x {frame.shape[0]} pixels, "
                    f"unlike those before it: {width} x {height}"
                )
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    if count == 0:
        raise VideoError("there are no frames to write")
    written = _count_frames(path)  # OpenCV does not say when the disk is full.
    if written != count:
        raise OSError(f"{path} came out with {written} of {count} frames: is the disk full?")


def _size(frame: npt.NDArray[np.uint8], number: int) -> tuple[int, int]:
    """The height and width of a frame. Raises VideoError unless it is uint8 (H, W, 3)."""
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape or frame.dtype != np.uint8:
        raise VideoError(
            f"frame {number} is {frame.dtype} {frame.shape}; expected uint8 (height, width, 3)"
        )
    return frame.shape[0], frame.shape[1]


def _count_frames(path: str | Path) -> int:
    """How many frames a video file has; 0 if it is missing, empty or cut off."""
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return 0
    reader = cv2.VideoCapture(str(path))
    try:
        return int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        reader.release()
