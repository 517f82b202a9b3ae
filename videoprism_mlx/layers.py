"""The layers of VideoPrism, named and nested as in the official Flax model.

Shapes: B batch, L queries, S keys, D width, H head width.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import mlx.core as mx
import mlx.nn as nn

from videoprism_mlx.errors import InputError, counted, shown
from videoprism_mlx.runtime import device
from videoprism_mlx.runtime.device import in_blocks
from videoprism_mlx.runtime.functions import LARGEST_CAP

NORM_POLICIES = ("pre", "primer_hybrid", "post", "post_skip")
EPSILON = 1e-6

# For each mode of quantization: the weights in a group and the bits of a weight by default.
QUANTIZATION_DEFAULTS = {"affine": (64, 4), "mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}

# Replaces a masked logit. If all keys of a row are masked, the row attends to all of them equally.
MASKED_LOGIT = -0.7 * mx.finfo(mx.float32).max

Activation = Callable[[mx.array], mx.array]


def lecun_normal(shape: tuple[int, ...], fan_in: int) -> mx.array:
    """Flax's default initial values: normal, truncated at two deviations, variance 1/fan_in."""
    truncated_normal_deviation = 0.87962566103423978
    scale = math.sqrt(1 / fan_in) / truncated_normal_deviation
    return mx.random.truncated_normal(-2.0, 2.0, shape) * scale


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` over D, with the official epsilon. Its weight is 1 + the official `scale`."""

    weight: mx.array
    bias: mx.array

    def __init__(self, dims: int):
        super().__init__(dims, eps=EPSILON)

    def __call__(self, inputs: mx.array) -> mx.array:
        """(..., D) to (..., D)."""
        outputs: mx.array = super().__call__(inputs)
        return outputs


class Linear(nn.Linear):
    """`nn.Linear` with Flax's initial values. If MLX cannot quantize it, it stays unquantized.

    With `parts`, the sum over the inputs is taken in that many parts, which rounds less.
    """

    weight: mx.array
    bias: mx.array

    def __init__(
        self, input_dims: int, output_dims: int, fan_in: int | None = None, parts: int = 1
    ):
        super().__init__(input_dims, output_dims)
        self.parts = parts
        self.weight = lecun_normal((output_dims, input_dims), fan_in or input_dims)
        self.bias = mx.zeros((output_dims,))

    def __call__(self, inputs: mx.array) -> mx.array:
        """(..., input_dims) to (..., output_dims)."""
        return product(inputs, self.weight, self.bias, self.parts)

    @property
    def dims(self) -> tuple[int, int]:
        """The numbers of outputs and inputs."""
        outputs, inputs = self.weight.shape
        return outputs, inputs

    def dense_weight(self, dtype: mx.Dtype) -> mx.array:
        """The weight (output_dims, input_dims), which has its type already."""
        return self.weight

    def to_quantized(
        self,
        group_size: int | None = None,
        bits: int | None = None,
        mode: str = "affine",
        quantize_input: bool = False,
    ) -> nn.Module:
        """The quantized layer, or this one if the group size does not divide its width."""
        if quantize_input:
            raise InputError("quantize_input is set; MLX has it for layers without a bias only")
        usual_size, usual_bits = QUANTIZATION_DEFAULTS.get(mode, (64, 4))
        group_size, bits = group_size or usual_size, bits or usual_bits
        # The patch projection has 972 inputs, which no group size divides.
        if self.dims[1] % group_size:
            return self
        packed = mx.quantize(self.weight, group_size, bits, mode=mode)
        return QuantizedLinear(packed, self.bias, group_size, bits, mode, self.parts)


class QuantizedLinear(nn.QuantizedLinear):
    """A `Linear` whose weight is quantized: packed integers, with a scale for each group of them.

    Where MLX's quantized products are slow, which they are on the CPU, the weight is dequantized
    for each product.
    """

    weight: mx.array
    scales: mx.array
    bias: mx.array

    def __init__(
        self,
        packed: Sequence[mx.array],
        bias: mx.array,
        group_size: int,
        bits: int,
        mode: str = "affine",
        parts: int = 1,
    ):
        nn.Module.__init__(self)  # That of nn.QuantizedLinear draws a weight.
        self.group_size, self.bits, self.mode, self.parts = group_size, bits, mode, parts
        self.weight, self.scales = packed[0], packed[1]
        self.biases = packed[2] if len(packed) > 2 else None
        self.bias = bias
        self.freeze()

    def __call__(self, inputs: mx.array) -> mx.array:
        """(..., input_dims) to (..., output_dims)."""
        if device.backend().dequantizes:
            return product(inputs, self.dense_weight(inputs.dtype), self.bias, self.parts)
        outputs: mx.array = super().__call__(inputs)
        return outputs

    @property
    def dims(self) -> tuple[int, int]:
        """The numbers of outputs and inputs."""
        outputs, groups = self.scales.shape
        return outputs, groups * self.group_size

    def dense_weight(self, dtype: mx.Dtype) -> mx.array:
        """The weight (output_dims, input_dims), dequantized."""
        weight = mx.dequantize(
            self.weight, self.scales, self.get("biases"), self.group_size, self.bits, self.mode
        )
        return weight.astype(dtype)  # Without a type in its scales, it is bfloat16, and exact.


def product(inputs: mx.array, weight: mx.array, bias: mx.array, parts: int = 1) -> mx.array:
    """`inputs` (..., I) times `weight` (O, I), plus `bias` (O): (..., O). The sum is in parts."""
    if parts == 1:
        return mx.addmm(bias, inputs, weight.T)
    *shape, width = inputs.shape
    cuts = [width * part // parts for part in range(parts + 1)]
    rows, outputs = inputs.flatten(0, -2), bias  # Columns of a matrix need no copy.
    for start, stop in itertools.pairwise(cuts):
        factors = rows[:, start:stop], weight[:, start:stop].T
        if outputs.dtype == mx.float32:  # In addmm, a BLAS may go on with the earlier sum.
            outputs = outputs + factors[0] @ factors[1]
        else:  # Here addmm rounds once, not twice.
            outputs = mx.addmm(outputs, *factors)
    return mx.unflatten(outputs, 0, shape)


class FeedForward(nn.Module):
    """A linear layer and an activation: (..., D) to (..., output_dims)."""

    def __init__(
        self,
        input_dims: int,
        output_dims: int,
        activation: Activation | None = None,
        parts: int = 1,
    ):
        super().__init__()
        self.linear = Linear(input_dims, output_dims, parts=parts)
        self.activation = activation

    def __call__(self, inputs: mx.array) -> mx.array:
        outputs = self.linear(inputs)
        return self.activation(outputs) if self.activation else outputs


class ResidualBranch(nn.Module):
    """A residual connection, with a LayerNorm where the norm policy puts it."""

    def __init__(self, model_dim: int, norm_policy: str):
        super().__init__()
        if norm_policy not in NORM_POLICIES:
            raise InputError(
                f"norm_policy is {shown(norm_policy)}; expected one of {', '.join(NORM_POLICIES)}"
            )
        self.norm_policy = norm_policy
        if norm_policy == "primer_hybrid":
            self.pre_layer_norm = LayerNorm(model_dim)
            self.post_layer_norm = LayerNorm(model_dim)
        else:
            self.layer_norm = LayerNorm(model_dim)

    def add(self, inputs: mx.array, branch: Activation) -> mx.array:
        """`inputs` (B, L, D) plus the output of `branch` (B, L, D)."""
        outputs = branch(self.normalized(inputs))
        if self.norm_policy == "pre":
            return inputs + outputs
        if self.norm_policy == "primer_hybrid":
            return inputs + self.post_layer_norm(outputs)
        if self.norm_policy == "post":
            return inputs + self.layer_norm(outputs)
        return self.layer_norm(inputs + outputs)

    def normalized(self, inputs: mx.array) -> mx.array:
        """The input of the branch: normalized first, if the policy says so."""
        if self.norm_policy == "pre":
            return self.layer_norm(inputs)
        return self.pre_layer_norm(inputs) if self.norm_policy == "primer_hybrid" else inputs


class TransformerFeedForward(ResidualBranch):
    """The feed-forward half of a transformer layer."""

    def __init__(self, model_dim: int, hidden_dim: int, activation: Activation, norm_policy: str):
        super().__init__(model_dim, norm_policy)
        self.ffn_layer1 = FeedForward(model_dim, hidden_dim, activation)
        self.ffn_layer2 = FeedForward(hidden_dim, model_dim)

    def __call__(self, inputs: mx.array, paddings: mx.array | None = None) -> mx.array:
        """(B, L, D) to (B, L, D). A padded position (1 in `paddings`, (B, L)) stays unchanged."""
        if paddings is None:
            return self.add(inputs, lambda x: self.ffn_layer2(self.ffn_layer1(x)))
        keep = (1 - paddings)[..., None].astype(inputs.dtype)
        return self.add(inputs, lambda x: self.ffn_layer2(self.ffn_layer1(x) * keep) * keep)


class PerDimScale(nn.Module):
    """A learned scale for each of the H dimensions of a query."""

    def __init__(self, dims: int):
        super().__init__()
        self.per_dim_scale = mx.zeros((dims,))

    def __call__(self, inputs: mx.array) -> mx.array:
        """(..., H) to (..., H). If the parameter is zero, this divides by sqrt(H)."""
        inverse_softplus_of_zero = 1.442695041
        scale = inverse_softplus_of_zero / math.sqrt(inputs.shape[-1])
        softplus: mx.array = nn.softplus(self.per_dim_scale)
        return inputs * (scale * softplus)


class DotProductAttention(nn.Module):
    """Multi-head attention of width `hidden_dim`, with capped logits and a float32 softmax."""

    def __init__(
        self,
        model_dim: int,
        hidden_dim: int,
        num_heads: int,
        logit_cap: float = 0.0,
        per_dim_scale: bool = False,
    ):
        super().__init__()
        if hidden_dim % num_heads:
            raise InputError(
                f"a width of {hidden_dim} cannot be split over {counted(num_heads, 'head')}"
            )
        self.num_heads = num_heads
        self.logit_cap = logit_cap
        self.query = Linear(model_dim, hidden_dim, fan_in=model_dim * num_heads)
        self.key = Linear(model_dim, hidden_dim, fan_in=model_dim * num_heads)
        self.value = Linear(model_dim, hidden_dim, fan_in=model_dim * num_heads)
        self.post = Linear(hidden_dim, model_dim, fan_in=model_dim * num_heads)
        if per_dim_scale:
            self.per_dim_scale = PerDimScale(hidden_dim // num_heads)

    def __call__(
        self, queries: mx.array, tokens: mx.array, mask: mx.array | None = None
    ) -> mx.array:
        """`queries` (B, L, D) attend to `tokens` (B, S, D), giving (B, L, D).

        `mask` is true where a query may attend. It broadcasts to (B, heads, L, S).
        """
        key, value = self.by_head(self.key(tokens)), self.by_head(self.value(tokens))
        return self.attend(queries, key, value, mask)

    def by_head(self, projected: mx.array) -> mx.array:
        """(B, L, heads * H) to (B, heads, L, H)."""
        return self._split_heads(projected).swapaxes(1, 2)

    def attend(
        self, queries: mx.array, key: mx.array, value: mx.array, mask: mx.array | None = None
    ) -> mx.array:
        """As `__call__`, from keys and values that are split by head already."""
        query = self._scale(self._split_heads(self.query(queries))).swapaxes(1, 2)

        # In bfloat16, a logit of 40 is off by up to 1/8.
        logits = query.astype(mx.float32) @ key.astype(mx.float32).swapaxes(-1, -2)
        # Exponentials of capped logits cannot overflow, so the maximum need not be subtracted.
        if self._is_capped(value.dtype) and mask is None and not device.is_plain():
            weights = device.backend().capped_exp(self.logit_cap)(logits)
            sums = weights.sum(axis=-1, keepdims=True)
            attended = ((weights.astype(value.dtype) @ value) / sums).astype(value.dtype)
        else:
            if self.logit_cap > 0:
                logits = self.logit_cap * mx.tanh(logits / self.logit_cap)
            if mask is not None:
                logits = mx.where(mask, logits, MASKED_LOGIT)
            attended = mx.softmax(logits, axis=-1).astype(value.dtype) @ value
        return self.post(attended.swapaxes(1, 2).flatten(-2))

    def pool(self, query: mx.array, tokens: mx.array) -> mx.array:
        """As `__call__` with one query (1, D) for all rows and no cap: (B, 1, D).

        The query is multiplied by the key weights, and the tokens are averaged before the value
        weights are applied, so no keys or values are computed. The key bias is left out: it adds
        the same to all logits of a query, which a softmax ignores.
        """
        query = self._scale(self._split_heads(self.query(query)))[0]  # (heads, H)
        to_keys, to_values = (
            mx.unflatten(layer.dense_weight(tokens.dtype), 0, (self.num_heads, -1))
            for layer in (self.key, self.value)
        )  # (heads, H, D)
        projected_query = (query[:, None] @ to_keys).squeeze(1).astype(mx.float32)  # (heads, D)
        logits = tokens.astype(mx.float32) @ projected_query.T  # (B, S, heads)
        weights = mx.softmax(logits, axis=1).astype(tokens.dtype)
        averages = (weights.swapaxes(1, 2) @ tokens)[:, :, None]  # (B, heads, 1, D)
        values = (averages @ to_values.swapaxes(1, 2)).flatten(1) + self.value.bias
        return self.post(values[:, None])

    @property
    def can_pool(self) -> bool:
        """Whether `pool` computes what `__call__` does. With adapters, it would leave them out."""
        return all(type(layer) in (Linear, QuantizedLinear) for layer in (self.key, self.value))

    def _is_capped(self, dtype: mx.Dtype) -> bool:
        return 0 < self.logit_cap <= LARGEST_CAP and dtype != mx.float16

    def _split_heads(self, x: mx.array) -> mx.array:
        return mx.unflatten(x, -1, (self.num_heads, -1))

    def _scale(self, query: mx.array) -> mx.array:
        if "per_dim_scale" not in self:
            scale: float = query.shape[-1] ** -0.5
            return query * scale
        scaled: mx.array = self.per_dim_scale(query)
        return scaled


class Transformer(ResidualBranch):
    """One transformer layer: self-attention, then feed-forward."""

    def __init__(
        self,
        model_dim: int,
        hidden_dim: int,
        num_heads: int,
        activation: Activation,
        norm_policy: str = "pre",
        logit_cap: float = 0.0,
        per_dim_scale: bool = False,
    ):
        super().__init__(model_dim, norm_policy)
        self.self_attention = DotProductAttention(
            model_dim, model_dim, num_heads, logit_cap, per_dim_scale
        )
        self.ff_layer = TransformerFeedForward(model_dim, hidden_dim, activation, norm_policy)
        self.hidden_dim = hidden_dim

    def __call__(
        self, inputs: mx.array, paddings: mx.array | None = None, mask: mx.array | None = None
    ) -> mx.array:
        """(B, L, D) to (B, L, D), with `paddings` (B, L) and an `attention_mask`."""
        attention, length = self.self_attention, inputs.shape[1]
        if mask is not None or self._fits(inputs):
            attended = self.add(inputs, lambda x: attention(x, x, mask))
            return self.ff_layer(attended, paddings)

        # Keys and values are computed once, for all blocks of queries.
        tokens, batch = self.normalized(inputs), len(inputs)
        keys, values = (
            mx.contiguous(attention.by_head(in_blocks(part, [tokens], tokens.shape[-1], axis=1)))
            for part in (attention.key, attention.value)
        )
        keys = keys.astype(mx.float32)
        attended = in_blocks(
            lambda inputs: self.add(inputs, lambda x: attention.attend(x, keys, values)),
            [inputs],
            batch * attention.num_heads * length,
            axis=1,
        )
        return in_blocks(self.ff_layer, [attended], batch * self.hidden_dim, axis=1)

    def _fits(self, inputs: mx.array) -> bool:
        batch, length, _ = inputs.shape
        return device.fits(batch * length * self.row_elements(length), inputs.dtype)

    def row_elements(self, length: int) -> int:
        """The size of the largest array that one position needs: its hidden layer or its logits."""
        return max(self.hidden_dim, self.self_attention.num_heads * length)


def attention_mask(
    length: int, paddings: mx.array | None = None, causal: bool = False
) -> mx.array | None:
    """True where a query may attend, (B or 1, 1, L or 1, L). None if it may attend everywhere.

    No query attends to a padded key (1 in `paddings`, (B, L)). With `causal`, every key of a padded
    query is masked as well, and so it attends to all keys equally.
    """
    causal_mask = mx.tri(length, dtype=mx.bool_)[None, None] if causal else None
    if paddings is None:
        return causal_mask
    keys = (paddings <= 0.5)[:, None, None, :]
    return keys if causal_mask is None else keys & keys.swapaxes(-1, -2) & causal_mask


class StackedTransformer(nn.Module):
    """Transformer layers in sequence.

    If `recomputes` is set, a gradient computes the activations inside the layers again instead of
    keeping them (gradient checkpointing).
    """

    def __init__(
        self,
        num_layers: int,
        model_dim: int,
        hidden_dim: int,
        num_heads: int,
        activation: Activation,
        norm_policy: str = "pre",
        logit_cap: float = 0.0,
        per_dim_scale: bool = False,
        causal: bool = False,
    ):
        super().__init__()
        self.causal = causal
        self.recomputes = False
        self.x_layers = [
            Transformer(
                model_dim, hidden_dim, num_heads, activation, norm_policy, logit_cap, per_dim_scale
            )
            for _ in range(num_layers)
        ]

    def __call__(self, inputs: mx.array, paddings: mx.array | None = None) -> mx.array:
        """(B, L, D) to (B, L, D), with `paddings` (B, L)."""
        if not self.x_layers:
            return inputs
        length = inputs.shape[1]

        def for_rows(inputs: mx.array, paddings: mx.array | None) -> mx.array:
            mask = attention_mask(length, paddings, self.causal)
            for layer in self.x_layers:
                through = nn.utils.checkpoint(layer) if self.recomputes else layer
                inputs = through(inputs, paddings, mask)
            return inputs

        row_elements = length * self.x_layers[0].row_elements(length)
        return in_blocks(for_rows, [inputs, paddings], row_elements)


class AttenTokenPoolingLayer(nn.Module):
    """Attention pooling: one learned query attends to all tokens."""

    def __init__(self, model_dim: int, hidden_dim: int, num_heads: int):
        super().__init__()
        self.pooling_attention_query = lecun_normal((1, model_dim), fan_in=1)
        self.pooling_attention = DotProductAttention(
            model_dim, hidden_dim, num_heads, per_dim_scale=True
        )
        self.pooling_attention_layer_norm = LayerNorm(model_dim)

    def __call__(self, tokens: mx.array) -> mx.array:
        """(B, S, D) to (B, D)."""
        attention = self.pooling_attention
        if device.is_plain() or not attention.can_pool:
            query = mx.broadcast_to(
                self.pooling_attention_query, (len(tokens), *self.pooling_attention_query.shape)
            )
            pooled = attention(query, tokens)
        else:
            pooled = attention.pool(self.pooling_attention_query, tokens)
        return self.pooling_attention_layer_norm(pooled).squeeze(1)
