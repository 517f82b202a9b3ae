"""Adapters: what they add, what is trained, and that they are lost or mixed up nowhere."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import media
import mlx.core as mx
import numpy as np
import pytest
from conftest import MODELS, REFERENCE
from mlx import nn
from mlx.utils import tree_flatten, tree_map_with_path

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.convert.verify import named_outputs, saved_inputs
from videoprism_mlx.errors import CheckpointError
from videoprism_mlx.features.export import read_features, read_record
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.layers import Linear
from videoprism_mlx.runtime import device
from videoprism_mlx.weights.adapters import ADAPTER_CONFIG_FILE, ADAPTERS_FILE, LoRALinear
from videoprism_mlx.weights.directory import WEIGHTS_FILE, read_config

Converted = Callable[[str], Path]

ATTENTION = [f"self_attention.{name}" for name in ("query", "key", "value", "post")]
FEED_FORWARD = [f"ff_layer.ffn_layer{number}.linear" for number in (1, 2)]
POOLING = [f"pooling_attention.{name}" for name in ("query", "key", "value", "post")]


def arguments(name: str) -> dict[str, Any]:
    """What a reference model is called with."""
    case = "plain" if (REFERENCE / name / "plain.npz").exists() else "padded_frames"
    with np.load(REFERENCE / name / f"{case}.npz") as saved:
        inputs = saved_inputs(saved)
    return {key: value.item() if value.ndim == 0 else value for key, value in inputs.items()}


def outputs(model: nn.Module, name: str) -> dict[str, np.ndarray]:
    """Everything that the model returns for them."""
    found = named_outputs(model(**arguments(name)))
    return {key: np.array(array.astype(mx.float32)) for key, array in found.items()}


def parameters(model: nn.Module) -> dict[str, np.ndarray]:
    flat = tree_flatten(model.parameters())
    return {name: np.array(array.astype(mx.float32)) for name, array in flat}


def trainable(model: nn.Module) -> dict[str, mx.array]:
    return dict(tree_flatten(model.trainable_parameters()))


def with_random_adapters(model: nn.Module, rank: int = 3, **options: Any) -> nn.Module:
    """A model with adapters that change it."""
    vp.add_adapters(model, rank, **options)
    random = np.random.RandomState(5)
    flat = trainable(model)
    changed = {name: random.randn(*flat[name].shape) * 0.1 for name in sorted(flat)}
    model.update(
        tree_map_with_path(
            lambda path, _: mx.array(changed[path].astype(np.float32)), model.trainable_parameters()
        )
    )
    return model


# What they compute.


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


@pytest.mark.parametrize("name", MODELS)
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


@pytest.mark.parametrize("name", MODELS)
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


# On disk.


def test_saved_and_loaded(converted: Converted, tmp_path: Path) -> None:
    model = with_random_adapters(
        vp.load_model(converted("clip")), rank=2, alpha=6, towers=["video"], layers=1
    )
    vp.save_adapters(model, tmp_path / "a", "some/model")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        ADAPTER_CONFIG_FILE,
        ADAPTERS_FILE,
    ]
    checksum = sha256(converted("clip") / WEIGHTS_FILE)
    assert json.loads((tmp_path / "a" / ADAPTER_CONFIG_FILE).read_text()) == {
        "rank": 2, "alpha": 6, "towers": ["video"], "layers": 1,
        "base": {"name": "some/model", "weights": checksum}, "version": "0.1.0",
    }  # fmt: skip
    stored = dict(mx.load(str(tmp_path / "a" / ADAPTERS_FILE)))
    assert stored.keys() == trainable(model).keys()

    loaded = vp.load_adapters(vp.load_model(converted("clip")), tmp_path / "a")
    assert trainable(loaded).keys() == stored.keys()
    np.testing.assert_equal(parameters(loaded), parameters(model))
    np.testing.assert_equal(outputs(loaded, "clip"), outputs(model, "clip"))
    vp.save_adapters(loaded, tmp_path / "b", "some/model")
    for name in (ADAPTERS_FILE, ADAPTER_CONFIG_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_saved_beside_other_things(converted: Converted, tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / ADAPTERS_FILE).write_text("what a killed run left")
    model = vp.add_adapters(vp.load_model(converted("text")), 2)
    vp.save_adapters(model, tmp_path, converted("text"))
    vp.load_adapters(vp.load_model(converted("text")), tmp_path)
    before = (tmp_path / ADAPTERS_FILE).read_bytes()
    with pytest.raises(FileExistsError, match="already exists"):
        vp.save_adapters(with_random_adapters(vp.load_model(converted("text"))), tmp_path, "x")
    assert (tmp_path / ADAPTERS_FILE).read_bytes() == before


def test_without_a_directory_of_the_base(converted: Converted, tmp_path: Path) -> None:
    config = read_config(converted("encoder"))
    model = vp.add_adapters(vp.get_model(config), 2)
    vp.save_adapters(model, tmp_path / "a", "a name")
    assert json.loads((tmp_path / "a" / ADAPTER_CONFIG_FILE).read_text())["base"]["weights"] is None
    vp.load_adapters(vp.load_model(converted("encoder")), tmp_path / "a")
    vp.save_adapters(model, tmp_path / "b", converted("encoder"))
    base = json.loads((tmp_path / "b" / ADAPTER_CONFIG_FILE).read_text())["base"]
    assert base["weights"] == sha256(converted("encoder") / WEIGHTS_FILE)


def test_of_other_weights(converted: Converted, tmp_path: Path) -> None:
    model = vp.add_adapters(vp.load_model(converted("encoder")), 2)
    vp.save_adapters(model, tmp_path / "a", "the right one")
    other = vp.load_model(converted("encoder"))
    other.spatial_ln.bias = other.spatial_ln.bias + 1
    vp.save_model(other, tmp_path / "other")
    with pytest.raises(ValueError, match="trained on the right one, whose weights have") as error:
        vp.load_adapters(vp.load_model(tmp_path / "other"), tmp_path / "a")
    for directory in (converted("encoder"), tmp_path / "other"):
        assert sha256(directory / WEIGHTS_FILE) in str(error.value)
    fused = vp.fuse_adapters(vp.load_adapters(vp.load_model(converted("encoder")), tmp_path / "a"))
    vp.load_adapters(fused, tmp_path / "a")  # Whose weights are in no file.


def edited(directory: Path, **changes: Any) -> None:
    path = directory / ADAPTER_CONFIG_FILE
    described = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in described.items() if v != "left out"}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / ADAPTER_CONFIG_FILE).unlink(), "holds no adapters: it has no adapter_conf"),
        (lambda d: (d / ADAPTERS_FILE).unlink(), "has no adapters.safetensors"),
        (lambda d: (d / ADAPTER_CONFIG_FILE).write_text("{"), "does not describe adapters"),
        (lambda d: (d / ADAPTER_CONFIG_FILE).write_text("[]"), "does not describe adapters"),
        (lambda d: (d / ADAPTERS_FILE).write_text("{"), "damaged or not a safetensors file"),
        (lambda d: edited(d, rank="left out"), "it lacks 'rank'"),
        (lambda d: edited(d, base="left out"), "it lacks 'base'"),
        (lambda d: edited(d, base={}), "it lacks 'name'"),
        (lambda d: edited(d, rank=0), "rank is 0; expected 1 or more"),
        (lambda d: edited(d, rank="2"), "does not describe adapters"),
        (lambda d: edited(d, alpha=-1), "alpha is -1; expected a number above 0"),
        (lambda d: edited(d, towers=["audio"]), "towers are audio; a FactorizedVideoCLIP has"),
        (lambda d: edited(d, rank=3), "lora_a has shape (2, 24), expected (3, 24)"),
        (lambda d: edited(d, layers=1), "not of this model: auxiliary_encoder"),
        (lambda d: edited(d, towers=["text"]), "not of this model: auxiliary_encoder"),
    ],
)
def test_spoilt_directories(
    spoil: Callable[[Path], Any], message: str, converted: Converted, tmp_path: Path
) -> None:
    model = with_random_adapters(vp.load_model(converted("clip")), rank=2)
    vp.save_adapters(model, tmp_path / "a", "base")
    spoil(tmp_path / "a")
    loaded = vp.load_model(converted("clip"))
    names = list(parameters(loaded))
    with pytest.raises(CheckpointError if "towers are" not in message else ValueError) as error:
        vp.load_adapters(loaded, tmp_path / "a")
    assert message in str(error.value)
    assert list(parameters(loaded)) == names == list(trainable(loaded))


def test_of_another_model(converted: Converted, tmp_path: Path) -> None:
    vp.save_adapters(vp.add_adapters(vp.load_model(converted("encoder")), 2), tmp_path / "a", "e")
    with pytest.raises(CheckpointError, match="does not fit the model"):
        vp.load_adapters(vp.load_model(converted("clip")), tmp_path / "a")
    with pytest.raises(ValueError, match="towers are video; a TextEncoder has text"):
        vp.load_adapters(vp.load_model(converted("text")), tmp_path / "a")


# Mistakes.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(rank=0), "rank is 0; expected 1 or more"),
        (dict(rank=-2), "rank is -2"),
        (dict(rank=25), "rank is 25; expected 24 at most, the width of "),
        (dict(rank=2, alpha=0), "alpha is 0; expected a number above 0"),
        (dict(rank=2, alpha=float("nan")), "alpha is nan"),
        (dict(rank=2, layers=0), "layers is 0; expected 1 or more"),
        (dict(rank=2, towers=[]), "towers are none; a FactorizedEncoder has video"),
        (dict(rank=2, towers=["text"]), "towers are text; a FactorizedEncoder has video"),
        (dict(rank=2, towers=("video", "text")), "towers are video, text; a FactorizedEncoder has"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str, converted: Converted) -> None:
    model = vp.load_model(converted("encoder"))
    with pytest.raises(ValueError) as error:
        vp.add_adapters(model, **options)
    assert message in str(error.value)
    assert trainable(model).keys() == parameters(model).keys()
    with pytest.raises(TypeError):
        vp.add_adapters(model, 2.5)


def test_out_of_order(converted: Converted, tmp_path: Path) -> None:
    model = vp.load_model(converted("clip"))
    for call in (vp.fuse_adapters, lambda model: vp.save_adapters(model, tmp_path / "a", "b")):
        with pytest.raises(ValueError, match="FactorizedVideoCLIP has no adapters"):
            call(model)
    assert not (tmp_path / "a").exists()
    vp.add_adapters(model, 2, towers=["text"])
    with pytest.raises(ValueError, match="has an adapter already; call fuse_adapters first"):
        vp.add_adapters(model, 2)


def test_fused_it_is_saved_and_quantized(tmp_path: Path) -> None:
    sizes = dict(model_dim=64, num_spatial_layers=1, num_temporal_layers=1, num_heads=2)
    settings = dict(patch_size=6, pos_emb_shape=(2, 2, 2), mlp_dim=64, **sizes)
    mx.random.seed(0)
    model = with_random_adapters(vp.get_model({"model": "FactorizedEncoder", **settings}))
    with pytest.raises(ValueError, match="cannot be quantized; call fuse_adapters first"):
        nn.quantize(model, group_size=32)
    vp.fuse_adapters(model)
    video = mx.random.uniform(shape=(1, 2, 12, 12, 3))
    expected = np.array(model(video)[0])
    vp.save_model(model, tmp_path / "fused")
    np.testing.assert_array_equal(np.array(vp.load_model(tmp_path / "fused")(video)[0]), expected)
    nn.quantize(model, group_size=32, bits=8)
    found = np.array(model(video)[0])
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.05 * expected.std()
    with pytest.raises(ValueError, match="is quantized; add the adapters before quantizing"):
        vp.add_adapters(model, 2)


# The command line.


@pytest.fixture(scope="module")
def adapters(searchable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters of the searchable model."""
    directory = tmp_path_factory.mktemp("adapters") / "a"
    vp.save_adapters(with_random_adapters(vp.load_model(searchable)), directory, searchable)
    return directory


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_fusing_to_a_directory(
    searchable: Path, adapters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, output = tmp_path / "base", tmp_path / "fused"
    shutil.copytree(searchable, base)
    vp.Processor(4, 18, resize="crop", template="this is {}").save(base)
    (base / "labels.json").write_text("As a classifier's.")
    assert run("fuse", "--model", base, "--adapters", adapters, "-o", output) == 0
    assert capsys.readouterr().out.startswith(f"{output}: {base} with the adapters of {adapters}")
    assert sorted(path.name for path in output.iterdir()) == sorted(
        path.name for path in base.iterdir()
    )
    source = read_config(output)["source"]
    assert source["adapters"] == sha256(adapters / ADAPTERS_FILE)
    assert source["base_weights"] == sha256(searchable / WEIGHTS_FILE)

    model, processor = vp.load(output)
    assert (processor.resize, processor.template) == ("crop", "this is {}")
    expected = vp.load_adapters(vp.load_model(searchable), adapters)
    batch = processor([media.clip("b.mp4")], ["a red cat runs"])
    for ours, theirs in zip(model(**batch)[:2], expected(**batch)[:2], strict=True):
        np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=1e-5)

    before = (output / WEIGHTS_FILE).read_bytes()
    assert run("fuse", "--model", base, "--adapters", adapters, "-o", output) == 2
    assert "already exists" in capsys.readouterr().err
    assert (output / WEIGHTS_FILE).read_bytes() == before
    assert run("fuse", "--model", base, "-o", tmp_path / "x") == 2
    assert "say with --adapters" in capsys.readouterr().err
    assert run("fuse", "--model", base, "--adapters", tmp_path, "-o", tmp_path / "x") == 2
    assert f"{tmp_path} holds no adapters" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_fused_in_another_type(searchable: Path, adapters: Path, tmp_path: Path) -> None:
    common = ("fuse", "--model", searchable, "--adapters", adapters, "-o")
    assert run(*common, tmp_path / "exact", "--json") == 0
    assert run(*common, tmp_path / "coarse", "--dtype", "bfloat16") == 0
    exact = dict(mx.load(str(tmp_path / "exact" / WEIGHTS_FILE)))
    for name, array in mx.load(str(tmp_path / "coarse" / WEIGHTS_FILE)).items():
        assert array.dtype == mx.bfloat16
        assert mx.array_equal(array, exact[name].astype(mx.bfloat16)).item()  # Rounded once.


def test_commands_with_adapters(
    searchable: Path, adapters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, output = media.clip("b.mp4"), tmp_path / "out.npz"
    common = ("embed", clip, "-o", output, "--model", searchable)
    assert run(*common, "--adapters", adapters) == 0
    model, processor = vp.load(searchable)
    expected = vp.load_adapters(model, adapters)(**processor([clip]))[0]
    np.testing.assert_allclose(read_features(output)["embedding"], np.array(expected), atol=1e-5)
    assert read_record(output)["model"]["adapters"] == sha256(adapters / ADAPTERS_FILE)

    other = tmp_path / "other"
    changed = with_random_adapters(vp.load_model(searchable), rank=2)
    vp.save_adapters(changed, other, searchable)
    capsys.readouterr()
    for options in ((), ("--adapters", other)):
        assert run(*common, *options) == 2
        assert "model.adapters is" in capsys.readouterr().err
    assert run("similarity", "--video", clip, "--text", "a cat", "--model", searchable) == 0
    plain = capsys.readouterr().out
    arguments = ("similarity", "--video", clip, "--text", "a cat", "--model", searchable)
    assert run(*arguments, "--adapters", adapters) == 0
    assert capsys.readouterr().out != plain
