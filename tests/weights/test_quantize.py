"""Quantized models in memory: what they compute, and which layers are quantized."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from quantizing import (
    CLASSIFIER,
    CONFIG,
    PATCHES,
    SETTINGS,
    TOKENS,
    directory,
    inputs,
    outputs,
    parameters,
    same_parameters,
)

import videoprism_mlx as vp
from videoprism_mlx.layers import AttenTokenPoolingLayer, DotProductAttention, QuantizedLinear
from videoprism_mlx.runtime import device
from videoprism_mlx.weights.quantize.layers import packings_of
from videoprism_mlx.weights.quantize.settings import Packing, layers_in


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directory(tmp_path_factory.mktemp("dense"))


def rounded_by_hand(model: nn.Module, mode: str, bits: int, group_size: int) -> nn.Module:
    """The model with the same weights quantized and dequantized, and no quantized layer."""
    settings = dict(group_size=group_size, bits=bits, mode=mode)
    rounded = {}
    for name, array in parameters(model).items():
        is_layer = name.endswith(".weight") and not name.endswith("pos_emb.weight")
        if is_layer and array.ndim == 2 and array.shape[1] % group_size == 0:
            array = mx.dequantize(*mx.quantize(array, **settings), **settings).astype(mx.float32)
        rounded[name] = array
    model.load_weights(list(rounded.items()))
    return model


@pytest.mark.parametrize("dequantizes", [True, False])
@pytest.mark.parametrize(("mode", "bits", "group_size"), SETTINGS)
def test_it_computes_what_the_rounded_weights_do(
    mode: str,
    bits: int,
    group_size: int,
    dequantizes: bool,
    dense: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = outputs(rounded_by_hand(vp.load_model(dense), mode, bits, group_size))
    model = vp.load_model(dense)
    assert vp.quantize(model, bits, group_size, mode) is model
    packings = packings_of(model)
    assert packings.pop(PATCHES) is None
    assert set(packings.values()) == {Packing(group_size, bits, mode)}
    # On a Mac's GPU, MLX multiplies by the packed weights.
    backend = device.backend()._replace(dequantizes=dequantizes)
    monkeypatch.setattr(device, "backend", lambda: backend)
    for name, array in outputs(model).items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=2e-5 * scale, err_msg=name)


def test_the_layers_by_name_are_those_by_kind() -> None:
    for config in (CONFIG, CLASSIFIER, CONFIG | dict(num_auxiliary_layers=0)):
        model = vp.get_model(config)
        shapes = {name: array.shape for name, array in parameters(model).items()}
        kinds = {path for path, each in model.named_modules() if hasattr(each, "to_quantized")}
        assert layers_in(shapes).keys() == kinds


@pytest.mark.parametrize("bits", [4, 8])
def test_the_shortcut_of_the_pooler(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mx.random.seed(4)
    layer = AttenTokenPoolingLayer(64, 128, 4)
    attention = layer.pooling_attention
    for linear in (attention.query, attention.key, attention.value, attention.post):
        linear.bias = mx.random.normal(linear.bias.shape)
    attention.per_dim_scale.per_dim_scale = mx.random.normal((32,))
    nn.quantize(layer, group_size=32, bits=bits)
    tokens = mx.random.normal((3, 50, 64))
    with device.plain():
        expected = np.array(layer(tokens))
    calls = []
    real = DotProductAttention.pool

    def watched(self: DotProductAttention, *arrays: mx.array) -> mx.array:
        calls.append(len(arrays))
        return real(self, *arrays)

    monkeypatch.setattr(DotProductAttention, "pool", watched)
    np.testing.assert_allclose(np.array(layer(tokens)), expected, atol=2e-5)
    assert calls == [2]


@pytest.mark.parametrize("parts", [1, 3])
def test_a_sum_in_parts(parts: int) -> None:
    mx.random.seed(1)
    linear = vp.layers.Linear(96, 20, parts=parts)
    linear.bias = mx.random.normal((20,))
    quantized = linear.to_quantized(32, 8)
    assert isinstance(quantized, QuantizedLinear) and quantized.parts == parts
    assert quantized.dims == linear.dims == (20, 96)
    x = mx.random.normal((2, 5, 96))
    weight = np.array(quantized.dense_weight(mx.float32), np.float64)
    expected = np.array(x, np.float64) @ weight.T + np.array(linear.bias, np.float64)
    np.testing.assert_allclose(np.array(quantized(x)), expected, atol=1e-5)
    assert linear.to_quantized(64) is linear


def test_the_usual_group_of_a_mode() -> None:
    layer = vp.layers.Linear(96, 32)  # 64 does not divide it, which is the group of affine.
    assert layer.to_quantized() is layer
    assert layer.to_quantized(mode="mxfp8").group_size == 32
    assert layer.to_quantized(mode="nvfp4").bits == 4
    with pytest.raises(vp.VideoPrismError, match="quantize_input"):
        layer.to_quantized(mode="nvfp4", quantize_input=True)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("mode", ["affine", "mxfp4", "nvfp4"])
def test_half_precision_leaves_packed_weights(mode: str, dtype: str, dense: Path) -> None:
    model = vp.quantize(vp.load_model(dense), mode=mode)
    expected, packed = outputs(model), parameters(model)
    model.set_dtype(getattr(mx, dtype))
    for name, array in parameters(model).items():
        whole = packed[name].dtype in (mx.uint32, mx.uint8)
        assert array.dtype == (packed[name].dtype if whole else getattr(mx, dtype)), name
    video, text, _ = model(**inputs())
    assert video.dtype == text.dtype == model.dtype == getattr(mx, dtype)
    for name in ("video", "text"):
        cosines = (outputs(model)[name] * expected[name]).sum(-1)
        assert cosines.min() > 0.998, name


def test_dequantized_it_is_an_ordinary_model(dense: Path) -> None:
    model = vp.quantize(vp.load_model(dense), 4, 32)
    expected = outputs(model)
    assert vp.dequantize(model) is model
    assert not any(packings_of(model).values()) and model.directory is None
    assert same_parameters(model, rounded_by_hand(vp.load_model(dense), "affine", 4, 32))
    found = outputs(model)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=2e-5 * np.abs(array).max())
    with pytest.raises(vp.VideoPrismError, match="is not quantized"):
        vp.dequantize(model)


def test_what_is_said_of_some_layers(dense: Path) -> None:
    said: dict[str, Any] = {
        "text_encoder": 8,
        TOKENS: False,
        "contrastive_vision_pooler.pooling_attention.post": {"bits": 6, "group_size": 32},
    }
    packings = packings_of(vp.quantize(vp.load_model(dense), layers=said))
    assert packings[PATCHES] is None and packings[TOKENS] is None
    text = "text_encoder.unimodal_transformer.x_layers.0.self_attention.query"
    assert packings[text] == Packing(64, 8)
    pooler = "contrastive_vision_pooler.pooling_attention"
    assert packings[f"{pooler}.post"] == Packing(32, 6)
    assert packings[f"{pooler}.key"] == Packing(64, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(bits=7), "bits is 7; expected one of 2, 3, 4, 5, 6, 8 in the mode affine"),
        (dict(bits=True), "bits is True; expected one of"),
        (dict(group_size=48), "group_size is 48; expected one of 32, 64, 128"),
        (dict(group_size=128), "a group size of 128 does not divide 64, the width of "),
        (dict(group_size=128), "; 32 and 64 would"),
        (dict(mode="mxfp"), "mode is 'mxfp'; expected one of affine, mxfp4, mxfp8, nvfp4"),
        (dict(mode="mxfp4", bits=8), "bits is 8; expected 4 in the mode mxfp4"),
        (dict(layers={"text": 8}), "the model has no layer text"),
        (dict(layers={TOKENS: "8"}), "token_emb is '8'; expected bits, a mapping of settings"),
        (dict(layers={TOKENS: {"bit": 8}}), "token_emb has no setting 'bit'; expected some of"),
        (dict(layers={PATCHES: 8}), "a group size of 64 does not divide 108, the width of vision_"),
        (dict(layers={"vision_encoder": False, "text_encoder": False,
                      "contrastive_vision_pooler": False, "auxiliary_encoder": False}),
         "has no layer to quantize"),
        (dict(budget_bits=5), "budget_bits and calibration go together"),
        (dict(budget_bits=3, calibration=[]), "budget_bits is 3; expected 4 "),
        (dict(budget_bits=5, calibration=[]), "calibration is empty; expected a list"),
        (dict(budget_bits=5, calibration="a.mp4"), "calibration is 'a.mp4'; expected a list"),
        (dict(budget_bits=5, calibration=[1], mode="mxfp4"), "budget_bits is for the mode affine"),
    ],
)  # fmt: skip
def test_what_cannot_be(arguments: dict[str, Any], message: str, dense: Path) -> None:
    model = vp.load_model(dense)
    with pytest.raises(vp.VideoPrismError) as error:
        vp.quantize(model, **arguments)
    assert message in str(error.value)
    assert not any(packings_of(model).values())


def test_it_is_quantized_once(dense: Path) -> None:
    model = vp.quantize(vp.load_model(dense), 8)
    with pytest.raises(vp.VideoPrismError, match="is quantized already"):
        vp.quantize(model, 4)
    with pytest.raises(vp.VideoPrismError, match="this is a Linear; expected a model"):
        vp.quantize(nn.Linear(64, 64))  # type: ignore[arg-type]
