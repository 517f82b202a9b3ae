"""The models and inputs of the benchmarks, all random."""

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.models import get_config, get_model

# Short names of the configurations that have published weights.
MODELS = {
    "base": "videoprism_public_v1_base",
    "large": "videoprism_public_v1_large",
    "video-text base": "videoprism_lvt_public_v1_base",
    "video-text large": "videoprism_lvt_public_v1_large",
}

# The lengths of three queries in tokens, and the length that they are padded to.
TEXT_LENGTHS, TEXT_PADDED = (9, 12, 20), 64


def model_of(name: str, dtype: str = "float32") -> VideoPrismModel:
    """A model of that short or full name, with random weights."""
    mx.random.seed(0)
    model = get_model(MODELS.get(name, name))
    model.set_dtype(getattr(mx, dtype))
    mx.eval(model.parameters())
    return model


def inputs_of(name: str, batch: int = 1, frames: int | None = None, size: int | None = None) -> Any:
    """A model's keyword arguments: random clips and, if it takes text, three texts."""
    config = get_config(MODELS.get(name, name))
    vision = config.get("encoder_params", config)
    frames = frames or vision["pos_emb_shape"][0]
    size = size or vision["pos_emb_shape"][1] * vision["patch_size"]
    random = np.random.RandomState(0)
    inputs = {"inputs": random.uniform(size=(batch, frames, size, size, 3)).astype(np.float32)}
    if "vocabulary_size" in config:
        inputs |= texts_of(config["vocabulary_size"], TEXT_LENGTHS)
    return inputs


def texts_of(
    vocabulary: int, lengths: Any, padded: int = TEXT_PADDED
) -> dict[str, npt.NDArray[Any]]:
    """Random texts of those lengths: ids and paddings (B, padded)."""
    paddings = (np.arange(padded) >= np.asarray(lengths)[:, None]).astype(np.float32)
    ids = np.random.RandomState(1).randint(3, vocabulary, paddings.shape) * (paddings == 0)
    return dict(text_token_ids=ids.astype(np.int32), text_paddings=paddings)
