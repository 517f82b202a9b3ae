"""Many videos, and long ones, to features.

Shapes: B batch, T frames, N patches of a frame, S size of a frame, D width.
"""

import dataclasses
import operator
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from typing import NamedTuple, TypeVar

import mlx.core as mx
import numpy as np

from videoprism_mlx.encoders import FactorizedEncoder, VideoPrismModel, image_to_patch
from videoprism_mlx.errors import EXPECTED, InputError, suggestion
from videoprism_mlx.features.processor import Processor, processor_for
from videoprism_mlx.inputs import check_video
from videoprism_mlx.video.resize import as_floats, resized
from videoprism_mlx.video.sampling import MAX_SAMPLES, check_fps, choose_frames
from videoprism_mlx.video.source import FrameSource, Source, open_source

FEATURES = {
    "tokens": "(T * N, D): the encoder's features, patch by patch",
    "frames": "(T, D): one vector a frame; embeddings of a video-text model, else token averages",
    "pooled": "(D,): one vector a video; from the model's pooler, or its token average",
    "embedding": "(D,): of length one, comparable with texts; video-text models only",
}

Item = TypeVar("Item")
Read = TypeVar("Read")
Lazy = dict[str, mx.array]
Features = dict[str, np.ndarray]


@dataclasses.dataclass
class Encoded:
    """What became of one source: its features, or the error that reading it raised."""

    source: Source
    features: Features = dataclasses.field(default_factory=dict)
    error: Exception | None = None


@dataclasses.dataclass
class Window:
    """Window `number` of `count`: the frames shown from `start` to `end`, in seconds.

    The last window's `count` is right. Before, it is what the file promises.
    """

    start: float
    end: float
    features: Features
    number: int
    count: int

    def arrays(self) -> Features:
        """The times and the features, all as arrays."""
        times = {"start": np.float64(self.start), "end": np.float64(self.end)}
        return {**{key: np.asarray(time) for key, time in times.items()}, **self.features}


def encode(
    model: VideoPrismModel,
    processor: Processor,
    sources: Iterable[Source],
    batch_size: int = 4,
    features: Collection[str] | None = None,
    *,
    errors: str = "raise",
    readers: int | None = None,
    partial: bool = False,
) -> Iterator[Encoded]:
    """The features of each source, in their order.

    `features` are names of FEATURES, by default `embedding` where the model has it, else `pooled`.
    `readers` threads read up to two batches ahead of the model. A source that cannot be read is
    raised or, with `errors="yield"`, comes as an `Encoded` with its `error`.
    """
    features = check_features(model, features)
    if errors not in ("raise", "yield"):
        raise InputError(f"errors is {errors!r}; expected 'raise' or 'yield'")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; expected 1 or more")

    def read(source: Source) -> np.ndarray | Exception:
        try:
            return processor.read(source, partial=partial)
        except EXPECTED as error:
            return error

    def lazily() -> Iterator[tuple[Encoded, Lazy]]:
        with read_ahead(read, sources, readers, 2 * batch_size) as clips:
            while group := list(islice(clips, batch_size)):
                batches: dict[tuple[int, ...], list[np.ndarray]] = {}
                for _, clip in group:
                    if not isinstance(clip, Exception):
                        batches.setdefault(clip.shape, []).append(clip)
                rows = {
                    shape: iter(rows_of(video_features(model, mx.array(np.stack(clips)), features)))
                    for shape, clips in batches.items()
                }
                yield [
                    (Encoded(source, error=clip), {})
                    if isinstance(clip, Exception)
                    else (Encoded(source), next(rows[clip.shape]))
                    for source, clip in group
                ]

    for group in evaluated(lazily()):
        for encoded, arrays in group:
            if encoded.error is not None and errors == "raise":
                raise encoded.error
            encoded.features = arrays
            yield encoded


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
    """Features of `window` frames at a time, every `stride` frames, along a video of any length.

    Frames are those of the video or, with `fps`, sampled at that rate; a `stride` of None is a
    whole window. The last window ends with the video, however long the step to it; a video shorter
    than a window gives one, its frames repeated as `read_video` does. Each frame goes through the
    spatial layers once, whatever the overlap. `features` are as for `encode`, by default `tokens`
    and the vector that `encode` gives.
    """
    features = check_features(model, features or ["tokens", *check_features(model, None)])
    stride = window if stride is None else stride
    check_windowing(window, stride, fps)
    processor = processor or processor_for(model)
    encoder = model.video_encoder
    done = 0
    with closing(open_source(source, frame_rate, partial)) as opened:

        def windows() -> Iterator[Window]:
            nonlocal done
            if end is None:
                opened.require_whole()
            plan = Plan.of(opened, window, stride, start, end, fps)
            lazily = encoded_windows(model, encoder, processor, opened, plan, features, done)
            with closing(lazily):  # Closes the reader threads before the video that they read.
                for [(encoded, arrays)] in evaluated(lazily):
                    encoded.features = arrays
                    yield encoded
                    done += 1
            if end is None:
                opened.finish()

        yield from opened.consistently(windows)


def check_windowing(window: int, stride: int, fps: float | None) -> None:
    """That these are a window, a step and a rate."""
    for name, value in (("window", window), ("stride", stride)):
        if not 1 <= operator.index(value) <= MAX_SAMPLES:
            raise InputError(f"{name} is {value}; expected 1 frame or more")
    check_fps(fps)


class Plan(NamedTuple):
    """Which frames the windows of a video are made of."""

    numbers: np.ndarray  # Of the frames that are sampled.
    instants: np.ndarray  # When each is shown, and when the last one ends, in seconds.
    firsts: list[int]  # The sample that each window begins with.
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


