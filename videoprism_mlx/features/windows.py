"""Long videos to features, window by window.

Shapes: T frames, N patches of a frame, S size of a frame, D width.
"""

import dataclasses
import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from videoprism_mlx.encoders import FactorizedEncoder, VideoPrismModel, image_to_patch
from videoprism_mlx.errors import InputError
from videoprism_mlx.features.encode import check_features, derived_features
from videoprism_mlx.features.pipeline import (
    Array,
    Features,
    Lazy,
    evaluated,
    not_finite,
    read_ahead,
    rows_of,
    waiting,
)
from videoprism_mlx.features.processor import Processor, processor_for, require_count
from videoprism_mlx.features.spans.dividing import Divide, Plan, Span, chunks_of, following, whole
from videoprism_mlx.inputs import check_video
from videoprism_mlx.video.resize import as_floats, resized
from videoprism_mlx.video.sampling import MAX_SAMPLES, check_fps
from videoprism_mlx.video.source import FrameSource, Source, open_source


@dataclasses.dataclass
class Window:
    """Window `number` of `count`: the frames from `start` to `end`, in seconds.

    Before the last window, `count` is what the file promises. The last one has the true count.
    """

    start: float
    end: float
    features: Features
    number: int
    count: int

    def arrays(self) -> Features:
        """The features, and `start` and `end` as arrays without axes."""
        times = {"start": np.float64(self.start), "end": np.float64(self.end)}
        return {**{key: np.asarray(time) for key, time in times.items()}, **self.features}


def encode_windows(
    model: VideoPrismModel,
    source: Source,
    window: int = 16,
    stride: int | None = None,
    fps: float | None = None,
    *,
    processor: Processor | None = None,
    features: Collection[str] | None = None,
    start: float | None = None,
    end: float | None = None,
    frame_rate: float | None = None,
    partial: bool = False,
) -> Iterator[Window]:
    """Features of `window` frames at a time, every `stride` frames, of a video of any length.

    The frames are those of the video or, with `fps`, sampled at that rate. By default `stride` is
    `window`. The last window ends with the video, even if that makes the last step shorter. A video
    shorter than a window gives one window, whose frames are repeated as `read_video` does. Each
    frame goes through the spatial layers once, however much the windows overlap. `features` are
    as for `encode`; by default `tokens` and the one that `encode` gives.
    """
    features = check_features(model, features or ["tokens", *check_features(model, None)])
    sampling = Sampling.of(window, stride, start, end, fps)
    processor = processor or processor_for(model)
    with closing(open_source(source, frame_rate, partial, processor.decoding)) as opened:
        yield from span_windows(model, processor, opened, sampling, features)


class Sampling(NamedTuple):
    """Frames of a window, frames from one to the next, the seconds that are used, and their rate.

    None is for the beginning and end of the video, and for its own rate.
    """

    window: int
    stride: int
    start: float | None
    end: float | None
    fps: float | None

    @classmethod
    def of(
        cls,
        window: int,
        stride: int | None,
        start: float | None,
        end: float | None,
        fps: float | None,
    ) -> "Sampling":
        """By default a window begins where the one before it ends."""
        stride = window if stride is None else stride
        check_windowing(window, stride, fps)
        return cls(window, stride, start, end, fps)


def span_windows(
    model: VideoPrismModel,
    processor: Processor,
    opened: FrameSource,
    sampling: Sampling,
    features: Sequence[str],
    divide: Divide = whole,
    turn: "threading.Lock | None" = None,
) -> Iterator[Window]:
    """The windows of an open video or, if it is divided, of the first of its spans.

    The model runs while this thread has the lock `turn`, and not while it waits for frames.
    """
    done = 0
    turn = turn or threading.Lock()

    def windows() -> Iterator[Window]:
        nonlocal done
        if sampling.end is None:
            opened.require_whole()
        plan = Plan.of(opened, *sampling)
        first, stop = divide(opened, plan)[0]
        span = Span(first + done, stop)
        lazily = encoded_windows(model, processor, opened, plan, span, features, turn)
        with closing(lazily):  # Closes the reader threads before the video that they read.
            computed = evaluated(lazily)
            while True:
                with turn:
                    group = next(computed, None)
                if group is None:
                    break
                [(encoded, arrays)] = group
                if error := not_finite(arrays, opened.path):
                    raise error
                encoded.features = arrays
                yield encoded
                done += 1
        if sampling.end is None and stop == len(plan.firsts):
            opened.finish(others_began=first > 0)

    yield from opened.consistently(windows)


