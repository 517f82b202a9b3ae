"""Compares a converted model with saved activations of the official Flax model, module by module.

An activations file is an `.npz` with
  input/KEYWORD         the arguments of the model
  float64/PATH          the output of a module, or output/NAME of the model, in float64
  float32/output/NAME   the model's outputs in float32
  distance/PATH         the distance of the official model in float32 from float64
  cosine/output/NAME    the smallest cosine between its outputs in bfloat16 and in float64
where PATH is that of the module in Flax. `#1` is appended for a module's second call.
"""

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from videoprism_mlx.convert.npz import Array
from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import CheckpointError, InputError, counted
from videoprism_mlx.files.npz import NpzFile
from videoprism_mlx.layers import Linear, QuantizedLinear
from videoprism_mlx.progress import bar
from videoprism_mlx.runtime import rounding
from videoprism_mlx.runtime.device import plain

# A module agrees if its distance from float64 is at most FACTOR times that of Flax in float32. If
# the distance of Flax is below FLOOR, FLOOR is used instead. On a device that sums in another order
# than a CPU does, the distance may be larger by what runtime/rounding.py says.
FACTOR = 2.0
FLOOR = 1e-6

OUTPUT = "output"

ADVICE = "expected saved activations: write them again with tests/reference/generate.py"


class Comparison(NamedTuple):
    """The distances of a module's output, and of Flax in float32, from Flax in float64."""

    path: str
    distance: float
    flax_distance: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether rounding alone can explain the distance. A distance of NaN does not agree."""
        return self.distance <= self.allowed


def verify(model: VideoPrismModel, activations: str | Path) -> list[Comparison]:
    """Compares every saved activation with that of `model`, in the order of computation."""
    saved = read_activations(activations)
    inputs = saved_inputs(saved)
    paths = [key.removeprefix("float64/") for key in saved if key.startswith("float64/")]
    taken = inspect.signature(type(model).__call__).parameters
    if strange := [name for name in inputs if name not in taken]:
        raise InputError(
            f"{activations} is of another configuration: it has the input {strange[0]}, which "
            f"{model.called} does not take; use the file that was saved for this model"
        )
    ours = replay(model, inputs)
    unmatched = [
        path
        for path in paths
        if path not in ours
        or ours[path].size != saved[f"float64/{path}"].size
        or f"distance/{path}" not in saved
    ]
    if unmatched:
        raise InputError(
            f"{activations} is of another configuration: it has "
            f"{counted(len(unmatched), 'activation')} that this model lacks or has in another "
            f"shape, such as {unmatched[0]}; use the file that was saved for this model"
        )
    terms = longest_sum(model, inputs)
    compared = []
    for path in (path for path in ours if path in paths):
        flax = float(saved[f"distance/{path}"])
        measured = distance(ours[path], saved[f"float64/{path}"])
        compared.append(Comparison(path, measured, flax, allowed_distance(flax, terms)))
    return compared


def allowed_distance(flax: float, terms: int) -> float:
    """The largest distance from float64 that rounding explains on MLX's default device.

    `flax` is the distance of Flax in float32, and `terms` the length of the model's longest sum.
    """
    return FACTOR * rounding.growth(terms) * max(flax, FLOOR)


def longest_sum(model: VideoPrismModel, inputs: Mapping[str, Any]) -> int:
    """The number of terms in the longest sum: over features, patches of a frame, or of a clip.

    Only the models that pool attend to all patches of a clip at once.
    """
    kinds = (Linear, QuantizedLinear)
    layers = (module for _, module in model.named_modules() if isinstance(module, kinds))
    terms = [math.ceil(layer.dims[1] / layer.parts) for layer in layers]
    video = inputs.get("inputs")
    if video is not None and video.ndim == 5:
        _, frames, height, width, _ = video.shape
        patch = model.video_encoder.patch_size
        patches = (height // patch) * (width // patch)
        pools = model.video_encoder is not model
        terms.append(frames * patches if pools else max(frames, patches))
    return max(terms, default=1)


def saved_inputs(saved: Mapping[str, Array]) -> dict[str, Array]:
    """The arguments of the model, by keyword."""
    return {key.split("/")[1]: saved[key] for key in saved if key.startswith("input/")}


def read_activations(path: str | Path) -> dict[str, Array]:
    """The arrays in an activations file. Raises InputError if it is damaged or another file."""
    with NpzFile(Path(path), CheckpointError, ADVICE) as opened:
        saved = {name: opened.read(name) for name in opened.headers}
    if not all(any(key.startswith(kind) for key in saved) for kind in ("input/", "float64/")):
        raise InputError(
            f"{path} contains no saved activations; expected a file that "
            "tests/reference/generate.py has written"
        )
    return saved


def replay(model: nn.Module, inputs: dict[str, Array]) -> dict[str, Array]:
    """The outputs by path: of all modules without shortcuts, and of the whole model with them."""
    arguments = {key: value.item() if value.ndim == 0 else value for key, value in inputs.items()}
    # Shortcuts skip modules, or call them several times.
    with plain(), recording(model) as seen:
        model(**arguments)
    seen |= named_outputs(model(**arguments))
    # The arrays are computed here, one after the other.
    return {
        path: np.array(array.astype(mx.float32))
        for path, array in bar(list(seen.items()), "verifying", "module")
    }


def named_outputs(result: Any) -> dict[str, Any]:
    """The arrays that a model returned, ours or Flax's, by position or by key in `outputs`."""
    *arrays, outputs = result if isinstance(result, tuple) else (result, {})
    named = {str(i): array for i, array in enumerate(arrays) if array is not None} | outputs
    return {f"{OUTPUT}/{name}": array for name, array in named.items()}


@contextmanager
def recording(model: nn.Module) -> Iterator[dict[str, mx.array]]:
    """Collects the output of every module inside `model` during the block, by its path in Flax."""
    seen: dict[str, mx.array] = {}
    modules = [(path, module, type(module)) for path, module in model.named_modules() if path]

    def recorder(path: str, original: type) -> Any:
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            result = original.__call__(self, *args, **kwargs)
            array = result[0] if isinstance(result, tuple) else result
            if path.endswith("token_emb"):  # Flax scales inside this module. nn.Embedding does not.
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


def least_cosine(rows: Array, reference: Array) -> float:
    """The smallest cosine between rows (..., D) and their references (..., D)."""
    rows = rows.astype(np.float64).reshape(reference.shape)
    lengths = np.linalg.norm(rows, axis=-1) * np.linalg.norm(reference, axis=-1)
    return float(((rows * reference).sum(-1) / lengths).min())


def distance(ours: Array, reference: Array) -> float:
    """Relative L2 distance, or absolute if the reference is zero. Only the sizes must agree."""
    difference = np.linalg.norm(
        ours.astype(np.float64).ravel() - reference.astype(np.float64).ravel()
    )
    return float(difference / (np.linalg.norm(reference) or 1.0))
