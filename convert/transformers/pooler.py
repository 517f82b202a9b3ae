"""The pooler of a classifier, which in Transformers is as wide as the layers of its MLPs.

The official pooler is as wide as the model. With zeros for the further dimensions of each head, the
wide one computes the same: queries are multiplied by sqrt(width / official width), by which the
wide one divides more. Where that is a power of two, nothing is rounded.

Shapes: D width of the model, W width of the pooler's attention, H and N heads and their width.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import InputError

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

PREFIX = "atten_pooler.pooling_attention."
PER_DIM_SCALE = PREFIX + "per_dim_scale.per_dim_scale"

# The parameters that the width changes, with the axis of W or H.
AXES = {PER_DIM_SCALE: 0, f"{PREFIX}post.weight": 1} | {
    f"{PREFIX}{part}.{kind}": 0 for part in ("query", "key", "value") for kind in ("weight", "bias")
}
QUERY = (f"{PREFIX}query.weight", f"{PREFIX}query.bias")


def factor(config: Mapping[str, Any]) -> float | None:
    """By what queries are multiplied in the wide pooler. None if that would round them."""
    encoder = config["encoder_params"]
    root = math.sqrt(encoder["mlp_dim"] / encoder["model_dim"])
    return root if root >= 1 and math.frexp(root)[0] == 0.5 else None


def wide_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a classifier with the pooler that Transformers has."""
    encoder = config["encoder_params"]
    width = encoder["mlp_dim"]
    own = config.get("pooler_dim") or encoder["model_dim"]
    if own != width and (own != encoder["model_dim"] or factor(config) is None):
        raise InputError(
            f"Transformers' pooler is as wide as mlp_dim, {width}, and this one {own}; expected "
            "the same, or a model_dim that is mlp_dim divided by 4, 16 or another power of 4"
        )
    return {**config, "pooler_dim": width}


def official_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a classifier with the official pooler."""
    return {key: value for key, value in config.items() if key != "pooler_dim"}


def widened(arrays: Arrays, config: Mapping[str, Any]) -> dict[str, Array]:
    """The parameters with a wide pooler. `config` is that of the official one."""
    encoder = config["encoder_params"]
    heads, width = encoder["num_heads"], encoder["mlp_dim"] // encoder["num_heads"]

    def pad(array: Array, axis: int) -> Array:
        zeros = [(0, 0)] * array.ndim
        zeros[axis] = (0, width - array.shape[axis])
        return np.pad(array, zeros)

    return changed(arrays, heads, pad, factor(config) or 1.0)


def narrowed(arrays: Arrays, config: Mapping[str, Any]) -> dict[str, Array] | None:
    """The parameters with the official pooler, if the wide one is that with zeros; else None."""
    encoder, by = config["encoder_params"], factor(config)
    heads, width = encoder["num_heads"], encoder["model_dim"] // encoder["num_heads"]
    if by is None:
        return None
    rest = changed(arrays, heads, lambda array, axis: np.split(array, [width], axis)[1], 1.0)
    if any(rest[name].any() for name in AXES):
        return None
    return changed(arrays, heads, lambda array, axis: np.split(array, [width], axis)[0], 1 / by)


def changed(
    arrays: Arrays, heads: int, change: Callable[[Array, int], Array], by: float
) -> dict[str, Array]:
    """The parameters after `change` of the dimensions of each head. Queries are multiplied."""
    new = dict(arrays)
    for name, axis in AXES.items():
        array = arrays[name]
        if name == PER_DIM_SCALE:
            new[name] = change(array, 0)
            continue
        shape = array.shape
        split = array.reshape(*shape[:axis], heads, -1, *shape[axis + 1 :])
        merged = change(split, axis + 1)
        new[name] = merged.reshape(*shape[:axis], -1, *shape[axis + 1 :])
        if name in QUERY:
            new[name] = new[name] * np.float32(by)
    return new
