"""Which frames the windows of a video are made of, and long videos in spans of windows.

The spans of a video may be encoded by several workers.

A span reads the chunks of frames that a run over the whole video reads, so that the model computes
the same. It reads on to the first frame of the next one, so that all of the file is checked.
"""

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import VideoError
from videoprism_mlx.video.ffmpeg.walker import SEEK_BEYOND
from videoprism_mlx.video.sampling import choose_frames
from videoprism_mlx.video.source import FrameSource

# How many seconds of video a span has, about. To begin one takes 0.05 to 0.1 s, and to read it 4 s
# (an hour of H.264, 640 x 360, on a core of a Linux machine), which a faster model waits for.
SECONDS = 300.0

# A video stays whole if more than this share of its frames would be decoded twice, because key
# frames are rare.
MOST_TWICE = 0.1

# So many times the windows that a span may have are divided at any cost.
FAR_TOO_MANY = 4


class Plan(NamedTuple):
    """Which frames the windows of a video are made of. The video is sampled, T samples in all."""

    numbers: npt.NDArray[np.intp]  # (T,): the frame of each sample.
    instants: npt.NDArray[np.float64]  # (T + 1,): when each is shown, and when the last one ends.
    firsts: list[int]  # The first sample of each window.
    window: int

    @classmethod
    def of(
        cls,
        opened: FrameSource,
        window: int,
        stride: int,
        start: float | None,
        end: float | None,
        fps: float | None,
    ) -> "Plan":
        """The windows of `encode_windows`."""
        numbers = choose_frames(opened, None, start, end, fps)
        instants = (
            opened.times[numbers] if fps is None else (start or 0) + np.arange(len(numbers)) / fps
        )
        last = min(
            instants[-1] + (opened.interval if fps is None else 1 / fps),
            opened.times[-1] + opened.interval,
        )
        if len(numbers) < window:
            repeated = np.linspace(0, len(numbers), window, endpoint=False).astype(int)
            numbers, instants = numbers[repeated], instants[repeated]
        final = len(numbers) - window
        firsts = [*range(0, final, stride), final]
        return cls(numbers, np.append(instants, last), firsts, window)

    def chunks(self) -> list[list[int]]:
        """The samples that the windows need, in order, about a window at a time."""
        window = self.window
        needed = sorted(
            {sample for first in self.firsts for sample in range(first, first + window)}
        )
        return [needed[i : i + window] for i in range(0, len(needed), window)]


class Span(NamedTuple):
    """The windows of a video from number `first` on, up to before number `stop`."""

    first: int
    stop: int


# How a video is divided, when it is open. The first span is read.
Divide = Callable[[FrameSource, Plan], list[Span]]


def whole(_: FrameSource, plan: Plan) -> list[Span]:
    """One span of all windows."""
    return [Span(0, len(plan.firsts))]


def spans_of(
    opened: FrameSource, plan: Plan, seconds: float = SECONDS, most_twice: float = MOST_TWICE
) -> list[Span]:
    """Spans of about so many seconds; a single one for a video that is better read as a whole."""
    begin, end = plan.instants[0], plan.instants[-1]
    count = round((end - begin) / seconds)
    if count < 2 or np.diff(plan.numbers).max() > SEEK_BEYOND:
        return whole(opened, plan)
    chunks = {chunk[0] for chunk in plan.chunks()}
    stops = [0]
    for number, first in enumerate(plan.firsts):
        wanted = begin + (end - begin) * len(stops) / count
        if first in chunks and plan.instants[first] >= wanted and number > stops[-1]:
            stops.append(number)
    leads = [opened.lead(int(plan.numbers[plan.firsts[stop]])) for stop in stops[1:]]
    twice = sum(len(opened.times) if lead is None else lead for lead in leads)
    if twice > most_twice * len(opened.times):
        return whole(opened, plan)
    return [Span(*pair) for pair in zip(stops, [*stops[1:], len(plan.firsts)], strict=True)]


def spans_within(opened: FrameSource, plan: Plan, most: int) -> list[Span]:
    """Spans of about SECONDS, but not many more than `most` windows."""
    length = plan.instants[-1] - plan.instants[0]
    seconds = min(SECONDS, most * length / len(plan.firsts))
    must = len(plan.firsts) > FAR_TOO_MANY * most
    return spans_of(opened, plan, seconds, math.inf if must else MOST_TWICE)


def at_first(divide: Divide) -> Divide:
    """Divides a video once. If its index was wrong, it stays whole."""
    ways = itertools.chain([divide], itertools.repeat(whole))
    return lambda opened, plan: next(ways)(opened, plan)


def chunks_of(plan: Plan, span: Span) -> list[list[int]]:
    """The samples that a span needs, in the chunks of the whole video."""
    if span.first >= span.stop:
        return []
    first = plan.firsts[span.first]
    last = plan.firsts[span.stop - 1] + plan.window - 1
    return [chunk for chunk in plan.chunks() if chunk[-1] >= first and chunk[0] <= last]


def following(plan: Plan, span: Span, samples: Sequence[int]) -> list[int]:
    """The sample with which the next span begins, if it comes after the `samples` of this one."""
    begins = plan.firsts[span.stop : span.stop + 1]
    return [sample for sample in begins if sample > max(samples)]


def mark_of(plan: Plan) -> str:
    """What is the same for the same plan."""
    digest = hashlib.sha256(plan.numbers.tobytes() + plan.instants.tobytes())
    digest.update(repr((plan.firsts, plan.window)).encode())
    return digest.hexdigest()


def long_ones(seconds: float) -> Divide:
    """Divides a video that is long enough. Once its index was wrong, it stays whole."""
    return at_first(functools.partial(spans_of, seconds=seconds))


def exactly(span: Span, mark: str) -> Divide:
    """A span of a video that was divided before. Raises VideoError if it is another video now."""
    calls = itertools.count()

    def divide(_: FrameSource, plan: Plan) -> list[Span]:
        if next(calls) or mark_of(plan) != mark:
            raise VideoError("the video is not as it was when it was divided into spans")
        return [span]

    return divide
