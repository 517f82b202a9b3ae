"""Quantized models on disk: nothing is lost on the way, and what does not fit is one clear line."""

import json
import shutil
from collections.abc import Callable
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
    checkpoint,
    directory,
    outputs,
    parameters,
    same_parameters,
)

import videoprism_mlx as vp
from videoprism_mlx.errors import CheckpointError
from videoprism_mlx.files.checksum import with_checksum
from videoprism_mlx.weights.directory import CONFIG_FILE, WEIGHTS_FILE, read_config, verify_weights
from videoprism_mlx.weights.loading import model_outline
from videoprism_mlx.weights.quantize.files import dequantize_to_directory, quantize_to_directory
from videoprism_mlx.weights.quantize.layers import packings_of
from videoprism_mlx.weights.quantize.settings import Packing


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directory(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def saved(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in 4 bits, whose tokens have 8."""
    output = tmp_path_factory.mktemp("saved") / "q"
    quantize_to_directory(dense, output, 4, layers={TOKENS: 8})
    return output


@pytest.mark.parametrize(("mode", "bits", "group_size"), SETTINGS)
def test_saved_and_loaded(
    mode: str, bits: int, group_size: int, dense: Path, tmp_path: Path
) -> None:
    model = vp.quantize(vp.load_model(dense), bits, group_size, mode)
    vp.save_model(model, tmp_path / "q")
    assert read_config(tmp_path / "q")["quantization"] == {
        "group_size": group_size, "bits": bits, "mode": mode, PATCHES: False
    }  # fmt: skip
    loaded = vp.load_model(tmp_path / "q")
    assert same_parameters(loaded, model) and packings_of(loaded) == packings_of(model)
    np.testing.assert_equal(outputs(loaded), outputs(model))
    assert verify_weights(tmp_path / "q")["compared"]
    vp.save_model(loaded, tmp_path / "again")
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        assert (tmp_path / "q" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_what_mlx_has_quantized(dense: Path, tmp_path: Path) -> None:
    model = vp.load_model(dense)
    for start, group_size, bits in (("text_encoder", 64, 4), ("auxiliary_encoder", 32, 8)):
        part = model[start]
        nn.quantize(part, group_size, bits)
    vp.save_model(model, tmp_path / "q")
    loaded = vp.load_model(tmp_path / "q")
    assert same_parameters(loaded, model)
    assert set(packings_of(loaded).values()) == {None, Packing(64, 4), Packing(32, 8)}
    encoder = vp.load_video_encoder(tmp_path / "q")  # Of which no layer is quantized.
    vp.save_model(encoder, tmp_path / "encoder")
    assert "quantization" not in read_config(tmp_path / "encoder")
    vp.load_model(tmp_path / "encoder")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision(dtype: str, dense: Path, tmp_path: Path) -> None:
    written = quantize_to_directory(dense, tmp_path / "q", 8, dtype=dtype)
    loaded = vp.load_model(tmp_path / "q")
    assert str(loaded.dtype).endswith(dtype)
    assert {str(array.dtype)[9:] for array in parameters(loaded).values()} == {dtype, "uint32"}
    assert written.bytes == sum(array.nbytes for array in parameters(loaded).values())
    assert vp.load_model(tmp_path / "q", dtype="float32").dtype == mx.float32


def test_it_is_known_before_the_weights_are_read(saved: Path, tmp_path: Path) -> None:
    model, _ = model_outline(saved)
    assert packings_of(model)[TOKENS] == Packing(64, 8)
    shutil.copy(saved / CONFIG_FILE, tmp_path / CONFIG_FILE)
    model, _ = model_outline(tmp_path)  # As of a model on the Hub.
    assert packings_of(model) == packings_of(vp.load_model(saved))


def test_there_and_back_to_flax(dense: Path, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is quantized, .* `videoprism-mlx convert .* --deq"):
        vp.convert.mlx_to_flax(saved, tmp_path / "flax.npz")
    assert not (tmp_path / "flax.npz").exists()
    dequantize_to_directory(saved, tmp_path / "d")
    dequantized = vp.load_model(tmp_path / "d")
    assert same_parameters(dequantized, vp.dequantize(vp.load_model(saved)))
    source = read_config(tmp_path / "d")["source"]
    assert (source["dequantized_from"], source["quantized_from"]) == (str(saved), str(dense))
    vp.convert.mlx_to_flax(tmp_path / "d", tmp_path / "flax.npz")
    vp.convert.flax_to_mlx(tmp_path / "flax.npz", tmp_path / "back", CONFIG)
    back = vp.load_model(tmp_path / "back")
    assert parameters(back).keys() == parameters(dequantized).keys()
    assert same_parameters(back, dequantized)
    with np.load(tmp_path / "flax.npz") as ours, np.load(dense.parent / "flax.npz") as original:
        norms = [key for key in original if key.endswith(("/scale", "/bias", "/b"))]
        assert len(norms) > 50 and sorted(ours) == sorted(original)
        for key in norms:  # What is not quantized is as it was, to the last bit.
            np.testing.assert_array_equal(ours[key].view(np.uint32), original[key].view(np.uint32))


def test_from_a_checkpoint(dense: Path, tmp_path: Path) -> None:
    flax = checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    written = quantize_to_directory(
        flax, tmp_path / "q", 8, config=tmp_path / "config.json", overwrite=True
    )
    quantize_to_directory(dense, tmp_path / "other", 8)
    assert same_parameters(vp.load_model(tmp_path / "q"), vp.load_model(tmp_path / "other"))
    count = sum(array.size for array in parameters(vp.load_model(dense)).values())
    assert written.parameters == count and 8 < written.bits < 12
    assert read_config(tmp_path / "q")["source"]["file"] == "flax.npz"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "flax.npz", "other", "q"
    ]  # fmt: skip


def test_what_lies_beside_the_weights_comes_along(tmp_path: Path) -> None:
    written = quantize_to_directory("videoprism_lvt_demo_tiny", tmp_path / "q", 8, 32)
    assert sorted(path.name for path in written.output.iterdir()) == [
        "config.json", "model.safetensors", "sentencepiece.model", "words.txt"
    ]  # fmt: skip
    quantize_to_directory("videoprism_lvt_demo_tiny", tmp_path / "q", 4, 32, overwrite=True)
    assert read_config(tmp_path / "q")["quantization"]["bits"] == 4
    _, processor = vp.load(tmp_path / "q")
    assert processor.load_tokenizer() is not None and processor.known_words is not None


# What does not fit.


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    described = read_config(folder)
    described.pop("crc32")
    change(described)
    text = json.dumps(with_checksum(described))
    (folder / CONFIG_FILE).write_text(text)


def rewritten(folder: Path, change: Callable[[dict[str, mx.array]], object]) -> None:
    arrays = dict(mx.load(str(folder / WEIGHTS_FILE)))
    mx.eval(list(arrays.values()))
    change(arrays)
    (folder / WEIGHTS_FILE).unlink()
    mx.save_safetensors(str(folder / WEIGHTS_FILE), arrays)
    edited(folder, lambda described: described.pop("weights_sha256"))


def setting(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edited(folder, lambda found: found["quantization"].update(values))


def without(ending: str) -> Callable[[Path], None]:
    def remove(arrays: dict[str, mx.array]) -> None:
        for name in [name for name in arrays if name.endswith(ending)]:
            del arrays[name]

    return lambda folder: rewritten(folder, remove)


def with_dense_weights(folder: Path) -> None:
    arrays = parameters(vp.get_model(CONFIG))
    mx.save_safetensors(str(folder / WEIGHTS_FILE), arrays)
    edited(folder, lambda described: described.pop("weights_sha256"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without(".scales"), 'has no scales for auxiliary_encoder.transformers_stack.x_layers.0.ff_'
         'layer.ffn_layer1.linear: "quantization" in config.json says that 41 layers are quantized,'
         ' and 0 are'),
        (without(f"{TOKENS}.scales"), f"has no scales for {TOKENS}: "),
        (without(f"{TOKENS}.biases"), f"missing: {TOKENS}.biases, of shape (64, 1)"),
        (with_dense_weights, 'if the weights are not quantized, remove "quantization"'),
        (lambda folder: edited(folder, lambda found: found.pop("quantization")),
         "holds quantized weights, such as auxiliary_encoder.transformers_stack.x_layers.0.ff_la"
         'yer.ffn_layer1.linear, and config.json beside it has no "quantization"'),
        (setting(group_size=128), '"quantization": a group size of 128 does not divide 64, the '
         "width of "),
        (setting(group_size=48), '"quantization": group_size is 48; expected one of 32, 64, 128'),
        (setting(bits=7), '"quantization": bits is 7; expected one of 2, 3, 4, 5, 6, 8'),
        (setting(bits="4"), "bits is '4'; expected"),
        (setting(bits=8), "misshapen: "),
        (setting(group_size=32), "misshapen: "),
        (setting(mode="int8"), "mode is 'int8'; expected one of affine, mxfp4, mxfp8, nvfp4"),
        (setting(mode="mxfp4", group_size=32), ".scales is of type F32; expected U8"),
        (setting(text_encoder=False), "'text_encoder' names no layer of this model that could be"),
        (setting(**{PATCHES: True}), "does not divide 108, the width of vision_encoder.patch_proj"),
        (setting(**{TOKENS: {"bits": 8}}), f'{TOKENS}: "group_size" is missing'),
        (setting(**{TOKENS: 8}), f"{TOKENS} is 8; expected false or a mapping"),
        (setting(**{TOKENS: {"bits": 8, "group_size": 64, "x": 1}}), "_emb has no setting 'x'"),
        (setting(**{TOKENS: False}), "token_emb.weight is of type U32; expected one of F32, BF16"),
        (lambda folder: edited(folder, lambda found: found.update(quantization=8)),
         '"quantization" is 8; expected a mapping of settings'),
        (lambda folder: edited(folder, lambda found: found.update(quantization={})),
         '"quantization": "group_size" is missing'),
        (lambda folder: rewritten(folder, lambda arrays: arrays.update(
            {f"{TOKENS}.scales": arrays[f"{TOKENS}.scales"] * float("nan")})),
         "token_emb.scales holds NaN or infinite values"),
    ],
)  # fmt: skip
def test_what_does_not_fit(
    spoil: Callable[[Path], None], message: str, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path / "q")
    spoil(tmp_path / "q")
    with pytest.raises(CheckpointError) as error:
        vp.load_model(tmp_path / "q")
    said = str(error.value)
    assert message in said and str(tmp_path / "q") in said
    assert "\n" not in said and len(said) < 500


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_flipped_bit_is_noticed(name: str, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "q")
    before = vp.load_model(tmp_path / "q")
    content = (saved / name).read_bytes()
    random = np.random.RandomState(0)
    for place in random.choice(len(content), 60, replace=False):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << random.randint(8)
        (tmp_path / "q" / name).write_bytes(spoilt)
        try:
            loaded = vp.load_model(tmp_path / "q")
        except CheckpointError:
            continue
        assert same_parameters(loaded, before) and packings_of(loaded) == packings_of(before)


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8"])
def test_a_scale_that_is_nan(mode: str, dense: Path, tmp_path: Path) -> None:
    quantize_to_directory(dense, tmp_path / "q", mode=mode)

    def spoil(arrays: dict[str, mx.array]) -> None:
        arrays[f"{TOKENS}.scales"] = mx.full((64, 2), 255, mx.uint8)

    rewritten(tmp_path / "q", spoil)
    with pytest.raises(CheckpointError, match="scales holds NaN"):
        vp.load_model(tmp_path / "q")


def test_outputs_are_checked_first(dense: Path, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other").write_text("")
    for output in (tmp_path / "full", tmp_path / "file"):
        for write in (quantize_to_directory, dequantize_to_directory):
            with pytest.raises(vp.VideoPrismError):
                write(saved, output)
    with pytest.raises(vp.VideoPrismError, match="is not quantized, so there is nothing"):
        dequantize_to_directory(dense, tmp_path / "d")
    with pytest.raises(vp.VideoPrismError, match="is quantized already"):
        quantize_to_directory(saved, tmp_path / "d")
    with pytest.raises(vp.VideoPrismError, match=r"config \(--config\) has no effect on "):
        quantize_to_directory(dense, tmp_path / "d", config=CONFIG)
    with pytest.raises(vp.VideoPrismError, match="there is no checkpoint"):
        quantize_to_directory(tmp_path / "no.npz", tmp_path / "d")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_a_classifier(tmp_path: Path) -> None:
    dense = directory(tmp_path, CLASSIFIER)
    vp.save_model(vp.quantize(vp.load_model(dense), 8), tmp_path / "q")
    video = np.random.RandomState(0).uniform(size=(1, 4, 18, 18, 3)).astype(np.float32)
    ours, theirs = (np.array(vp.load_model(tmp_path / name)(video)[0]) for name in ("q", "dense"))
    np.testing.assert_allclose(ours, theirs, atol=0.03 * np.abs(theirs).max())
    assert np.abs(ours - theirs).max() > 0
