"""Videos compared with texts, and classified.

Shapes: Q texts, C classes, D width.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.encoders import FactorizedVideoClassifier, VideoPrismModel
from videoprism_mlx.errors import InputError
from videoprism_mlx.features.encode import encode
from videoprism_mlx.features.pipeline import Array
from videoprism_mlx.features.processor import Processor, require_count
from videoprism_mlx.features.text import (
    TEMPERATURE,
    class_probabilities,
    embed_texts,
    probabilities,
)
from videoprism_mlx.video.source import Source
from videoprism_mlx.weights.labels import Labels, load_labels, numbered

# (C,) or (Q,)
Chances = npt.NDArray[np.float64]


@dataclasses.dataclass
class Compared:
    """One source: its cosines (Q,) with the texts and their softmax (Q,), or the error."""

    source: Source
    cosines: Array = dataclasses.field(default_factory=lambda: np.empty(0, np.float32))
    probabilities: Chances = dataclasses.field(default_factory=lambda: np.empty(0))
    error: Exception | None = None


@dataclasses.dataclass
class Classified:
    """One source: its likeliest labels and their probabilities, best first, or the error."""

    source: Source
    labels: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    error: Exception | None = None


def compare(
    model: VideoPrismModel,
    processor: Processor,
    sources: Iterable[Source],
    texts: Sequence[str],
    temperature: float | None = None,
    *,
    partial: bool = False,
) -> Iterator[Compared]:
    """Compares each source with each text, which is put into the processor's template first.

    By default the temperature of the softmax over texts is that of the official demo. A source
    that cannot be read gives a `Compared` that holds the error.
    """
    texts_embedded = embed_texts(model, processor, texts)
    for encoded in encode(
        model, processor, sources, 1, ["embedding"], errors="yield", partial=partial
    ):
        if encoded.error is not None:
            yield Compared(encoded.source, error=encoded.error)
        else:
            cosines = texts_embedded @ encoded.features["embedding"]
            yield Compared(encoded.source, cosines, softmax(cosines, temperature))


def classify(
    model: VideoPrismModel,
    processor: Processor,
    sources: Iterable[Source],
    labels: Sequence[str] | None = None,
    top_k: int = 5,
    temperature: float | None = None,
    *,
    directory: Path | None = None,
    partial: bool = False,
) -> Iterator[Classified]:
    """The `top_k` likeliest labels of each source.

    A video-text model compares the source with the labels as `compare` does with texts. A
    classifier has labels of its own, in its `directory`, by default the one that it was loaded
    from; `labels` replaces them. Its temperature is by default 1. A source that cannot be read
    gives a `Classified` that holds the error.
    """
    require_count("top_k", top_k)
    if isinstance(model, FactorizedVideoClassifier):
        own = labels_of(model, directory or model.directory)
        names = own.names if labels is None else labels
        if len(names) != len(own.names):
            raise InputError(
                f"there are {len(names)} labels; expected {len(own.names)}, one a class"
            )
        feature, score = "pooled", by_head(model, own.multi_label, temperature)
    elif labels is None:
        raise InputError(
            "this model has no classes of its own: say with --labels or --labels-file "
            "(labels=[...]) what the videos may show"
        )
    else:
        names, rows = labels, embed_texts(model, processor, labels)
        feature, score = "embedding", lambda embedding: softmax(rows @ embedding, temperature)

    for encoded in encode(model, processor, sources, 1, [feature], errors="yield", partial=partial):
        if encoded.error is not None:
            yield Classified(encoded.source, error=encoded.error)
        else:
            chances = score(encoded.features[feature])
            best = chances.argsort(kind="stable")[::-1][:top_k]
            yield Classified(encoded.source, [(names[i], float(chances[i])) for i in best])


def softmax(cosines: Array, temperature: float | None) -> Chances:
    """The probabilities (Q,) of cosines (Q,)."""
    return probabilities(cosines, TEMPERATURE if temperature is None else temperature)


def by_head(
    model: FactorizedVideoClassifier, multi_label: bool, temperature: float | None
) -> Callable[[Array], Chances]:
    """A function from a pooled vector (D,) to the probabilities (C,) that the head gives."""

    def score(pooled: Array) -> Chances:
        logits = np.array(model.projection(mx.array(pooled)).astype(mx.float32))
        return class_probabilities(logits, multi_label, 1.0 if temperature is None else temperature)

    return score


def labels_of(model: FactorizedVideoClassifier, directory: Path | None) -> Labels:
    """The labels in a classifier's directory. Without one, the classes are numbered."""
    if directory is None:
        return Labels(numbered(model.num_classes))
    return load_labels(directory, model.num_classes)
