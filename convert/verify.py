"""Replaying saved Flax activations through a converted model, module by module.

An activations file is an `.npz` with
  input/KEYWORD         what the model was called with
  float64/PATH          what came out of a module (or output/NAME: of the model) in float64
  float32/output/NAME   the model's outputs in float32
  distance/PATH         how far the official model in float32 is from float64
  cosine/output/NAME    the least cosine of a row of its outputs in bfloat16 to float64
where PATH is the module's in Flax, with `#1` behind it for a module's second call.
"""

import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from videoprism_mlx.errors import InputError
from videoprism_mlx.runtime.device import plain

# Ours may be this many times as far from float64 as Flax in float32 is, and Flax counts as no
# closer than this.
FACTOR = 2.0
FLOOR = 1e-6

OUTPUT = "output"


class Comparison(NamedTuple):
    """How far a module's output is from Flax in float64, and how far Flax in float32 is."""

    path: str
    distance: float
    flax_distance: float

    @property
    def agrees(self) -> bool:
        """Whether the distance is within what Flax's own rounding allows. NaN is not."""
        return self.distance <= FACTOR * max(self.flax_distance, FLOOR)


def verify(model: nn.Module, activations: str | Path) -> list[Comparison]:
    """Compares every saved activation with that of `model`, in the order they are computed."""
    saved = read_activations(activations)
    inputs = saved_inputs(saved)
    paths = [key.removeprefix("float64/") for key in saved if key.startswith("float64/")]
    if not inputs or not paths:
        raise InputError(
            f"{activations} holds no saved activations; expected what tests/reference/generate.py "
            "writes"
        )
    ours = replay(model, inputs)
    unmatched = [
        path
        for path in paths
        if path not in ours or ours[path].size != saved[f"float64/{path}"].size
    ]
    if unmatched:
        raise InputError(
            f"{activations} has activations that this model has not, or in another shape: "
            f"{', '.join(unmatched)}; were they saved with another configuration?"
        )
    return [
        Comparison(
            path, distance(ours[path], saved[f"float64/{path}"]), float(saved[f"distance/{path}"])
        )
        for path in ours
        if path in paths
    ]


def saved_inputs(saved: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model was called with, by keyword."""
    return {key.split("/")[1]: saved[key] for key in saved if key.startswith("input/")}


def read_activations(path: str | Path) -> dict[str, np.ndarray]:
    """Everything in an activations file."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            return dict(saved)
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is damaged or not an activations file ({error}); make it again"
        ) from None


def replay(model: nn.Module, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What comes out of each module of `model` computed plainly, and of itself, by path."""
    arguments = {key: value.item() if value.ndim == 0 else value for key, value in inputs.items()}
    with plain(), recording(model) as seen:  # Shortcuts pass modules by, or call them often.
        model(**arguments)
    seen |= named_outputs(model(**arguments))
    return {path: np.array(array.astype(mx.float32)) for path, array in seen.items()}


def named_outputs(result: Any) -> dict[str, Any]:
    """What a model, ours or Flax's, returned: by position, or by key in its dictionary."""
    *arrays, outputs = result if isinstance(result, tuple) else (result, {})
    named = {str(i): array for i, array in enumerate(arrays) if array is not None} | outputs
    return {f"{OUTPUT}/{name}": array for name, array in named.items()}


@contextmanager
def recording(model: nn.Module) -> Iterator[dict[str, mx.array]]:
    """While open, collects what every module inside `model` returns, by its path in Flax."""
    seen: dict[str, mx.array] = {}
    modules = [(path, module, type(module)) for path, module in model.named_modules() if path]

    def recorder(path: str, original: type) -> Any:
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            result = original.__call__(self, *args, **kwargs)
            array = result[0] if isinstance(result, tuple) else result
            if path.endswith("token_emb"):  # Flax scales inside this module, nn.Embedding does not.
                array = array * math.sqrt(array.shape[-1])
            calls = sum(name.split("#")[0] == path for name in seen)
            seen[path + (f"#{calls}" if calls else "")] = array
            return result

        return call

    try:
        for path, module, original in modules:
            call = recorder(flax_path(path), original)
            module.__class__ = type(original.__name__, (original,), {"__call__": call})
        yield seen
    finally:
        for _, module, original in modules:
            module.__class__ = original


def flax_path(path: str) -> str:
    """The path of a module in an unscanned Flax model."""
    return re.sub(r"\bx_layers\.(\d+)", r"x_layers_\1", path).replace(".", "/")


def least_cosine(rows: np.ndarray, reference: np.ndarray) -> float:
    """The cosine of the two rows (..., D) that are least alike."""
    rows = rows.astype(np.float64).reshape(reference.shape)
    lengths = np.linalg.norm(rows, axis=-1) * np.linalg.norm(reference, axis=-1)
    return float(((rows * reference).sum(-1) / lengths).min())


def distance(ours: np.ndarray, reference: np.ndarray) -> float:
    """Relative L2 distance; absolute where the reference is zero. Only the sizes need agree."""
    difference = np.linalg.norm(
        ours.astype(np.float64).ravel() - reference.astype(np.float64).ravel()
    )
    return float(difference / (np.linalg.norm(reference) or 1.0))
