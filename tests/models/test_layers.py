"""The parts, each against a computation of its own."""

import math

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from videoprism_mlx.encoders import (
    PositionalEmbedding,
    bilinear_weights,
    image_to_patch,
    l2_normalize,
    resize_positions,
)
from videoprism_mlx.layers import (
    MASKED_LOGIT,
    DotProductAttention,
    Linear,
    PerDimScale,
    TransformerFeedForward,
    attention_mask,
)

RANDOM = np.random.RandomState(0)


def test_padded_keys_are_hidden_from_every_query() -> None:
    mask = attention_mask(3, mx.array([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0]]))
    assert mask.tolist() == [[[[True, False, True]]], [[[False, False, False]]]]


def test_with_causality_padded_queries_see_nothing() -> None:
    mask = attention_mask(3, mx.array([[0.0, 1.0, 0.0]]), causal=True)
    assert mask[0, 0].tolist() == [[True, False, False], [False] * 3, [True, False, True]]


def test_causality_alone_and_nothing_at_all() -> None:
    assert attention_mask(2, causal=True)[0, 0].tolist() == [[True, False], [True, True]]
    assert attention_mask(2) is None


def numpy_attention(layer: DotProductAttention, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Attention in float64, head by head."""
    weights = {
        name: (np.array(m.weight, np.float64), np.array(m.bias, np.float64))
        for name, m in (
            ("query", layer.query),
            ("key", layer.key),
            ("value", layer.value),
            ("post", layer.post),
        )
    }
    q, k, v = (x @ weights[n][0].T + weights[n][1] for n in ("query", "key", "value"))
    width = q.shape[-1] // layer.num_heads
    heads = []
    for head in range(layer.num_heads):
        own = slice(head * width, (head + 1) * width)
        logits = q[:, own] @ k[:, own].T / math.sqrt(width)
        if layer.logit_cap:
            logits = layer.logit_cap * np.tanh(logits / layer.logit_cap)
        logits = np.where(mask, logits, MASKED_LOGIT)
        exponentials = np.exp(logits - logits.max(-1, keepdims=True))
        heads.append(exponentials / exponentials.sum(-1, keepdims=True) @ v[:, own])
    return np.concatenate(heads, -1) @ weights["post"][0].T + weights["post"][1]


@pytest.mark.parametrize("cap", [0.0, 2.0])
def test_attention(cap: float) -> None:
    mx.random.seed(1)
    layer = DotProductAttention(12, 12, 3, logit_cap=cap)
    for linear in (layer.query, layer.key, layer.value, layer.post):
        linear.weight = mx.random.normal(linear.weight.shape)
        linear.bias = mx.random.normal(linear.bias.shape)
    x = RANDOM.standard_normal((5, 12)).astype(np.float32)
    mask = RANDOM.uniform(size=(5, 5)) < 0.5
    mask[2] = False
    ours = np.array(layer(mx.array(x)[None], mx.array(x)[None], mx.array(mask)[None, None])[0])
    np.testing.assert_allclose(ours, numpy_attention(layer, x, mask), rtol=1e-4, atol=1e-4)


def test_a_fully_masked_row_attends_to_all_keys_alike() -> None:
    mx.random.seed(2)
    layer = DotProductAttention(8, 8, 2, logit_cap=50.0)
    x = mx.random.normal((1, 4, 8))
    out = layer(x, x, mx.zeros((1, 1, 4, 4), mx.bool_))
    mean_value = layer.post(layer.value(x).mean(1, keepdims=True))
    assert mx.allclose(out, mx.broadcast_to(mean_value, out.shape), atol=1e-5).item()


def test_per_dim_scale_starts_as_a_division_by_the_root_of_the_width() -> None:
    x = mx.array(RANDOM.standard_normal((2, 16)).astype(np.float32))
    assert mx.allclose(PerDimScale(16)(x), x / 4, rtol=1e-5).item()


def test_a_padded_position_passes_the_feed_forward_unchanged() -> None:
    layer = TransformerFeedForward(6, 12, nn.relu, "pre")
    layer.ffn_layer2.linear.bias = mx.ones((6,))
    x = mx.random.normal((1, 3, 6))
    out = layer(x, mx.array([[0.0, 1.0, 0.0]]))
    changed = [not mx.array_equal(out[0, i], x[0, i]).item() for i in range(3)]
    assert changed == [True, False, True]


@pytest.mark.parametrize("parts", [1, 4])
def test_linear_is_the_same_in_parts(parts: int) -> None:
    layer = Linear(27, 5, parts=parts)
    layer.bias = mx.random.normal((5,))
    x = RANDOM.standard_normal((2, 3, 27)).astype(np.float32)
    expected = x.astype(np.float64) @ np.array(layer.weight, np.float64).T + np.array(layer.bias)
    np.testing.assert_allclose(np.array(layer(mx.array(x))), expected, atol=1e-5)


def test_shrinking_widens_the_kernel() -> None:
    # Ratio 2: centres at 0.5 and 2.5, a triangle reaching 2 to each side.
    first = np.array([0.75, 0.75, 0.25, 0.0])
    expected = np.stack([first, first[::-1]]) / first.sum()
    np.testing.assert_allclose(bilinear_weights(4, 2), expected)


def test_growing_interpolates_and_holds_the_borders() -> None:
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_allclose(bilinear_weights(2, 4), expected)


def test_one_position_is_a_weighted_mean_of_all() -> None:
    # The centre is at 1.5, the triangle reaches 4 to each side: 5/8 and 7/8 before the sum.
    np.testing.assert_allclose(bilinear_weights(4, 1), [[5 / 24, 7 / 24, 7 / 24, 5 / 24]])


def test_resizing_takes_each_axis_by_its_own() -> None:
    table = RANDOM.standard_normal((1, 6, 3)).astype(np.float32)
    resized = resize_positions(mx.array(table), (2, 3), (4, 2))
    rows, columns = np.array(bilinear_weights(2, 4)), np.array(bilinear_weights(3, 2))
    expected = np.einsum("ah,bw,hwd->abd", rows, columns, table.reshape(2, 3, 3))
    np.testing.assert_allclose(np.array(resized)[0], expected.reshape(8, 3), atol=1e-6)


def test_patches_are_rows_of_pixels() -> None:
    image = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
    patches = np.array(image_to_patch(mx.array(image), 2))
    assert patches.shape == (2, 6, 12)
    np.testing.assert_array_equal(patches[1, 4], image[1, 2:4, 2:4].ravel())


def test_sinusoids() -> None:
    table = np.array(PositionalEmbedding(7)(5))[0]
    position, frequencies = np.arange(5)[:, None], np.array([1, 1e-2, 1e-4])
    expected = np.concatenate(
        [np.sin(position * frequencies), np.cos(position * frequencies), np.zeros((5, 1))], -1
    )
    np.testing.assert_allclose(table, expected, atol=1e-6)


def test_normalizing_a_zero_row_leaves_zero() -> None:
    rows = mx.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(np.array(l2_normalize(rows)), [[0.6, 0.8], [0, 0]], atol=1e-7)
