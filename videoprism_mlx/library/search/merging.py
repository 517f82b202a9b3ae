"""Neighbouring windows of one event as one moment.

Shapes: N windows of a video, in the order of time.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Windows this many seconds apart touch: files round times.
TOUCH = 0.05

# A window that reaches this share of the peak's score shows the same, whatever the rest shows.
ALIKE = 0.9

Numbers = npt.NDArray[np.float64]


class Run(NamedTuple):
    """Windows `first` to `last`, and which of them is the best."""

    first: int
    last: int
    best: int


def merged(
    starts: npt.NDArray[np.floating],
    ends: npt.NDArray[np.floating],
    scores: npt.NDArray[np.floating],
    most: int | None = None,
) -> list[Run]:
    """The moments among the windows (N,) of a video, the best first: `most` of them.

    A moment grows from a window that scores no lower than those beside it, to both sides, over
    windows that touch and whose score is at least halfway from the video's median to that peak, or
    at least nine tenths of that peak; never over a higher one.
    """
    values = np.asarray(scores, np.float64)
    middle = float(np.median(values)) if len(values) else 0.0
    touches = np.asarray(starts[1:] <= np.maximum.accumulate(ends)[:-1] + TOUCH)
    taken = np.zeros(len(values), bool)
    runs: list[Run] = []
    # Stable: of equal windows the earliest comes first.
    for best in np.argsort(-values, kind="stable").tolist():
        if most is not None and len(runs) >= most:
            break
        if taken[best] or not is_peak(best, values, touches):
            continue
        peak = values[best]
        level = min((middle + peak) / 2, peak)
        level = min(level, ALIKE * peak) if peak > 0 else level
        joins = ~taken & (values >= level) & (values <= peak)
        first = last = best
        while first > 0 and touches[first - 1] and joins[first - 1]:
            first -= 1
        while last + 1 < len(values) and touches[last] and joins[last + 1]:
            last += 1
        taken[first : last + 1] = True
        runs.append(Run(first, last, best))
    return runs


def is_peak(place: int, scores: Numbers, touches: npt.NDArray[np.bool_]) -> bool:
    """Whether no window that touches this one scores higher."""
    before = place > 0 and touches[place - 1] and scores[place - 1] > scores[place]
    after = place + 1 < len(scores) and touches[place] and scores[place + 1] > scores[place]
    return not (before or after)