def encoded_windows(
    model: VideoPrismModel,
    encoder: FactorizedEncoder,
    processor: Processor,
    opened: FrameSource,
    plan: Plan,
    features: Sequence[str],
    done: int,
) -> Iterator[list[tuple[Window, Lazy]]]:
    """The windows of a plan from the one numbered `done` on, not yet computed.

    Frames are encoded about a window at a time, and kept as long as a window needs them.
    """
    window = plan.window
    firsts = plan.firsts[done:]
    needed = sorted({sample for first in firsts for sample in range(first, first + window)})
    images = opened.fetch(plan.numbers[needed])

    def read(samples: Sequence[int]) -> np.ndarray:
        frames = islice(images, len(samples))
        sizing = processor.sizing()
        return np.stack([as_floats(resized(one, **sizing, aspect=opened.aspect)) for one in frames])

    chunks = [needed[i : i + window] for i in range(0, len(needed), window)]
    known: dict[int, mx.array] = {}
    with read_ahead(read, chunks, readers=1, ahead=2) as chunks_read:
        for number, first in enumerate(firsts, done):
            last = first + window - 1
            while last not in known:
                samples, clip = next(chunks_read)
                known |= zip(samples, space_features(encoder, clip), strict=True)
            for sample in [sample for sample in known if sample < first]:
                del known[sample]
            spatial = mx.stack([known[sample] for sample in range(first, last + 1)])
            tokens = encoder.encode_time(spatial[None])
            arrays = derived_features(model, tokens, window, features)
            times = float(plan.instants[first]), float(plan.instants[last + 1])
            yield [(Window(*times, {}, number, len(plan.firsts)), rows_of(arrays)[0])]


def space_features(encoder: FactorizedEncoder, clip: np.ndarray) -> list[mx.array]:
    """Frames (T, S, S, 3) through the spatial layers: (N, D) each."""
    frames = check_video(clip[None], encoder.patch_size)[0]
    grid = (frames.shape[1] // encoder.patch_size, frames.shape[2] // encoder.patch_size)
    encoded = encoder.encode_space(image_to_patch(frames, encoder.patch_size), grid)
    mx.eval(encoded)
    return list(encoded)


def check_features(model: VideoPrismModel, names: Collection[str] | None) -> list[str]:
    """The names, checked; or that of the vector that sums up a video."""
    if names is None:
        return [model.default_feature]
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    for name in names:
        if name not in FEATURES:
            raise InputError(
                f"no feature is called {name!r}{suggestion(name, FEATURES)}; "
                f"expected some of {', '.join(FEATURES)}"
            )
    if not names:
        raise InputError(f"no features are asked for; expected some of {', '.join(FEATURES)}")
    if "embedding" in names and "embedding" not in model.feature_names:
        raise InputError(
            f"a {type(model).__name__} has no embedding; ask for pooled, or use a video-text model "
            "(videoprism_lvt_*)"
        )
    return [name for name in FEATURES if name in names]


def video_features(
    model: VideoPrismModel, clips: mx.array, names: Collection[str]
) -> dict[str, mx.array]:
    """Features of clips (B, T, S, S, 3), each with a batch axis before the shape in FEATURES."""
    tokens, _ = model.video_encoder(clips)
    return derived_features(model, tokens, clips.shape[1], names)


def derived_features(
    model: VideoPrismModel, tokens: mx.array, frames: int, names: Collection[str]
) -> dict[str, mx.array]:
    """The features that follow from the encoder's (B, T * N, D)."""
    arrays = model.derive(tokens, frames)
    return {name: arrays[name] for name in names}


def rows_of(arrays: dict[str, mx.array]) -> list[Lazy]:
    """One dictionary for each row of the arrays."""
    count = len(next(iter(arrays.values())))
    return [{name: array[row] for name, array in arrays.items()} for row in range(count)]


def evaluated(groups: Iterator[list[tuple[Item, Lazy]]]) -> Iterator[list[tuple[Item, Features]]]:
    """Computes the arrays of each group, the next group's while the caller has this one's."""
    waiting = None
    for group in groups:
        mx.async_eval([list(arrays.values()) for _, arrays in group])
        if waiting is not None:
            yield as_numpy(waiting)
        waiting = group
    if waiting is not None:
        yield as_numpy(waiting)


def as_numpy(group: list[tuple[Item, Lazy]]) -> list[tuple[Item, Features]]:
    """The computed arrays, which NumPy has no bfloat16 for."""
    return [
        (
            item,
            {
                name: np.array(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)
                for name, array in arrays.items()
            },
        )
        for item, arrays in group
    ]


@contextmanager
def read_ahead(
    read: Callable[[Item], Read], items: Iterable[Item], readers: int | None, ahead: int
) -> Iterator[Iterator[tuple[Item, Read]]]:
    """Each item with what `read` makes of it, in order, by threads that keep `ahead` of the use."""
    items = iter(items)
    workers = ThreadPoolExecutor(readers or min(4, os.cpu_count() or 1), "reader")
    queue: deque[tuple[Item, Future[Read]]] = deque()

    def results() -> Iterator[tuple[Item, Read]]:
        queue.extend((item, workers.submit(read, item)) for item in islice(items, ahead))
        while queue:
            item, future = queue.popleft()
            queue.extend((item, workers.submit(read, item)) for item in islice(items, 1))
            yield item, future.result()

    try:
        yield results()
    finally:
        workers.shutdown(wait=True, cancel_futures=True)
