"""Replays what the official Flax model computed for small models, on each device and in each type.

The files in data/ hold inputs and outputs of the model that ships, and of models with drawn
parameters: attention that reaches the cap of its logits, and attention that stays below it.
"""

import functools
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from videoprism_mlx import convert
from videoprism_mlx.convert.npz import Array
from videoprism_mlx.convert.verify import (
    allowed_distance,
    distance,
    least_cosine,
    longest_sum,
    named_outputs,
    read_activations,
    saved_inputs,
)
from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.weights.loading import load_model

DATA = files(__package__) / "data"

TYPES = ("float32", "bfloat16", "float16")

# What a row of an output must at least have as its cosine with float64, in half precision. In
# bfloat16, attention at the cap of its logits turns rows further, in Flax too.
LEAST_COSINE, LEAST_AT_THE_CAP = 0.999, 0.989


# What the outputs that a model returns by position are.
OUTPUTS = {
    "FactorizedEncoder": ["features"],
    "FactorizedVideoClassifier": ["logits"],
    "FactorizedVideoCLIP": ["video embeddings", "text embeddings"],
}


class Result(NamedTuple):
    """How far an output is from Flax in float64, for one model, device and type.

    In float32, `measured` is the relative distance, and `flax` that of Flax in float32. In half
    precision, both are the smallest cosine of a row, that of Flax in bfloat16.
    """

    device: str
    dtype: str
    model: str
    output: str
    measured: float
    flax: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether rounding explains the difference. NaN does not agree."""
        if self.dtype == "float32":
            return self.measured <= self.allowed
        return self.measured >= self.allowed


def devices() -> list[mx.Device]:
    """The devices that MLX can use here: the CPU, and a GPU if there is one."""
    found = [mx.Device(mx.cpu)]
    if mx.default_device().type == mx.gpu or mx.metal.is_available():
        found.append(mx.Device(mx.gpu))
    return found


def replay_all() -> Iterator[Result]:
    """The results of each saved model, type and device."""
    with tempfile.TemporaryDirectory() as folder:
        for saved in sorted(DATA.iterdir(), key=lambda one: one.name):
            if not saved.name.endswith(".npz"):
                continue
            with as_file(saved) as path:
                activations = read_activations(path)
            name = saved.name.removesuffix(".npz")
            about = json.loads(str(activations["about"]))
            directory = DEMO_MODEL if about is None else drawn(about, Path(folder) / name)
            reaches_cap = about is not None and about["gain"] > 1
            for device in devices():
                for dtype in TYPES:
                    with on(device):
                        loaded = load_model(directory, dtype=dtype)
                        result = functools.partial(Result, device.type.name, dtype, name)
                        least = LEAST_COSINE
                        if reaches_cap and dtype == "bfloat16":
                            least = LEAST_AT_THE_CAP
                        yield from replay(loaded, activations, result, least)


def drawn(about: Mapping[str, Any], folder: Path) -> Path:
    """The directory of a model with drawn parameters: the same on every machine."""
    folder.mkdir()
    checkpoint = folder / "flax.npz"
    convert.draw_checkpoint(about["config"], checkpoint, about["seed"], gain=about["gain"])
    convert.flax_to_mlx(checkpoint, folder / "model", about["config"])
    return folder / "model"


def replay(
    model: VideoPrismModel,
    activations: Mapping[str, Array],
    result: Callable[..., Result],
    least_allowed: float,
) -> Iterator[Result]:
    """The result of each saved output of one model.

    `result` makes a Result, and knows the device, the type and the model already.
    """
    inputs = saved_inputs(activations)
    ours = named_outputs(model(**inputs))
    terms = longest_sum(model, inputs)
    outputs = OUTPUTS[type(model).__name__]
    for (path, array), called in zip(ours.items(), outputs, strict=True):
        reference = activations[f"float64/{path}"]
        output = np.array(array.astype(mx.float32))
        if model.dtype == mx.float32:
            flax = float(activations[f"distance/{path}"])
            allowed = allowed_distance(flax, terms)
            yield result(called, distance(output, reference), flax, allowed)
        else:
            flax = float(activations[f"cosine/{path}"])
            yield result(called, least_cosine(output, reference), flax, least_allowed)


@contextmanager
def on(device: mx.Device) -> Iterator[None]:
    """Makes a device the default one in the block."""
    before = mx.default_device()
    mx.set_default_device(device)
    try:
        yield
    finally:
        mx.set_default_device(before)


def worst(results: list[Result]) -> list[Result]:
    """For each model, type and device, the output that is nearest to its bound or beyond it."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for one in results:
        groups.setdefault((one.device, one.dtype, one.model), []).append(one)

    def badness(one: Result) -> float:
        if math.isnan(one.measured):
            return math.inf
        if one.dtype == "float32":
            return one.measured / one.allowed
        return (1 - one.measured) / (1 - one.allowed)

    return [max(group, key=badness) for group in groups.values()]
