"""Texts to embeddings, and similarities to probabilities.

Shapes: V videos or windows, Q texts, C classes, D width.
"""

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.encoders import FactorizedVideoCLIP, VideoPrismModel
from videoprism_mlx.errors import InputError
from videoprism_mlx.features.pipeline import not_finite
from videoprism_mlx.features.processor import Processor, require_count
from videoprism_mlx.progress import bar
from videoprism_mlx.ranks.joining import current
from videoprism_mlx.runtime.rounding import first_equal
from videoprism_mlx.tokenizers import TOKENIZER_FILE

# The temperature of the official video-text demo.
TEMPERATURE = 0.01


def require_text(model: object) -> FactorizedVideoCLIP:
    """The model itself. Raises InputError unless it compares videos with texts."""
    if not (isinstance(model, VideoPrismModel) and model.takes_text):
        called = getattr(model, "called", f"a {type(model).__name__}")
        raise InputError(
            f"{called} cannot compare videos with texts; use a video-text model (videoprism_lvt_*)"
        )
    return cast(FactorizedVideoCLIP, model)


def require_tokenizer(model: object, processor: Processor) -> FactorizedVideoCLIP:
    """As `require_text`, and raises InputError if the model's tokenizer is missing.

    It reads the tokenizer, which is downloaded if it has to be.
    """
    towers = require_text(model)
    if processor.tokenizer is None:
        where = towers.directory or towers.called
        raise InputError(
            f"{where} has no tokenizer; copy the {TOKENIZER_FILE} that the model was trained with "
            "into its directory, or convert the checkpoint again with --tokenizer"
        )
    processor.load_tokenizer()
    return towers


def embed_texts(
    model: VideoPrismModel,
    processor: Processor,
    texts: Sequence[str],
    batch_size: int = 64,
    *,
    progress: bool = False,
) -> npt.NDArray[np.float32]:
    """The embeddings (Q, D) of texts, of length one. Each text is put into the template first.

    Equal texts have equal embeddings: a model would round them differently, by their place in a
    batch. With `progress`, a bar is shown if there are several batches and stderr is a terminal. Of
    several ranks, each embeds its share of the batches.
    """
    require_count("batch_size", batch_size)
    towers = require_tokenizer(model, processor)
    ids, paddings = processor.tokenize(texts)
    firsts, numbers = first_equal(np.concatenate([ids, paddings.astype(ids.dtype)], axis=1))
    ids, paddings = ids[firsts], paddings[firsts]
    by_length = np.argsort((paddings == 0).sum(axis=1), kind="stable")  # Short batches are faster.
    group = current()
    starts = group.part(range(0, len(ids), batch_size))
    width = towers.text_encoder.unimodal_ln.weight.size
    embeddings: npt.NDArray[np.float32] = np.empty((len(ids), width), np.float32)
    parts: list[npt.NDArray[np.float32]] = []
    for first in bar(starts, "texts", "batch", show=progress and len(starts) > 1):
        rows = by_length[first : first + batch_size]
        _, embedded, _ = towers(text_token_ids=ids[rows], text_paddings=paddings[rows])
        assert embedded is not None  # There were texts.
        parts.append(np.array(embedded.astype(mx.float32)))
    embeddings[by_length] = group.gather_parts(parts)
    if error := not_finite({"embeddings": embeddings}, "the texts"):
        raise error
    return embeddings[numbers]


def probabilities(
    similarity: npt.NDArray[Any], temperature: float = TEMPERATURE
) -> npt.NDArray[np.float64]:
    """The softmax over texts of similarities (V, Q), as in the official demo."""
    check_temperature(temperature)
    if not np.isfinite(similarity).all():
        raise InputError("the similarities or logits contain NaN or infinity")
    logits = similarity.astype(np.float64) / temperature
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return shares


def check_temperature(temperature: float | None) -> None:
    """Raises InputError unless the temperature is above 0, or None for the default."""
    if temperature is not None and not 0 < temperature < np.inf:
        raise InputError(f"the temperature is {temperature!r}; expected a number above 0")


def class_probabilities(
    logits: npt.NDArray[Any], multi_label: bool, temperature: float = 1.0
) -> npt.NDArray[np.float64]:
    """The softmax of logits (..., C) or, with `multi_label`, the sigmoid of each."""
    if not multi_label:
        return probabilities(logits, temperature)
    both = np.stack([np.zeros_like(logits), logits], axis=-1)
    return probabilities(both, temperature)[..., 1]
