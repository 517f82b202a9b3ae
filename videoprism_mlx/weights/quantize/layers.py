"""The layers of a model: quantizing them, dequantizing them, and how they are."""

from collections.abc import Iterable
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError
from videoprism_mlx.layers import Linear, QuantizedLinear
from videoprism_mlx.progress import bar
from videoprism_mlx.weights.quantize.settings import KEY, Packing, Packings, as_config

Quantized = nn.QuantizedLinear | nn.QuantizedEmbedding


def packings_of(model: nn.Module) -> dict[str, Packing | None]:
    """How each layer that can be quantized is, by path. None: it is not quantized."""
    packings: dict[str, Packing | None] = {}
    for path, module in model.named_modules():
        if isinstance(module, Quantized):
            packings[path] = Packing(module.group_size, module.bits, module.mode)
        elif hasattr(module, "to_quantized"):
            packings[path] = None
    return packings


def layer_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The shape (O, I) of the weight of each layer that could be quantized and is not, by path."""
    return {
        path: module.weight.shape
        for path, module in model.named_modules()
        if hasattr(module, "to_quantized")
    }


def is_quantized(model: nn.Module) -> bool:
    """Whether a layer of the model is quantized."""
    return any(isinstance(module, Quantized) for module in model.modules())


def stored_config(model: VideoPrismModel) -> dict[str, Any]:
    """The model's configuration and, under KEY, how its layers are quantized."""
    said = as_config(packings_of(model), model.spent)
    return model.config | ({} if said is None else {KEY: said})


def quantize_layers(model: VideoPrismModel, packings: Packings, evaluates: bool = False) -> None:
    """Quantizes layers of a model. With `evaluates`, one after the other, and their arrays go."""
    named = dict(model.named_modules())
    chosen = [(path, each) for path, each in packings.items() if each is not None]
    for path, each in bar(chosen, "quantizing", "layer", show=evaluates):
        replaced = named.pop(path).to_quantized(each.group_size, each.bits, each.mode)
        replace_layers(model, [(path, replaced)])
        if evaluates:
            mx.eval(replaced.parameters())


def dequantize_layers(model: nn.Module, dtype: mx.Dtype) -> None:
    """Replaces the quantized layers of a model, or of a part of one, by layers in `dtype`."""
    replaced: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            replaced.append((path, dense_linear(module, module.dense_weight(dtype))))
        elif isinstance(module, nn.QuantizedEmbedding):
            table = nn.Embedding(1, 1)
            table.weight = module(mx.arange(module.num_embeddings)).astype(dtype)
            replaced.append((path, table))
        elif isinstance(module, Quantized):
            raise InputError(f"{path} is a {type(module).__name__}; expected what vp.quantize made")
    replace_layers(model, replaced)


def dense_linear(layer: Linear | QuantizedLinear, weight: mx.array) -> Linear:
    """A linear layer with this weight (O, I), and the bias of another layer."""
    outputs, inputs = weight.shape
    linear = Linear(inputs, outputs, parts=layer.parts)
    linear.weight, linear.bias = weight, layer.bias
    return linear


def replace_layers(model: nn.Module, layers: Iterable[tuple[str, nn.Module]]) -> None:
    """Puts layers into a model, by path."""
    model.update_modules(cast(dict[str, Any], tree_unflatten(list(layers))))


def freeze_packed(model: nn.Module) -> None:
    """Freezes the quantized layers of a model: packed integers have no gradient."""
    for module in model.modules():
        if isinstance(module, Quantized):
            module.freeze(recurse=False)