def check_windowing(window: int, stride: int, fps: float | None) -> None:
    """Raises InputError unless `window` and `stride` are numbers of frames, and `fps` is a rate."""
    for name, value in (("window", window), ("stride", stride)):
        require_count(name, value, "1 frame or more")
        if value > MAX_SAMPLES:
            raise InputError(f"{name} is {value}; expected at most {MAX_SAMPLES:,} frames")
    check_fps(fps)


def encoded_windows(
    model: VideoPrismModel,
    processor: Processor,
    opened: FrameSource,
    plan: Plan,
    span: Span,
    features: Sequence[str],
    turn: threading.Lock,
) -> Generator[list[tuple[Window, Lazy]], None, None]:
    """The windows of a span of a plan. Their features are not computed yet.

    About a window of frames is encoded at a time. A frame is kept as long as a window needs it.
    """
    chunks = chunks_of(plan, span)
    samples = [sample for chunk in chunks for sample in chunk]
    images = opened.fetch(plan.numbers[[*samples, *following(plan, span, samples)]])

    def read(samples: Sequence[int]) -> Array:
        frames = islice(images, len(samples))
        sizing = processor.sizing()
        try:
            return np.stack(
                [as_floats(resized(one, **sizing, aspect=opened.aspect)) for one in frames]
            )
        except MemoryError:
            raise InputError(
                f"{len(samples)} frames of {opened.path} do not fit in memory; "
                "give a smaller window (--window)"
            ) from None

    with read_ahead(read, chunks, readers=1, ahead=2) as chunks_read:
        waited = waiting(chunks_read, turn)
        windows = joined_windows(model, model.video_encoder, plan, waited, features, span.first)
        yield from islice(windows, max(span.stop - span.first, 0))
    for _ in images:  # Where the next span begins.
        pass


def joined_windows(
    model: VideoPrismModel,
    encoder: FactorizedEncoder,
    plan: Plan,
    chunks: Iterator[tuple[Sequence[int], Array]],
    features: Sequence[str],
    done: int = 0,
) -> Generator[list[tuple[Window, Lazy]], None, None]:
    """The windows of `encoded_windows`, of chunks that have been read: samples and their clip."""
    known: dict[int, mx.array] = {}
    for number, first in enumerate(plan.firsts[done:], done):
        last = first + plan.window - 1
        while last not in known:
            samples, clip = next(chunks)
            known |= zip(samples, space_features(encoder, clip), strict=True)
        for sample in [sample for sample in known if sample < first]:
            del known[sample]
        spatial = mx.stack([known[sample] for sample in range(first, last + 1)])
        tokens = encoder.encode_time(spatial[None])
        arrays = derived_features(model, tokens, plan.window, features)
        times = float(plan.instants[first]), float(plan.instants[last + 1])
        yield [(Window(*times, {}, number, len(plan.firsts)), rows_of(arrays)[0])]


def space_features(encoder: FactorizedEncoder, clip: Array) -> list[mx.array]:
    """Frames (T, S, S, 3) through the spatial layers: an array (N, D) for each frame."""
    frames = check_video(clip[None], encoder.patch_size)[0]
    grid = (frames.shape[1] // encoder.patch_size, frames.shape[2] // encoder.patch_size)
    encoded = encoder.encode_space(image_to_patch(frames, encoder.patch_size), grid)
    mx.eval(encoded)
    return list(encoded)
