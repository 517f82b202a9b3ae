"""Many videos to features, in batches.

Shapes: B batch, T frames, N patches of a frame, S size of a frame, D width.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

import mlx.core as mx
import numpy as np

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import EXPECTED, InputError, in_words, printable, suggestion
from videoprism_mlx.features.pipeline import (
    Array,
    Features,
    Lazy,
    evaluated,
    not_finite,
    read_ahead,
    rows_of,
)
from videoprism_mlx.features.processor import Processor, require_count
from videoprism_mlx.video.sampling import check_times
from videoprism_mlx.video.source import Source

FEATURES = {
    "tokens": "(T * N, D): one vector for each patch of each frame, from the video encoder",
    "frames": "(T, D): one vector for each frame; embeddings of a video-text model, else the "
    "average of a frame's tokens",
    "pooled": "(D,): one vector for the video, from the model's pooler, else the average token",
    "embedding": "(D,): pooled and of length one, to compare with texts; video-text models only",
}

# Larger batches are not larger: no one has so many videos, and islice takes no such number.
MOST_AT_ONCE = 1 << 32


@dataclasses.dataclass
class Encoded:
    """The features of one source, or the error that reading it raised."""

    source: Source
    features: Features = dataclasses.field(default_factory=dict)
    error: Exception | None = None


def encode(
    model: VideoPrismModel,
    processor: Processor,
    sources: Iterable[Source],
    batch_size: int = 1,
    features: Collection[str] | None = None,
    *,
    errors: str = "raise",
    readers: int | None = None,
    partial: bool = False,
    start: float | None = None,
    end: float | None = None,
) -> Iterator[Encoded]:
    """The features of each source, in the order of the sources.

    `features` are names of FEATURES, by default `embedding` if the model has it, else `pooled`.
    `readers` threads read up to two batches ahead of the model. A source that cannot be read
    raises its error or, with `errors="yield"`, gives an `Encoded` that holds it. `partial` uses
    what can be decoded of a damaged video. `start` and `end`, in seconds, say which part of each
    video is used.
    """
    check_times(start, end)
    features = check_features(model, features)
    if errors not in ("raise", "yield"):
        raise InputError(f"errors is {errors!r}; expected 'raise' or 'yield'")
    require_count("batch_size", batch_size)
    batch_size = min(batch_size, MOST_AT_ONCE)
    if readers not in (None, 0):
        require_count("readers", readers)

    def read(source: Source) -> Array | Exception:
        try:
            return processor.read(source, partial=partial, start=start, end=end)
        except EXPECTED as error:
            return error

    def lazily() -> Iterator[list[tuple[Encoded, Lazy]]]:
        with read_ahead(read, sources, readers, 2 * batch_size) as clips:
            while group := list(islice(clips, batch_size)):
                yield encoded_group(model, features, group)

    for group in evaluated(lazily()):
        for encoded, arrays in group:
            if encoded.error is None:
                encoded.error = not_finite(arrays, encoded.source)
            if encoded.error is not None and errors == "raise":
                raise encoded.error
            encoded.features = arrays if encoded.error is None else {}
            yield encoded


def encoded_group(
    model: VideoPrismModel,
    features: Collection[str],
    group: Sequence[tuple[Source, Array | Exception]],
) -> list[tuple[Encoded, Lazy]]:
    """The features of each clip (T, S, S, 3) of a group, a batch for each shape."""
    batches: dict[tuple[int, ...], list[Array]] = {}
    for _, clip in group:
        if not isinstance(clip, Exception):
            batches.setdefault(clip.shape, []).append(clip)
    rows = {
        shape: iter(rows_of(video_features(model, mx.array(np.stack(clips)), features)))
        for shape, clips in batches.items()
    }
    return [
        (Encoded(source, error=clip), {})
        if isinstance(clip, Exception)
        else (Encoded(source), next(rows[clip.shape]))
        for source, clip in group
    ]


def check_features(model: VideoPrismModel, names: Collection[str] | None) -> list[str]:
    """The names in the order of FEATURES; if `names` is None, the model's default.

    Raises InputError unless the model can give each of them.
    """
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
        raise InputError(f"features is empty; expected some of {', '.join(FEATURES)}")
    if "embedding" in names and "embedding" not in model.feature_names:
        raise InputError(
            f"{model.called} has no embedding; ask for pooled, or use a video-text model "
            "(videoprism_lvt_*)"
        )
    return [name for name in FEATURES if name in names]


def video_features(model: VideoPrismModel, clips: mx.array, names: Collection[str]) -> Lazy:
    """Features of clips (B, T, S, S, 3), each (B, ...) with the shape in FEATURES after B."""
    tokens, _ = model.video_encoder(clips)
    return derived_features(model, tokens, clips.shape[1], names)


def derived_features(
    model: VideoPrismModel, tokens: mx.array, frames: int, names: Collection[str]
) -> Lazy:
    """The named features that the model makes of the video encoder's tokens (B, T * N, D)."""
    arrays = model.derive(tokens, frames)
    return {name: arrays[name] for name in names}


def one_line(source: Source, error: Exception) -> str:
    """An error as one line that names the source, to be printed."""
    name, about = printable(source), printable(in_words(error))
    return about if name in about else f"{name}: {about}"
