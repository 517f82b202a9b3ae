"""Features by their definitions, from calls of the models."""

import math
from typing import Any

import mlx.core as mx
import numpy as np

import videoprism_mlx as vp
from videoprism_mlx.convert.verify import FACTOR, FLOOR
from videoprism_mlx.runtime import rounding

# How far results may lie apart that were computed in batches of different size.
CLOSE = 2e-6

# Where the order of a sum may depend on the batch, both results have a rounding of their own, each
# at most FACTOR * FLOOR of the values' size, and a single value is off by up to 4 times as much.
SPREAD = 4 * math.sqrt(2) * FACTOR * FLOOR

ALL = ["tokens", "frames", "pooled", "embedding"]


def expected_features(model: Any, clip: np.ndarray) -> dict[str, np.ndarray]:
    """The features of one clip (T, S, S, 3) by their definitions."""
    outputs: dict[str, mx.array]
    if isinstance(model, vp.FactorizedVideoCLIP):
        plain, _, outputs = model(clip[None], return_intermediate=True, normalize=False)
        embedding, _, normal = model(clip[None], return_intermediate=True)
        return {
            "tokens": np.array(outputs["spatiotemporal_features"][0]),
            "frames": np.array(normal["frame_embeddings"][0]),
            "pooled": np.array(plain[0]),
            "embedding": np.array(embedding[0]),
        }
    if isinstance(model, vp.FactorizedVideoClassifier):
        _, outputs = model(clip[None], return_intermediate=True)
        tokens = np.array(outputs["spatiotemporal_features"][0])
        pooled = np.array(outputs["global_embeddings"][0])
    else:
        tokens = np.array(model(clip[None])[0][0])
        pooled = tokens.mean(0)
    frames = tokens.reshape(len(clip), -1, tokens.shape[-1]).mean(1)
    return {"tokens": tokens, "frames": frames, "pooled": pooled}


def assert_alike(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        assert_close(found[name], array, name)


def assert_close(found: Any, expected: Any, name: str = "") -> None:
    """Compares results that were computed in batches of different size."""
    size = math.sqrt(np.mean(np.square(expected)))
    allowed = CLOSE if rounding.sums_in_blocks() else max(CLOSE, SPREAD * size)
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed, err_msg=name)
