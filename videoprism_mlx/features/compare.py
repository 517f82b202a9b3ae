"""Comparing videos with texts, and classifying videos.

Shapes: Q texts, C classes, D width.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.encoders import FactorizedVideoClassifier, VideoPrismModel
from videoprism_mlx.errors import InputError, are, counted
from videoprism_mlx.features.encode import encode
from videoprism_mlx.features.pipeline import Array
from videoprism_mlx.features.processor import Processor, check_text, require_count
from videoprism_mlx.features.text import (
    TEMPERATURE,
    check_temperature,
    class_probabilities,
    embed_texts,
    probabilities,
    require_text,
    require_tokenizer,
)
from videoprism_mlx.video.source import Source
from videoprism_mlx.weights.labels import Labels, load_labels, numbered

# Probabilities of classes (C,) or of texts (Q,).
Chances = npt.NDArray[np.float64]


@dataclasses.dataclass
class Compared:
    """The result for one source: its cosines with the texts and their softmax, or the error."""

    source: Source
    cosines: Array = dataclasses.field(default_factory=lambda: np.empty(0, np.float32))  # (Q,)
    probabilities: Chances = dataclasses.field(default_factory=lambda: np.empty(0))  # (Q,)
    error: Exception | None = None


@dataclasses.dataclass
class Classified:
    """The result for one source: its likeliest labels with probabilities, or the error."""

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
    """Compares each source with each text. Texts are put into the processor's template first.

    `temperature` is that of the softmax over the texts, by default as in the official demo. A
    source that cannot be read gives a `Compared` with the error.
    """
    check_comparing(model, processor, texts, temperature)
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
    """The `top_k` likeliest labels of each source, best first.

    A video-text model compares the source with the labels as `compare` does with texts. A
    classifier reads its labels from `directory`, by default the directory it was loaded from;
    `labels` replaces them. Its default temperature is 1. A source that cannot be read gives a
    `Classified` with the error.
    """
    check_classifying(model, processor, labels, top_k, temperature)
    if isinstance(model, FactorizedVideoClassifier):
        own = labels_of(model, directory or model.directory)
        names = own.names if labels is None else labels
        feature, score = "pooled", by_head(model, own.multi_label, temperature)
    else:
        assert labels is not None  # It has been checked.
        names, rows = labels, embed_texts(model, processor, labels)
        feature, score = "embedding", lambda embedding: softmax(rows @ embedding, temperature)

    for encoded in encode(model, processor, sources, 1, [feature], errors="yield", partial=partial):
        if encoded.error is not None:
            yield Classified(encoded.source, error=encoded.error)
        else:
            chances = score(encoded.features[feature])
            best = chances.argsort(kind="stable")[::-1][:top_k]
            yield Classified(encoded.source, [(names[i], float(chances[i])) for i in best])


def check_comparing(
    model: VideoPrismModel,
    processor: Processor,
    texts: Sequence[str],
    temperature: float | None = None,
) -> None:
    """Raises InputError if `compare` cannot use these arguments. The model needs no weights yet."""
    check_temperature(temperature)
    require_tokenizer(model, processor)
    for text in texts:
        check_text(text)


def check_classifying(
    model: VideoPrismModel,
    processor: Processor,
    labels: Sequence[str] | None = None,
    top_k: int = 5,
    temperature: float | None = None,
) -> None:
    """Raises InputError if `classify` cannot use these arguments. See `check_comparing`."""
    require_count("top_k", top_k)
    if isinstance(model, FactorizedVideoClassifier):
        check_temperature(temperature)
        if labels is not None and len(labels) != model.num_classes:
            raise InputError(
                f"there {are(len(labels))} {counted(len(labels), 'label')}; "
                f"expected {model.num_classes}, one for each class"
            )
    elif labels is None:
        require_text(model)
        raise InputError(
            "this model has no classes of its own; give the labels to choose from with --labels or "
            "--labels-file (labels=[...])"
        )
    else:
        check_comparing(model, processor, labels, temperature)


def softmax(cosines: Array, temperature: float | None) -> Chances:
    """The probabilities (Q,) of cosines (Q,)."""
    return probabilities(cosines, TEMPERATURE if temperature is None else temperature)


def by_head(
    model: FactorizedVideoClassifier, multi_label: bool, temperature: float | None
) -> Callable[[Array], Chances]:
    """A function that applies the model's head: from a pooled vector (D,) to probabilities (C,)."""

    def score(pooled: Array) -> Chances:
        logits = np.array(model.projection(mx.array(pooled)).astype(mx.float32))
        return class_probabilities(logits, multi_label, 1.0 if temperature is None else temperature)

    return score


def labels_of(model: FactorizedVideoClassifier, directory: Path | None) -> Labels:
    """The labels in a classifier's directory. Without a directory, the classes are numbered."""
    if directory is None:
        return Labels(numbered(model.num_classes))
    return load_labels(directory, model.num_classes)
