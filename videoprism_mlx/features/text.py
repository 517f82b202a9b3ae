"""Texts to embeddings, and how alike videos and texts are.

Shapes: V videos or windows, Q texts, D width.
"""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from videoprism_mlx.encoders import FactorizedVideoCLIP, VideoPrismModel
from videoprism_mlx.errors import InputError
from videoprism_mlx.features.processor import Processor

# The temperature of the official video-text demo.
TEMPERATURE = 0.01


def require_text(model: object) -> None:
    """That the model takes text."""
    if not (isinstance(model, VideoPrismModel) and model.takes_text):
        raise InputError(
            f"a {type(model).__name__} cannot compare videos with texts; "
            "use a video-text model (videoprism_lvt_*)"
        )


def embed_texts(
    model: FactorizedVideoCLIP, processor: Processor, texts: Sequence[str], batch_size: int = 64
) -> np.ndarray:
    """The embeddings (Q, D) of texts, of length one, each put into the processor's template."""
    require_text(model)
    ids, paddings = processor.tokenize(texts)
    by_length = np.argsort((paddings == 0).sum(axis=1), kind="stable")  # Short ones cost less.
    embeddings = np.empty((len(ids), model.text_encoder.unimodal_ln.weight.size), np.float32)
    for first in range(0, len(ids), batch_size):
        rows = by_length[first : first + batch_size]
        _, embedded, _ = model(text_token_ids=ids[rows], text_paddings=paddings[rows])
        embeddings[rows] = np.array(embedded.astype(mx.float32))
    return embeddings


def probabilities(similarity: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
    """The softmax over texts of similarities (V, Q), as in the official demo."""
    if not 0 < temperature < np.inf:
        raise InputError(f"the temperature is {temperature!r}; expected a number above 0")
    logits = similarity.astype(np.float64) / temperature
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
