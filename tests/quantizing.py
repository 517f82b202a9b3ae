"""What the tests of quantization share: a small model whose layers can be divided, and inputs."""

from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

import videoprism_mlx as vp

# The patch projection has 108 inputs, which no group size divides.
CONFIG: dict[str, Any] = dict(
    model="FactorizedVideoCLIP",
    patch_size=6,
    pos_emb_shape=(4, 3, 3),
    model_dim=64,
    num_spatial_layers=2,
    num_temporal_layers=1,
    num_auxiliary_layers=1,
    num_unimodal_layers=2,
    num_heads=4,
    mlp_dim=128,
    vocabulary_size=64,
    atten_logit_cap=50.0,
)
ENCODER = {
    key: value
    for key, value in CONFIG.items()
    if key not in ("model", "num_auxiliary_layers", "num_unimodal_layers", "vocabulary_size")
}
CLASSIFIER = dict(model="FactorizedVideoClassifier", encoder_params=ENCODER, num_classes=32)

PATCHES = "vision_encoder.patch_projection.linear"
TOKENS = "text_encoder.token_emb"

# The settings that MLX has: mode, bits and group size.
SETTINGS = [
    ("affine", 8, 64),
    ("affine", 6, 32),
    ("affine", 4, 64),
    ("affine", 3, 32),
    ("mxfp4", 4, 32),
    ("mxfp8", 8, 32),
    ("nvfp4", 4, 16),
]


def checkpoint(folder: Path, config: dict[str, Any] = CONFIG) -> Path:
    """A drawn Flax checkpoint, whose attention stays below the cap."""
    return vp.convert.draw_checkpoint(config, folder / "flax.npz", gain=1.0)


def directory(folder: Path, config: dict[str, Any] = CONFIG) -> Path:
    """A model directory with drawn weights."""
    vp.convert.flax_to_mlx(checkpoint(folder, config), folder / "dense", config)
    return folder / "dense"


@cache
def inputs() -> dict[str, np.ndarray]:
    random = np.random.RandomState(3)
    return dict(
        inputs=random.uniform(size=(2, 4, 18, 18, 3)).astype(np.float32),
        text_token_ids=random.randint(3, 64, (3, 7)).astype(np.int32),
        text_paddings=np.zeros((3, 7), np.float32),
    )


def outputs(model: nn.Module) -> dict[str, np.ndarray]:
    """Everything that a video-text model returns for `inputs`."""
    video, text, more = model(**inputs(), return_intermediate=True)
    arrays = {"video": video, "text": text, **more}
    return {name: np.array(array.astype(mx.float32)) for name, array in arrays.items()}


def parameters(model: nn.Module) -> dict[str, mx.array]:
    return dict(tree_flatten(model.parameters()))


def same_parameters(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models have the same parameters, bit for bit, of the same types."""
    ours, theirs = parameters(one), parameters(other)
    return ours.keys() == theirs.keys() and all(
        array.dtype == theirs[name].dtype and mx.array_equal(array, theirs[name]).item()
        for name, array in ours.items()
    )
