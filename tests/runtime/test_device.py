"""Shortcuts and blocks give what the plain computation gives, and what Flax gave."""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conftest import CASES, REFERENCE
from mlx import nn
from mlx.utils import tree_flatten

import videoprism_mlx as vp
from videoprism_mlx.convert.verify import (
    allowed_distance,
    distance,
    longest_sum,
    named_outputs,
    saved_inputs,
)
from videoprism_mlx.layers import AttenTokenPoolingLayer, StackedTransformer, Transformer
from videoprism_mlx.runtime import device as runtime_device
from videoprism_mlx.runtime import rounding

RANDOM = np.random.RandomState(0)
WIDE = np.concatenate([RANDOM.randn(20_000) * scale for scale in (1e-3, 0.1, 1, 3, 10, 100)])


@pytest.fixture(params=["cpu", "gpu"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What either kind of device is given, computed on this one."""
    chosen = {"cpu": runtime_device.cpu_backend, "gpu": runtime_device.gpu_backend}[request.param]()
    monkeypatch.setattr(runtime_device, "backend", lambda: chosen)
    return request.param


@contextlib.contextmanager
def small_blocks(megabytes: float = 1e-3) -> Iterator[None]:
    """Blocks so small that even the small models are cut up in every way."""
    least = runtime_device.LEAST_WORK
    try:
        runtime_device.set_block_size(megabytes)
        runtime_device.LEAST_WORK = 0
        yield
    finally:
        runtime_device.set_block_size(None)
        runtime_device.LEAST_WORK = least


# Functions.


def test_gelu(device: str) -> None:
    x = WIDE.astype(np.float32)
    exact = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64)])
    ours = np.array(runtime_device.gelu(mx.array(x)))
    assert np.all(np.abs(ours - exact) <= 4e-7 * np.maximum(np.abs(x), 1))
    theirs = np.array(nn.gelu(mx.array(x)))
    small = np.abs(x) < 8
    rms = [np.sqrt(np.mean((each - exact)[small] ** 2)) for each in (ours, theirs)]
    assert rms[0] <= 1.5 * rms[1]


@pytest.mark.parametrize("cap", [1.0, 50.0, 60.0])
def test_capped_exp(cap: float, device: str) -> None:
    x = WIDE.astype(np.float32)
    exact = np.exp(cap * np.tanh(x.astype(np.float64) / cap))
    ours = np.array(runtime_device.backend().capped_exp(cap)(mx.array(x)), np.float64)
    plain = np.array(mx.exp(cap * mx.tanh(mx.array(x) / cap)), np.float64)
    for found, ulps in ((ours, 4), (plain, 2)):  # Of the tanh, which the cap multiplies.
        assert np.abs(found / exact - 1).max() <= 2**-23 * (ulps * cap + 3)


def test_what_is_no_number_stays_so(device: str) -> None:
    for function in (runtime_device.gelu, runtime_device.backend().capped_exp(50.0)):
        assert np.isnan(np.array(function(mx.array([np.nan, 1.0])))).tolist() == [True, False]
    ends = np.array(runtime_device.backend().capped_exp(50.0)(mx.array([np.inf, -np.inf])))
    np.testing.assert_allclose(ends, np.exp([50.0, -50.0]), rtol=2e-5)
    assert abs(runtime_device.gelu(mx.array([-1e4])).item()) < 1e-6
    assert runtime_device.gelu(mx.array([1e4])).item() == pytest.approx(1e4)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_gelu_keeps_the_type(dtype: mx.Dtype, device: str) -> None:
    x = mx.array(RANDOM.randn(1000)).astype(dtype)
    ours = runtime_device.gelu(x)
    assert ours.dtype == dtype
    exact = nn.gelu(x.astype(mx.float32))
    step = {mx.float32: 1e-6, mx.bfloat16: 2**-8, mx.float16: 2**-10}[dtype]
    assert mx.all(mx.abs(ours.astype(mx.float32) - exact) <= step * (1 + mx.abs(exact))).item()


def test_gradients_of_the_functions(device: str) -> None:
    x = mx.array(RANDOM.randn(500).astype(np.float32) * 3)
    weight = mx.array(RANDOM.randn(500).astype(np.float32))
    for ours, plain in (
        (runtime_device.gelu, nn.gelu),
        (runtime_device.backend().capped_exp(5.0), lambda x: mx.exp(5 * mx.tanh(x / 5))),
    ):
        found, expected = (mx.grad(lambda x, f=f: (f(x) * weight).sum())(x) for f in (ours, plain))
        scale = mx.abs(expected).max().item()
        np.testing.assert_allclose(np.array(found), np.array(expected), atol=1e-5 * scale)


# Blocks.


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("rows", [1, 2, 5, 64])
def test_blocks_are_put_together_in_order(rows: int, axis: int, device: str) -> None:
    shape = [3, 4, 5]
    shape[axis] = rows
    x = mx.array(RANDOM.randn(*shape).astype(np.float32))
    single = mx.array(RANDOM.randn(1, 1, 1).astype(np.float32))
    sizes = []

    def function(x: mx.array, single: mx.array, nothing: None) -> mx.array:
        assert nothing is None and single.shape == (1, 1, 1)
        sizes.append(x.shape[axis])
        return x * 2 + single

    for megabytes in (1e-4, 5e-4, 1.0):
        sizes.clear()
        with small_blocks(megabytes):
            found = runtime_device.in_blocks(function, [x, single, None], 25, axis)
        assert np.array_equal(np.array(found), np.array(x * 2 + single))
        assert sum(sizes) == rows and max(sizes) - min(sizes) <= 1
        assert max(sizes) * 100 <= megabytes * 1e6 or max(sizes) == 1
    sizes.clear()
    with small_blocks(), runtime_device.plain():
        runtime_device.in_blocks(function, [x, single, None], 25, axis)
    assert sizes == [rows]


def test_every_core_has_work(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = [mx.new_stream(mx.cpu) for _ in range(3)]
    monkeypatch.setattr(
        runtime_device, "backend", lambda: runtime_device.cpu_backend()._replace(streams=streams)
    )
    used = []

    def function(x: mx.array) -> mx.array:
        used.append(mx.default_stream(mx.cpu))
        return x + 1

    large = runtime_device.LEAST_WORK
    result = runtime_device.in_blocks(function, [mx.zeros((7, 2))], large)
    assert result.tolist() == [[1, 1]] * 7
    assert used == streams
    used.clear()
    runtime_device.in_blocks(function, [mx.zeros((7, 2))], 10)  # Too little to be worth it.
    assert len(used) == 1


@pytest.mark.parametrize("size", [0, -1, math.nan, math.inf])
def test_bad_block_sizes(size: float) -> None:
    with pytest.raises(ValueError, match="expected megabytes, above 0, or None"):
        vp.set_block_size(size)


def test_the_block_size_bounds_memory() -> None:
    mx.random.seed(0)
    model = StackedTransformer(2, 32, 128, 4, nn.relu)
    x = mx.random.normal((64, 64, 32))
    mx.eval(model.parameters(), x)
    peaks = {}
    for megabytes in (None, 0.25):
        try:
            vp.set_block_size(megabytes)
            mx.clear_cache()
            mx.reset_peak_memory()
            before = mx.get_active_memory()
            mx.eval(model(x))
            peaks[megabytes] = mx.get_peak_memory() - before
        finally:
            vp.set_block_size(None)
    assert peaks[0.25] < 0.6 * peaks[None]


# Models.

MODES: dict[str, Callable[[], Any]] = {
    "as it is": contextlib.nullcontext,
    "in blocks": small_blocks,
    "plain": runtime_device.plain,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_outputs_are_as_close_to_float64_as_those_of_flax(
    name: str, case: str, mode: str, device: str, converted: Callable[[str], Path]
) -> None:
    model = vp.load_model(converted(name))
    with np.load(REFERENCE / name / f"{case}.npz") as saved:
        arguments = {key: v.item() if v.ndim == 0 else v for key, v in saved_inputs(saved).items()}
        terms = longest_sum(model, arguments)
        assert terms <= rounding.BLOCK  # So the bound is the same on every device.
        with MODES[mode]():
            outputs = named_outputs(model(**arguments))
            mx.eval(outputs)
        for path, array in outputs.items():
            allowed = allowed_distance(float(saved[f"distance/{path}"]), terms)
            assert distance(np.array(array), saved[f"float64/{path}"]) <= allowed, path


@pytest.mark.parametrize("policy", ["pre", "primer_hybrid", "post", "post_skip"])
def test_a_long_sequence_in_blocks_of_queries(policy: str, device: str) -> None:
    mx.random.seed(3)
    layer = Transformer(16, 40, 4, nn.gelu, policy, logit_cap=50.0)
    x = mx.random.normal((2, 90, 16))
    with runtime_device.plain():
        expected = np.array(layer(x))
    calls = []
    real = layer.self_attention.attend

    def attend(*arguments: mx.array) -> mx.array:
        calls.append(arguments[0].shape[1])
        return real(*arguments)

    object.__setattr__(layer.self_attention, "attend", attend)
    with small_blocks(0.02):
        found = np.array(layer(x))
    assert sum(calls) == 90 and len(calls) > 10
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("scaled", [False, True])
def test_pooling_before_projecting(scaled: bool, device: str) -> None:
    mx.random.seed(4)
    layer = AttenTokenPoolingLayer(24, 48, 4)
    attention = layer.pooling_attention
    for linear in (attention.query, attention.key, attention.value, attention.post):
        linear.bias = mx.random.normal(linear.bias.shape)
    attention.per_dim_scale.per_dim_scale = mx.random.normal((12,))
    tokens = mx.random.normal((3, 50, 24)) * (5 if scaled else 1)
    with runtime_device.plain():
        expected = np.array(layer(tokens))
    np.testing.assert_allclose(np.array(layer(tokens)), expected, atol=2e-5)
    nn.quantize(layer, group_size=32, bits=8, class_predicate=lambda path, m: m is attention.post)
    assert layer(tokens).shape == (3, 24)


def test_padding_that_all_texts_share_costs_nothing(converted: Callable[[str], Path]) -> None:
    model = vp.load_model(converted("clip"))
    ids = RANDOM.randint(1, 60, (3, 40))
    paddings = np.ones((3, 40), np.float32)
    for row, length in enumerate((4, 9, 2)):
        paddings[row, :length] = 0
    paddings[1, 3] = 1  # A hole.
    lengths = []
    stack = type(model.text_encoder.unimodal_transformer)
    real = stack.__call__

    def watched(self: nn.Module, inputs: mx.array, *rest: Any) -> mx.array:
        lengths.append(inputs.shape[1])
        return real(self, inputs, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stack, "__call__", watched)
        _, found, _ = model(text_token_ids=ids, text_paddings=paddings)
        with runtime_device.plain():
            _, expected, _ = model(text_token_ids=ids, text_paddings=paddings)
        nothing = model(text_token_ids=ids, text_paddings=np.ones((3, 40)))[1]
        with runtime_device.plain():
            plain_nothing = model(text_token_ids=ids, text_paddings=np.ones((3, 40)))[1]
    assert lengths == [10, 41, 2, 41]
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=2e-6)
    np.testing.assert_allclose(np.array(nothing), np.array(plain_nothing), atol=2e-6)
    features = model.text_encoder(ids, paddings)
    assert features.shape == (3, 41, 24)  # Asked for themselves, all positions come.


def test_compiled_in_blocks(converted: Callable[[str], Path]) -> None:
    model = vp.load_model(converted("clip_mild"))
    video = mx.random.uniform(shape=(2, 4, 18, 18, 3))
    ids, paddings = mx.array([[3, 7, 9]]), mx.zeros((1, 3))
    with runtime_device.plain():
        plain = model(video, ids, paddings)[:2]
    with small_blocks():
        compiled = mx.compile(lambda *inputs: model(*inputs)[:2])(video, ids, paddings)
        for a, b in zip(plain, compiled, strict=True):
            assert mx.allclose(a, b, atol=1e-5).item()


def test_gradients_in_blocks(converted: Callable[[str], Path]) -> None:
    model = vp.load_model(converted("clip_mild"))
    video = mx.random.uniform(shape=(2, 4, 18, 18, 3))

    def loss(model: nn.Module) -> mx.array:
        return (model(video)[0] * mx.arange(24)).sum()

    gradients = []
    for mode in (runtime_device.plain, small_blocks):
        with mode():
            _, tree = nn.value_and_grad(model, loss)(model)
            mx.eval(tree)
            gradients.append(dict(tree_flatten(tree)))
    for name, expected in gradients[0].items():
        scale = max(mx.abs(expected).max().item(), 1e-2)
        np.testing.assert_allclose(
            np.array(gradients[1][name]), np.array(expected), atol=1e-4 * scale, err_msg=name
        )


def test_what_is_constant_in_a_gradient_keeps_its_shape(device: str) -> None:
    x = {shape: mx.array(RANDOM.randn(*shape).astype(np.float32)) for shape in [(16, 9), (36, 4)]}
    functions = [runtime_device.gelu, runtime_device.backend().capped_exp(50.0)]

    def traced(scale: mx.array) -> mx.array:
        return sum(function(scale * each).sum() for function in functions for each in x.values())

    def apart(scale: mx.array) -> mx.array:
        for function in functions:
            for shape, each in x.items():
                assert function(each).shape == shape
        return scale * scale

    mx.eval(mx.grad(traced)(mx.array(1.0)))
    assert mx.grad(apart)(mx.array(1.0)).item() == 2


def test_a_batch_clip_by_clip(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def function(x: mx.array, nothing: None) -> tuple[mx.array, dict[str, mx.array]]:
        assert nothing is None
        seen.append(len(x))
        return x * 2, {"sum": x.sum(axis=1)}

    x = mx.array(RANDOM.randn(5, 3).astype(np.float32))
    runtime_device.by_clip(function, [x, None])
    assert seen == [5]  # Small clips stay together.
    seen.clear()
    monkeypatch.setattr(runtime_device, "LEAST_WORK", 0)
    doubled, rest = runtime_device.by_clip(function, [x, None])
    assert seen == ([1] * 5 if device == "cpu" else [5])
    np.testing.assert_array_equal(np.array(doubled), np.array(x * 2))
    np.testing.assert_allclose(np.array(rest["sum"]), np.array(x.sum(axis=1)), rtol=1e-6)
    seen.clear()
    with runtime_device.plain():
        runtime_device.by_clip(function, [x, None])
    assert seen == [5]


def test_from_another_thread(converted: Callable[[str], Path]) -> None:
    model = vp.load_model(converted("clip_mild"))
    mx.eval(model.parameters())  # What a thread has not computed yet, no other can.
    video = RANDOM.uniform(size=(2, 4, 18, 18, 3)).astype(np.float32)
    found = []

    def work() -> None:
        with small_blocks():
            found.append(np.array(model(video)[0]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    np.testing.assert_allclose(found[0], np.array(model(video)[0]), atol=2e-6)
