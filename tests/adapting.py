"""What the tests of adapters share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from conftest import REFERENCE
from mlx import nn
from mlx.utils import tree_flatten, tree_map_with_path

import videoprism_mlx as vp
from videoprism_mlx.convert.verify import named_outputs, saved_inputs

Converted = Callable[[str], Path]


def arguments(name: str) -> dict[str, Any]:
    """What a reference model is called with."""
    case = "plain" if (REFERENCE / name / "plain.npz").exists() else "padded_frames"
    with np.load(REFERENCE / name / f"{case}.npz") as saved:
        inputs = saved_inputs(saved)
    return {key: value.item() if value.ndim == 0 else value for key, value in inputs.items()}


def outputs(model: nn.Module, name: str) -> dict[str, np.ndarray]:
    """Everything that the model returns for them."""
    found = named_outputs(model(**arguments(name)))
    return {key: np.array(array.astype(mx.float32)) for key, array in found.items()}


def parameters(model: nn.Module) -> dict[str, np.ndarray]:
    flat = tree_flatten(model.parameters())
    return {name: np.array(array.astype(mx.float32)) for name, array in flat}


def trainable(model: nn.Module) -> dict[str, mx.array]:
    return dict(tree_flatten(model.trainable_parameters()))


def with_random_adapters(model: nn.Module, rank: int = 3, **options: Any) -> nn.Module:
    """A model with adapters that change it."""
    vp.add_adapters(model, rank, **options)
    random = np.random.RandomState(5)
    flat = trainable(model)
    changed = {name: random.randn(*flat[name].shape) * 0.1 for name in sorted(flat)}
    model.update(
        tree_map_with_path(
            lambda path, _: mx.array(changed[path].astype(np.float32)), model.trainable_parameters()
        )
    )
    return model


# What they compute.
