"""Whether two stretches of video show the same pictures.

Shapes: T frames of one stretch, U of the other, S size of a thumbnail, B blocks of a row.
"""

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.video.resize import resized
from videoprism_mlx.video.sampling import sample

# Frames are compared as thumbnails of this size, in this many blocks of a row and of a column.
SIZE, BLOCKS = 32, 4

# How many frames of a stretch are looked for in the other one, and at how many times a second.
LOOKED_FOR, RATE = 8, 16.0

# A share of them must fall into the other video: it may begin later or end earlier.
INSIDE = 0.5

# The difference, of 255, at which it is as likely as not that the pictures are the same, and how
# steeply that falls.
DIFFERENCE, STEEPNESS = 7.0, 4.0

# Pictures with less contrast than this, of 255, say nothing.
CONTRAST = 3.0

Thumbnails = npt.NDArray[np.float32]
Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Stretch:
    """From when to when a video, which is `duration` seconds long, shows something."""

    id: str
    path: str
    start: float
    end: float
    duration: float


def how_sure(one: Stretch, other: Stretch) -> float:
    """How sure it is that two videos show the same at about these times: from 0 to 1.

    The shorter stretch is looked for in the other video. Raises an error if a file cannot be read.
    """
    one, other = sorted((one, other), key=lambda each: (each.end - each.start, each.path))
    wanted, times = thumbnails(one, LOOKED_FOR)
    if wanted.std(axis=(1, 2)).max() < CONTRAST:
        return 0.0
    length = one.end - one.start
    around = dataclasses.replace(
        other,
        start=max(0.0, other.start - length),
        end=min(other.duration, other.end + length),
    )
    difference = best_difference(wanted, times, *thumbnails(around, None))
    return float(1 / (1 + (difference / DIFFERENCE) ** STEEPNESS))


def thumbnails(stretch: Stretch, count: int | None) -> tuple[Thumbnails, Array]:
    """`count` frames of a stretch, or RATE a second: (T, S, S), grey, 0-255; and their times."""
    end = None if stretch.end >= stretch.duration - 1e-3 else stretch.end
    rate = None if count else RATE
    options: dict[str, Any] = dict(start=stretch.start, end=end, fps=rate, partial=True)
    frames, times = sample(stretch.path, partial(thumbnail, size=SIZE), count, **options)
    return np.stack(frames), times


def thumbnail(image: Array, aspect: float, size: int) -> Thumbnails:
    """A frame (H, W, 3), 0-255, as grey (S, S)."""
    small = resized(image, size, "stretch", "area").astype(np.float32)
    grey: Thumbnails = small @ np.array([0.299, 0.587, 0.114], np.float32)
    return grey


def best_difference(wanted: Thumbnails, times: Array, shown: Thumbnails, instants: Array) -> float:
    """The mean difference of frames (T, S, S) from those (U, S, S) shown at the same times.

    At the shift of `times` (T,) against `instants` (U,) at which it is least.
    """
    differences = np.stack([block_difference(frame, shown) for frame in wanted])  # (T, U)
    late = instants[:, None] + (times - times[0])  # (U, T): when each frame would be shown.
    early = instants[:, None] + (times - times[-1])
    best = np.inf
    for shifted in np.concatenate([late, early]):
        places = np.searchsorted(instants, shifted + 0.5 / RATE) - 1
        inside = (shifted >= instants[0] - 0.5 / RATE) & (shifted <= instants[-1] + 1.5 / RATE)
        if inside.mean() >= INSIDE:
            chosen = differences[np.flatnonzero(inside), np.maximum(places[inside], 0)]
            best = min(best, float(chosen.mean()))
    return best


def block_difference(frame: Thumbnails, shown: Thumbnails) -> Array:
    """The difference of a frame (S, S) from each of (U, S, S): that of the worst block."""
    edge = SIZE // BLOCKS
    apart = np.abs(shown - frame).reshape(len(shown), BLOCKS, edge, BLOCKS, edge)
    worst: Array = apart.mean(axis=(2, 4)).max(axis=(1, 2))
    return worst
