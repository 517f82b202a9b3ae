"""Adapters on a quantized model: what they compute, their gradients, and what fusing gives."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from adapting import trainable, with_random_adapters
from mlx import nn
from mlx.utils import tree_flatten
from quantizing import PATCHES, directory, inputs, outputs

import videoprism_mlx as vp
from videoprism_mlx.errors import CheckpointError
from videoprism_mlx.runtime import device
from videoprism_mlx.weights.directory import read_config
from videoprism_mlx.weights.fuse import fuse_to_directory, load_fused
from videoprism_mlx.weights.lora import LoRAQuantizedLinear
from videoprism_mlx.weights.quantize.files import dequantize_to_directory, quantize_to_directory
from videoprism_mlx.weights.quantize.layers import packings_of

CLOSE = dict(rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized model."""
    folder = tmp_path_factory.mktemp("base")
    quantize_to_directory(directory(folder), folder / "q", 4)
    return folder / "q"


@pytest.fixture(scope="module")
def dense(base: Path) -> Path:
    """The same, dequantized."""
    dequantize_to_directory(base, base.parent / "d")
    return base.parent / "d"


@pytest.mark.parametrize("dequantizes", [True, False])
def test_gradients_are_those_on_dequantized_weights(
    dequantizes: bool, base: Path, dense: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = device.backend()._replace(dequantizes=dequantizes)
    monkeypatch.setattr(device, "backend", lambda: backend)
    gradients = []
    for place in (base, dense):
        model = with_random_adapters(vp.load_model(place))
        assert {name.rpartition(".")[2] for name in trainable(model)} == {"lora_a", "lora_b"}

        def loss(model: nn.Module) -> mx.array:
            video, text, _ = model(**inputs())
            return (video @ text.T).sum()

        _, found = nn.value_and_grad(model, loss)(model)
        gradients.append({name: np.array(array) for name, array in tree_flatten(found)})
    ours, theirs = gradients
    assert ours.keys() == theirs.keys() and len(ours) > 40
    for name, array in theirs.items():
        assert np.abs(array).max() > 0 or "pooling_attention.key" in name, name
        np.testing.assert_allclose(
            ours[name], array, rtol=0, atol=2e-4 * max(np.abs(array).max(), 1e-3), err_msg=name
        )


def test_saved_loaded_and_fused(base: Path, dense: Path, tmp_path: Path) -> None:
    model = with_random_adapters(vp.load_model(base), rank=2, towers=["video"], alpha=3)
    assert any(isinstance(each, LoRAQuantizedLinear) for each in model.modules())
    vp.save_adapters(model, tmp_path / "a", base)
    expected = outputs(model)
    loaded = vp.load_adapters(vp.load_model(base), tmp_path / "a")
    np.testing.assert_equal(outputs(loaded), expected)
    with pytest.raises(CheckpointError, match="were trained on"):
        vp.load_adapters(vp.load_model(dense), tmp_path / "a")

    vp.fuse_adapters(loaded)
    for name, array in outputs(loaded).items():
        np.testing.assert_allclose(array, expected[name], **CLOSE)
    packings = packings_of(loaded)
    adapted = {name.rpartition(".")[0] for name in trainable(model)}
    assert {path for path, each in packings.items() if each is None} == {*adapted, PATCHES}
    assert not {mx.uint32, mx.uint8} & {array.dtype for array in trainable(loaded).values()}

    fuse_to_directory(None, tmp_path / "a", tmp_path / "fused")
    stored = vp.load_model(tmp_path / "fused")
    np.testing.assert_equal(outputs(stored), outputs(loaded))
    assert packings_of(stored) == packings and "quantization" in read_config(tmp_path / "fused")
    fused, _ = load_fused(base, tmp_path / "a")
    np.testing.assert_equal(outputs(fused), outputs(loaded))


def test_a_model_with_adapters_is_fused_first(dense: Path, base: Path) -> None:
    for change, place in ((vp.quantize, dense), (vp.dequantize, base), (vp.quantize, base)):
        model = vp.add_adapters(vp.load_model(place), 2)
        with pytest.raises(vp.VideoPrismError, match="has adapters; call fuse_adapters first"):
            change(model)


def test_a_rank_beyond_the_width(base: Path) -> None:
    with pytest.raises(vp.VideoPrismError, match="rank is 65; expected 64 at most, the width of"):
        vp.add_adapters(vp.load_model(base), 65)
