"""Features by their definitions, from calls of the models."""

from typing import Any

import mlx.core as mx
import numpy as np

import videoprism_mlx as vp

# The same arithmetic in batches of another size.
CLOSE = dict(rtol=0, atol=2e-6)

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
        np.testing.assert_allclose(found[name], array, **CLOSE, err_msg=name)
