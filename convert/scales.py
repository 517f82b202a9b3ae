"""The scales of LayerNorms, kept to the last bit.

Flax and Transformers store a scale s, and a model 1 + s, which is rounded. So that the way back
gives the same bits, the file of the weights also has the scales, in its metadata. A scale counts
only while 1 plus it is the weight: after training, it is the weight minus one.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from videoprism_mlx.errors import CheckpointError, excerpt
from videoprism_mlx.files.reading import parse_json

Scales = Mapping[str, npt.NDArray[np.float32]]

METADATA_KEY = "layer_norm_scales"


def scales_metadata(scales: Scales) -> dict[str, str]:
    """The metadata for these scales, by the names of their weights. Most are lost without it."""
    kept = {
        name: base64.b64encode(scale.astype("<f4").tobytes()).decode()
        for name, scale in sorted(scales.items())
        if not same_bits((1 + scale) - 1, scale)
    }
    return {METADATA_KEY: json.dumps(kept)} if kept else {}


def read_scales(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The scales in the metadata of a file of weights, by the names of their weights."""
    with safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get(METADATA_KEY, "{}")
    where = f"{path}: {METADATA_KEY} in its metadata"
    found = parse_json(text, where, CheckpointError)
    try:
        return {
            name: np.frombuffer(base64.b64decode(one, validate=True), "<f4")
            for name, one in found.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where} is damaged ({excerpt(error)}); convert it again") from None


def scale_of(weight: npt.NDArray[Any], kept: npt.NDArray[Any] | None) -> npt.NDArray[np.float32]:
    """The scale (D) of a weight (D): the kept one where it gives this weight."""
    scale: npt.NDArray[np.float32] = weight - np.float32(1)
    if kept is None or kept.shape != weight.shape:
        return scale
    return np.where(1 + kept == weight, kept, scale)


def same_bits(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> bool:
    """Whether two arrays are the same to the bit, so that 0 and -0 differ."""
    return bool(np.array_equal(first.view(np.uint32), second.view(np.uint32)))
