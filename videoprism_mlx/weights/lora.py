"""Linear layers with adapters (LoRA), quantized or not.

Shapes: I inputs and O outputs of a layer, R rank of its adapter.
"""

from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from videoprism_mlx.errors import InputError
from videoprism_mlx.layers import Linear, QuantizedLinear
from videoprism_mlx.weights.quantize.layers import dense_linear

# The parameters that an adapter adds to a layer.
ADAPTER_NAMES = ("lora_a", "lora_b")

AnyLinear = Linear | QuantizedLinear


class Adapted:
    """What layers with adapters share: two matrices, (R, I) and (O, R), and their scale.

    The layer's own parameters are frozen. The matrices may have a more precise type.
    """

    lora_a: mx.array
    lora_b: mx.array
    scale: float

    def adapt(self, lora_a: mx.array, lora_b: mx.array, scale: float) -> None:
        """Adds the adapter."""
        self.lora_a, self.lora_b, self.scale = lora_a, lora_b, scale
        layer = cast(nn.Module, self)
        layer.freeze()
        layer.unfreeze(keys=list(ADAPTER_NAMES))

    def adapted(self, inputs: mx.array, outputs: mx.array) -> mx.array:
        """The outputs (..., O) for inputs (..., I), with the part of the adapter."""
        lora_a, lora_b = (part.astype(inputs.dtype) for part in (self.lora_a, self.lora_b))
        return outputs + self.scale * ((inputs @ lora_a.T) @ lora_b.T)

    def fused(self) -> Linear:
        """A linear layer, not quantized, with the adapter added to its weight."""
        layer = cast(Linear, self)
        weight, lora_a, lora_b = (
            part.astype(mx.float32)
            for part in (layer.dense_weight(mx.float32), self.lora_a, self.lora_b)
        )
        weight = weight + self.scale * (lora_b @ lora_a)
        return dense_linear(layer, weight.astype(layer.bias.dtype))

    def to_quantized(self, group_size: int | None = None, *args: Any, **kwargs: Any) -> nn.Module:
        """Raises InputError: a quantized layer could not be fused."""
        raise InputError("a layer with adapters cannot be quantized; call fuse_adapters first")


class LoRALinear(Adapted, Linear):
    """A linear layer plus the product of its inputs with two matrices."""

    def __init__(self, linear: Linear, lora_a: mx.array, lora_b: mx.array, scale: float):
        output_dims, input_dims = linear.dims
        Linear.__init__(self, input_dims, output_dims, parts=linear.parts)
        self.weight, self.bias = linear.weight, linear.bias
        self.adapt(lora_a, lora_b, scale)

    def __call__(self, inputs: mx.array) -> mx.array:
        """(..., I) to (..., O)."""
        return self.adapted(inputs, super().__call__(inputs))


class LoRAQuantizedLinear(Adapted, QuantizedLinear):
    """As LoRALinear, on a quantized layer."""

    def __init__(self, linear: QuantizedLinear, lora_a: mx.array, lora_b: mx.array, scale: float):
        packed = [linear.weight, linear.scales, linear.get("biases")]
        settings = (linear.group_size, linear.bits, linear.mode, linear.parts)
        QuantizedLinear.__init__(self, [x for x in packed if x is not None], linear.bias, *settings)
        self.adapt(lora_a, lora_b, scale)

    def __call__(self, inputs: mx.array) -> mx.array:
        """(..., I) to (..., O)."""
        return self.adapted(inputs, super().__call__(inputs))


def with_adapter(
    linear: AnyLinear, lora_a: mx.array, lora_b: mx.array, scale: float
) -> LoRALinear | LoRAQuantizedLinear:
    """A layer with an adapter."""
    if isinstance(linear, QuantizedLinear):
        return LoRAQuantizedLinear(linear, lora_a, lora_b, scale)
    return LoRALinear(linear, lora_a, lora_b, scale)
