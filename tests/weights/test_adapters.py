"""Adapters: what they compute, which layers have them, and what is trained."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from adapting import Converted, arguments, outputs, parameters, trainable, with_random_adapters
from conftest import MODELS
from mlx import nn
from mlx.utils import tree_flatten, tree_map_with_path

import videoprism_mlx as vp
from videoprism_mlx.layers import Linear
from videoprism_mlx.runtime import device
from videoprism_mlx.weights.adapters import LoRALinear

ATTENTION = [f"self_attention.{name}" for name in ("query", "key", "value", "post")]
FEED_FORWARD = [f"ff_layer.ffn_layer{number}.linear" for number in (1, 2)]
POOLING = [f"pooling_attention.{name}" for name in ("query", "key", "value", "post")]

ADAPTABLE = [name for name in MODELS if name != "encoder_without_layers"]


@pytest.mark.parametrize("parts", [1, 3])
def test_a_layer_by_hand(parts: int) -> None:
    random = np.random.RandomState(0)
    linear = Linear(7, 5, parts=parts)
    linear.bias = mx.array(random.randn(5).astype(np.float32))
    lora_a, lora_b = random.randn(2, 7), random.randn(5, 2)
    x = random.randn(4, 3, 7)
    layer = LoRALinear(linear, *(mx.array(v.astype(np.float32)) for v in (lora_a, lora_b)), 1.5)
    weight, bias = np.array(linear.weight, np.float64), np.array(linear.bias, np.float64)
    expected = x @ weight.T + bias + 1.5 * (x @ lora_a.T) @ lora_b.T
    inputs = mx.array(x.astype(np.float32))
    np.testing.assert_allclose(np.array(layer(inputs)), expected, atol=5e-6)
    fused = layer.fused()
    assert type(fused) is Linear and fused.parts == parts
    np.testing.assert_allclose(np.array(fused(inputs)), expected, atol=5e-6)
    np.testing.assert_allclose(np.array(fused.weight), weight + 1.5 * lora_b @ lora_a, atol=2e-6)


@pytest.mark.parametrize("name", ADAPTABLE)
def test_at_the_start_they_change_nothing(name: str, converted: Converted) -> None:
    model = vp.load_model(converted(name))
    kept = parameters(model)
    with device.plain():  # As a pooler with adapters computes.
        before = outputs(model, name)
        vp.add_adapters(model, 2)
        after = outputs(model, name)
    np.testing.assert_equal(after, before)
    for key, array in outputs(model, name).items():
        np.testing.assert_allclose(array, before[key], rtol=0, atol=2e-5, err_msg=key)
    now = parameters(model)
    np.testing.assert_equal({key: now[key] for key in kept}, kept)
    assert {key.rpartition(".")[2] for key in now.keys() - kept.keys()} == {"lora_a", "lora_b"}


@pytest.mark.parametrize("name", ADAPTABLE)
def test_fused_they_do_the_same(name: str, converted: Converted) -> None:
    model = vp.load_model(converted(name))
    names, original = list(parameters(model)), outputs(model, name)
    with_random_adapters(model, alpha=2.0)
    unfused = outputs(model, name)
    assert vp.fuse_adapters(model) is model
    assert sorted(parameters(model)) == sorted(names)
    assert sorted(trainable(model)) == sorted(names)
    assert not any(isinstance(each, LoRALinear) for _, each in model.named_modules())
    for key, array in outputs(model, name).items():
        scale = np.abs(array).max()
        assert np.abs(unfused[key] - original[key]).max() > 1e-2 * scale, key
        np.testing.assert_allclose(array, unfused[key], rtol=0, atol=1e-4 * scale, err_msg=key)


def test_a_model_without_layers_has_no_place_for_them(converted: Converted) -> None:
    model = vp.load_model(converted("encoder_without_layers"))
    with pytest.raises(vp.VideoPrismError, match="has no layers that adapters could be in"):
        vp.add_adapters(model, 2)


def test_a_long_sequence_in_blocks(converted: Converted, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_random_adapters(vp.load_model(converted("clip_mild")))
    with device.plain():
        expected = outputs(model, "clip_mild")
    monkeypatch.setattr(device, "LEAST_WORK", 0)
    try:
        vp.set_block_size(1e-3)
        found = outputs(model, "clip_mild")
    finally:
        vp.set_block_size(None)
    for key, array in found.items():
        np.testing.assert_allclose(array, expected[key], rtol=0, atol=2e-5, err_msg=key)


def test_in_bfloat16(converted: Converted) -> None:
    coarse = with_random_adapters(vp.load_model(converted("clip_mild"), dtype="bfloat16"))
    exact = with_random_adapters(vp.load_model(converted("clip_mild")))
    assert {array.dtype for array in trainable(coarse).values()} == {mx.float32}
    given = arguments("clip_mild")
    given.pop("return_intermediate", None)
    video, text, _ = coarse(**given)
    assert video.dtype == text.dtype == mx.bfloat16

    def cosines(model: nn.Module) -> list[float]:
        return [
            float((ours.astype(mx.float32) * theirs).sum(-1).min())
            for ours, theirs in zip(model(**given)[:2], exact(**given)[:2], strict=True)
        ]

    assert min(cosines(coarse)) > 0.999
    vp.fuse_adapters(coarse)
    assert {array.dtype for _, array in tree_flatten(coarse.parameters())} == {mx.bfloat16}
    assert min(cosines(coarse)) > 0.999


# Where they are.


def adapted(model: nn.Module) -> set[str]:
    """The layers with adapters, each of which has both of its parameters trainable."""
    names = trainable(model)
    paths = {name.rpartition(".")[0] for name in names}
    assert set(names) == {f"{path}.{part}" for path in paths for part in ("lora_a", "lora_b")}
    return paths


def stack(path: str, *numbers: int) -> set[str]:
    return {
        f"{path}.x_layers.{number}.{part}"
        for number in numbers
        for part in ATTENTION + FEED_FORWARD
    }


VISION = "vision_encoder.{}_encoder.transformers_stack"
AUXILIARY, TEXT = "auxiliary_encoder.transformers_stack", "text_encoder.unimodal_transformer"
CLIP_POOLER = {f"contrastive_vision_pooler.{part}" for part in POOLING}


@pytest.mark.parametrize(
    ("towers", "layers", "expected"),
    [
        (
            None,
            None,
            stack(VISION.format("spatial"), 0, 1)
            | stack(VISION.format("temporal"), 0)
            | stack(AUXILIARY, 0, 1)
            | stack(TEXT, 0, 1)
            | CLIP_POOLER,
        ),
        (
            ("video", "text"),
            1,
            stack(VISION.format("spatial"), 1)
            | stack(VISION.format("temporal"), 0)
            | stack(AUXILIARY, 1)
            | stack(TEXT, 1)
            | CLIP_POOLER,
        ),
        ("text", None, stack(TEXT, 0, 1)),
        (["text"], 1, stack(TEXT, 1)),
        (
            ["video"],
            1,
            stack(VISION.format("spatial"), 1)
            | stack(VISION.format("temporal"), 0)
            | stack(AUXILIARY, 1)
            | CLIP_POOLER,
        ),
    ],
)
def test_which_layers_of_a_video_text_model(
    towers: Any, layers: int | None, expected: set[str], converted: Converted
) -> None:
    model = vp.load_model(converted("clip"))
    assert vp.add_adapters(model, 2, towers=towers, layers=layers) is model
    assert adapted(model) == expected


def test_which_layers_of_other_models(converted: Converted) -> None:
    encoder = vp.add_adapters(vp.load_model(converted("encoder")), 2, layers=1)
    spatial, temporal = (f"{each}_encoder.transformers_stack" for each in ("spatial", "temporal"))
    assert adapted(encoder) == stack(spatial, 1) | stack(temporal, 1)
    classifier = vp.add_adapters(vp.load_model(converted("classifier")), 2, layers=1)
    assert adapted(classifier) == (
        stack(f"encoder.{spatial}", 1)
        | stack(f"encoder.{temporal}", 1)
        | {f"atten_pooler.{part}" for part in POOLING}
    )
    text = vp.add_adapters(vp.load_model(converted("text")), 2, towers=["text"])
    assert adapted(text) == stack("unimodal_transformer", 0, 1)


def test_how_they_start(converted: Converted) -> None:
    first = trainable(vp.add_adapters(vp.load_model(converted("clip")), 2, seed=1))
    mx.random.seed(99)
    again = trainable(vp.add_adapters(vp.load_model(converted("clip")), 2, seed=1))
    other = trainable(vp.add_adapters(vp.load_model(converted("clip")), 2, seed=2))
    drawn = []
    for name, array in first.items():
        if name.endswith("lora_b"):
            assert not mx.any(array).item() and array.shape[1] == 2
            continue
        assert mx.array_equal(array, again[name]).item()
        assert not mx.any(array == other[name]).item()
        bound = array.shape[1] ** -0.5
        assert mx.abs(array).max().item() <= bound
        drawn.append(np.array(array).ravel() / bound)
    drawn = np.concatenate(drawn)
    assert len(np.unique(drawn)) > 0.99 * len(drawn)  # No two layers start alike.
    assert abs(drawn.mean()) < 0.05 and abs(drawn.std() - 3**-0.5) < 0.03


# Training.


def test_they_alone_are_trained(converted: Converted) -> None:
    model = with_random_adapters(vp.load_model(converted("clip_mild")))
    kept = parameters(model)
    given = {key: value for key, value in arguments("clip_mild").items() if "return" not in key}

    def loss(model: nn.Module) -> mx.array:
        video, text, _ = model(**given)
        return (video * mx.arange(24)).sum() + (text * mx.arange(24)).sum()

    value, gradients = nn.value_and_grad(model, loss)(model)
    gradients = dict(tree_flatten(gradients))
    assert gradients.keys() == trainable(model).keys()
    rate = 1e-4
    expected = rate * sum(float((each * each).sum()) for each in gradients.values())
    model.update(
        tree_map_with_path(
            lambda path, each: each - rate * gradients[path], model.trainable_parameters()
        )
    )
    assert value.item() - loss(model).item() == pytest.approx(expected, rel=0.05)
    for name, array in parameters(model).items():
        is_adapter = name.rpartition(".")[2].startswith("lora_")
        assert np.array_equal(array, kept[name]) != is_adapter, name


@pytest.mark.parametrize("name", ["encoder_mild", "classifier_mild", "text"])
def test_each_adapter_has_a_gradient(name: str, converted: Converted) -> None:
    model = with_random_adapters(vp.load_model(converted(name)))
    given = arguments(name)
    given.pop("return_intermediate", None)

    def loss(model: nn.Module) -> mx.array:
        result = model(**given) if name != "text" else model(given["inputs"], given["paddings"])
        result = result[0] if isinstance(result, tuple) else result
        return (result * mx.arange(result.shape[-1])).sum()

    _, gradients = nn.value_and_grad(model, loss)(model)
    for path, gradient in tree_flatten(gradients):
        if path.endswith("key.lora_b"):
            continue  # May be nothing but rounding: a shift of all logits.
        assert mx.abs(gradient).max().item() > 1e-6, path


def test_only_models_have_adapters_to_fuse() -> None:
    with pytest.raises(ValueError, match="this Linear has no adapters"):
        vp.fuse_adapters(nn.Linear(4, 4))
