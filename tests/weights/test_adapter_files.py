"""Adapters on disk and in commands: nothing is lost or mixed up, and mistakes are named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import media
import mlx.core as mx
import numpy as np
import pytest
from adapting import Converted, outputs, parameters, trainable, with_random_adapters
from mlx import nn

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.errors import CheckpointError
from videoprism_mlx.features.formats import read_features, read_record
from videoprism_mlx.files.checksum import with_checksum
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.weights.adapters import (
    ADAPTER_CONFIG_FILE,
    ADAPTERS_FILE,
)
from videoprism_mlx.weights.directory import WEIGHTS_FILE, named_parameters, read_config
from videoprism_mlx.weights.fuse import fuse_to_directory, load_fused


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
    assert json.loads((tmp_path / "a" / ADAPTER_CONFIG_FILE).read_text()) == with_checksum({
        "rank": 2, "alpha": 6, "towers": ["video"], "layers": 1,
        "base": {"name": "some/model", "weights": checksum}, "version": "0.1.0",
        "weights_sha256": sha256(tmp_path / "a" / ADAPTERS_FILE),
    })  # fmt: skip
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
    described = json.loads(path.read_text()) | {"crc32": "left out"} | changes
    path.write_text(json.dumps({k: v for k, v in described.items() if v != "left out"}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / ADAPTER_CONFIG_FILE).unlink(), "holds no adapters: it has no adapter_conf"),
        (lambda d: (d / ADAPTERS_FILE).unlink(), "has no adapters.safetensors"),
        (shutil.rmtree, "does not exist; expected what save_adapters writes"),
        (
            lambda d: (d / ADAPTER_CONFIG_FILE).write_text("{"),
            "does not contain valid settings of adapters",
        ),
        (
            lambda d: (d / ADAPTER_CONFIG_FILE).write_text("[]"),
            "does not contain valid settings of adapters",
        ),
        (lambda d: (d / ADAPTERS_FILE).write_text("{"), "damaged or not a safetensors file"),
        (lambda d: edited(d, rank="left out"), "settings of adapters: 'rank' is missing"),
        (lambda d: edited(d, base="left out"), "settings of adapters: 'base' is missing"),
        (lambda d: edited(d, base={}), "settings of adapters: 'name' is missing"),
        (lambda d: edited(d, rank=0), "rank is 0; expected 1 or more"),
        (lambda d: edited(d, rank="2"), "does not contain valid settings of adapters"),
        (lambda d: edited(d, alpha=-1), "alpha is -1; expected a number above 0"),
        (lambda d: edited(d, towers=["audio"]), "towers are audio; /"),
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
    with pytest.raises(ValueError, match=r"towers are video; .*text has text"):
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
        (dict(rank=2, towers=[]), "towers are none; {} has video"),
        (dict(rank=2, towers=["text"]), "towers are text; {} has video"),
        (dict(rank=2, towers=("video", "text")), "towers are video, text; {} has"),
        (dict(rank=2, towers=[3]), "towers are 3; {} has video"),
        (dict(rank=2, alpha="1"), "alpha is '1'; expected a number above 0"),
        (dict(rank=2, seed=-1), "seed is -1; expected 0 to 2**64 - 1"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str, converted: Converted) -> None:
    model = vp.load_model(converted("encoder"))
    with pytest.raises(ValueError) as error:
        vp.add_adapters(model, **options)
    assert message.replace("{}", str(converted("encoder"))) in str(error.value)
    assert trainable(model).keys() == parameters(model).keys()
    with pytest.raises(TypeError):
        vp.add_adapters(model, 2.5)


@pytest.mark.parametrize("name", ["rank", "layers", "seed"])
def test_settings_that_are_no_whole_numbers(name: str, converted: Converted) -> None:
    model = vp.load_model(converted("encoder"))
    with pytest.raises(vp.VideoPrismError, match=f"{name} is 1.5; expected a whole number"):
        vp.add_adapters(model, **({"rank": 2} | {name: 1.5}))


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
    with pytest.raises(SystemExit, match="2"):
        run("fuse", "--model", base, "-o", tmp_path / "x")
    assert "are required: --adapters" in capsys.readouterr().err
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
        assert "model.adapters was" in capsys.readouterr().err
    assert run("similarity", "--video", clip, "--text", "a cat", "--model", searchable) == 0
    plain = capsys.readouterr().out
    arguments = ("similarity", "--video", clip, "--text", "a cat", "--model", searchable)
    assert run(*arguments, "--adapters", adapters) == 0
    assert capsys.readouterr().out != plain


def test_fusing_as_a_call(searchable: Path, adapters: Path, tmp_path: Path) -> None:
    source = fuse_to_directory(searchable, adapters, tmp_path / "called")
    assert source == {
        "base": str(searchable),
        "base_weights": sha256(searchable / WEIGHTS_FILE),
        "adapters": sha256(adapters / ADAPTERS_FILE),
    }
    assert run("fuse", "--model", searchable, "--adapters", adapters, "-o", tmp_path / "said") == 0
    called, said = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("called", "said")
    )
    assert called == said
    with pytest.raises(FileExistsError):
        fuse_to_directory(searchable, adapters, tmp_path / "called")
    (tmp_path / "called" / WEIGHTS_FILE).write_bytes(b"an earlier model")
    again = ("--adapters", adapters, "-o", tmp_path / "called", "--overwrite")
    assert run("fuse", "--model", searchable, *again) == 0
    assert (tmp_path / "called" / WEIGHTS_FILE).read_bytes() == said[WEIGHTS_FILE]


def test_a_processor_of_the_adapters_comes_first(
    searchable: Path, adapters: Path, tmp_path: Path
) -> None:
    base, own = tmp_path / "base", tmp_path / "own"
    shutil.copytree(searchable, base)
    shutil.copytree(adapters, own)
    vp.Processor(4, 18, template="the model's {}").save(base)
    fuse_to_directory(base, own, tmp_path / "without")
    vp.Processor(4, 18, template="the adapters' {}").save(own)
    fuse_to_directory(base, own, tmp_path / "with")
    templates = [vp.load(tmp_path / name)[1].template for name in ("without", "with")]
    assert templates == ["the model's {}", "the adapters' {}"]


def test_loaded_and_fused_in_one_call(searchable: Path, adapters: Path) -> None:
    model, directory = load_fused(searchable, adapters, dtype="bfloat16")
    expected = vp.fuse_adapters(vp.load_adapters(vp.load_model(searchable), adapters))
    assert directory == searchable and model.adapters is None and not model.training
    for name, array in named_parameters(model).items():
        rounded = named_parameters(expected)[name].astype(mx.bfloat16)
        assert mx.array_equal(array, rounded).item(), name
