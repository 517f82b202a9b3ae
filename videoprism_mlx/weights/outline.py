"""The parameters that a configuration describes, found without building its layers.

All layers of a stack have the same shapes. Only one is built, so that a configuration of a thousand
layers is compared with a file of weights as quickly as a small one.
"""

from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from videoprism_mlx.layers import DotProductAttention
from videoprism_mlx.models import build, with_defaults

Shapes = Mapping[str, tuple[int, ...]]

# The setting that says how many layers a stack has, by the end of the stack's path.
COUNTS = {
    "spatial_encoder.transformers_stack": "num_spatial_layers",
    "temporal_encoder.transformers_stack": "num_temporal_layers",
    "auxiliary_encoder.transformers_stack": "num_auxiliary_layers",
    "text_encoder.unimodal_transformer": "num_unimodal_layers",
    "unimodal_transformer": "num_layers",
}

FIRST = ".x_layers.0."


class Outline(NamedTuple):
    """Names and shapes of parameters.

    `shapes` are those of the model, in its order. `absent` are those that the first layer of each
    stack without layers would have: a scanned Flax checkpoint has arrays without elements for them.
    """

    shapes: dict[str, tuple[int, ...]]
    absent: dict[str, tuple[int, ...]]
    heads: int


def outline(config: Mapping[str, Any]) -> Outline:
    """The parameters that a checked configuration describes."""
    is_classifier = "encoder_params" in config
    class_name = "FactorizedEncoder" if is_classifier else config["model"]
    counted = with_defaults(class_name, config["encoder_params"] if is_classifier else config)
    counts = {name: counted[name] for name in COUNTS.values() if name in counted}
    # Without auxiliary layers, there is no stack of them.
    single = {n: 1 for n, count in counts.items() if count or n != "num_auxiliary_layers"}
    small = {**config, **({"encoder_params": {**counted, **single}} if is_classifier else single)}

    model = built_aside(small)
    shapes: dict[str, tuple[int, ...]] = {}
    absent: dict[str, tuple[int, ...]] = {}
    for stack, named in groupby(parameter_shapes(model).items(), lambda item: stack_of(item[0])):
        if stack is None:
            shapes.update(named)
            continue
        layer = list(named)
        count = next(counts[name] for end, name in COUNTS.items() if stack.endswith(end))
        absent.update(layer if not count else ())
        for number in range(count):
            place = f".x_layers.{number}."
            shapes.update((name.replace(FIRST, place), shape) for name, shape in layer)
    attentions = (each for each in model.modules() if isinstance(each, DotProductAttention))
    return Outline(shapes, absent, next(each.num_heads for each in attentions))


def stack_of(name: str) -> str | None:
    """The path of the stack of layers that a parameter belongs to; None if it is in none."""
    stack, first, _ = name.partition(FIRST)
    return stack if first else None


def built_aside(config: Mapping[str, Any]) -> nn.Module:
    """The model of a configuration. MLX's random numbers go on as if it had not been built."""
    high, low = cast(Any, mx.random.state)[0].tolist()
    try:
        return build(config)
    finally:
        mx.random.seed((high << 32) + low)


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's parameters. Nothing is computed for it."""
    named = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
    return {name: array.shape for name, array in named}
