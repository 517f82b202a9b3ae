"""Long videos to features, window by window.

Shapes: T frames, N patches of a frame, S size of a frame, D width.
"""

import dataclasses
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

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
)
from videoprism_mlx.features.processor import Processor, processor_for, require_count
from videoprism_mlx.inputs import check_video
from videoprism_mlx.video.resize import as_floats, resized
from videoprism_mlx.video.sampling import MAX_SAMPLES, check_fps, choose_frames
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
    stride = window if stride is None else stride
    check_windowing(window, stride, fps)
    processor = processor or processor_for(model)
    encoder = model.video_encoder
    done = 0
    with closing(open_source(source, frame_rate, partial, processor.decoding)) as opened:

        def windows() -> Iterator[Window]:
            nonlocal done
            if end is None:
                opened.require_whole()
            plan = Plan.of(opened, window, stride, start, end, fps)
            lazily = encoded_windows(model, encoder, processor, opened, plan, features, done)
            with closing(lazily):  # Closes the reader threads before the video that they read.
                for [(encoded, arrays)] in evaluated(lazily):
                    if error := not_finite(arrays, opened.path):
                        raise error
                    encoded.features = arrays
                    yield encoded
                    done += 1
            if end is None:
                opened.finish()

        yield from opened.consistently(windows)


def check_windowing(window: int, stride: int, fps: float | None) -> None:
    """Raises InputError unless `window` and `stride` are numbers of frames, and `fps` is a rate."""
    for name, value in (("window", window), ("stride", stride)):
        require_count(name, value, "1 frame or more")
        if value > MAX_SAMPLES:
            raise InputError(f"{name} is {value}; expected at most {MAX_SAMPLES:,} frames")
    check_fps(fps)


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

    def chunks(self, done: int = 0) -> list[list[int]]:
        """The samples that the windows from number `done` on need, about a window at a time."""
        window = self.window
        firsts = self.firsts[done:]
        needed = sorted({sample for first in firsts for sample in range(first, first + window)})
        return [needed[i : i + window] for i in range(0, len(needed), window)]


def encoded_windows(
    model: VideoPrismModel,
    encoder: FactorizedEncoder,
    processor: Processor,
    opened: FrameSource,
    plan: Plan,
    features: Sequence[str],
    done: int,
) -> Generator[list[tuple[Window, Lazy]], None, None]:
    """The windows of a plan, from number `done` on. Their features are not computed yet.

    About a window of frames is encoded at a time. A frame is kept as long as a window needs it.
    """
    chunks = plan.chunks(done)
    images = opened.fetch(plan.numbers[[sample for chunk in chunks for sample in chunk]])

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
        yield from joined_windows(model, encoder, plan, chunks_read, features, done)


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
