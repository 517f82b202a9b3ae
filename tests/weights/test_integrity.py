"""Weights that were changed on the disk, or that hold NaN."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.errors import CheckpointError, InputError
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.weights import integrity
from videoprism_mlx.weights.directory import CONFIG_FILE, WEIGHTS_FILE

NAME = "temporal_ln.bias"


@pytest.fixture
def directory(converted: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the encoder's model directory, to be spoilt."""
    return Path(shutil.copytree(converted("encoder"), tmp_path / "model"))


def put(directory: Path, value: float, dtype: mx.Dtype = mx.float32) -> None:
    """Writes the weights again, with one number changed, as another program would."""
    arrays = dict(mx.load(str(directory / WEIGHTS_FILE)))
    mx.eval(arrays)
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    arrays[NAME][3] = value
    mx.save_safetensors(str(directory / WEIGHTS_FILE), arrays)


def forget_checksum(directory: Path) -> None:
    """Makes the directory one of an earlier version."""
    config = json.loads((directory / CONFIG_FILE).read_text())
    del config["weights_sha256"]
    (directory / CONFIG_FILE).write_text(json.dumps(config))


@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_is_seen(bit: int, directory: Path) -> None:
    content = bytearray((directory / WEIGHTS_FILE).read_bytes())
    content[-1000] ^= 1 << bit
    (directory / WEIGHTS_FILE).write_bytes(content)
    message = rf"{WEIGHTS_FILE} or the JSON file beside it is damaged or has been changed: the SHA"
    for use in (
        lambda: vp.load_model(directory),
        lambda: vp.convert.mlx_to_flax(directory, directory / "flax.npz"),
    ):
        with pytest.raises(CheckpointError, match=message):
            use()
    assert not (directory / "flax.npz").exists()


def test_directories_of_earlier_versions(directory: Path) -> None:
    put(directory, 0.5)
    forget_checksum(directory)
    assert vp.load_model(directory).temporal_ln.bias[3].item() == 0.5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_weights_that_are_no_numbers(value: float, dtype: mx.Dtype, directory: Path) -> None:
    put(directory, value, dtype)
    forget_checksum(directory)
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS_FILE}: {NAME} holds NaN or infinite"):
        vp.load_model(directory)


def test_they_are_not_saved_either(directory: Path, tmp_path: Path) -> None:
    model = vp.load_model(directory)
    model.temporal_ln.bias = model.temporal_ln.bias * float("nan")
    with pytest.raises(CheckpointError, match=f"{NAME} holds NaN or infinite values"):
        vp.save_model(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_saved_models_have_a_checksum(dtype: str, directory: Path, tmp_path: Path) -> None:
    vp.save_model(vp.load_model(directory, dtype=dtype), tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / CONFIG_FILE).read_text())
    assert config["weights_sha256"] == sha256(tmp_path / "saved" / WEIGHTS_FILE)
    vp.load_model(tmp_path / "saved")


def test_adapters_have_one_too(directory: Path, tmp_path: Path) -> None:
    model = vp.load_model(directory)
    vp.save_adapters(vp.add_adapters(model, 2), tmp_path / "a", directory)
    path = tmp_path / "a" / "adapters.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"adapters.safetensors or .* is damaged or has been"):
        vp.load_adapters(vp.load_model(directory), tmp_path / "a")


def test_a_large_file_is_read_once(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(integrity, "REMEMBERED_BYTES", 1)
    read, examine = [], integrity.examine
    monkeypatch.setattr(integrity, "examine", lambda path: [read.append(path), examine(path)][1])
    vp.load_model(directory)
    vp.load_model(directory)
    assert len(read) == 1
    put(directory, 0.25)  # Another version of the file.
    with pytest.raises(CheckpointError, match="is damaged or has been changed"):
        vp.load_model(directory)
    with pytest.raises(CheckpointError, match="is damaged or has been changed"):
        vp.load_model(directory)
    forget_checksum(directory)
    vp.load_model(directory)
    vp.load_model(directory)
    assert len(read) == 4
    [note] = (tmp_path / "cache" / "checked").iterdir()
    note.write_text("[")
    vp.load_model(directory)
    assert len(read) == 5
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("no folder can be made here")
    vp.load_model(directory)


def test_what_was_just_written_is_not_read_again(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(integrity, "REMEMBERED_BYTES", 1)
    model = vp.load_model(directory)
    vp.save_model(model, tmp_path / "saved")
    checkpoint = tmp_path / "flax.npz"
    vp.convert.mlx_to_flax(directory, checkpoint)
    for _ in range(2):
        vp.convert.flax_to_mlx(checkpoint, tmp_path / "again", model.config, overwrite=True)
    # A note for each model, and none for a temporary folder.
    assert len(list((tmp_path / "cache" / "checked").iterdir())) == 3
    monkeypatch.setattr(integrity, "examine", None)
    vp.load_model(tmp_path / "saved")
    vp.load_model(tmp_path / "again")


def test_info_verifies(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(directory), "--verify", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["verified"]
    assert found == {"sha256": sha256(directory / WEIGHTS_FILE), "compared": True}
    assert main(["info", str(directory), "--verify"]) == 0
    assert f"SHA-256 {found['sha256'][:12]}…, as config.json says" in capsys.readouterr().out
    kept = os.stat(directory / WEIGHTS_FILE)
    content = bytearray((directory / WEIGHTS_FILE).read_bytes())
    content[-8] ^= 64
    (directory / WEIGHTS_FILE).write_bytes(content)
    os.utime(directory / WEIGHTS_FILE, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert main(["info", str(directory), "--verify"]) == 2
    assert "is damaged or has been changed" in capsys.readouterr().err
    assert main(["info", "videoprism_v1_giant", "--verify"]) == 2
    assert "is not on this machine yet" in capsys.readouterr().err
    assert main(["info", "--verify"]) == 2
    assert "--verify needs the name or the directory of a model" in capsys.readouterr().err


def test_a_classifier_that_gives_nan_prints_none(directory: Path) -> None:
    with pytest.raises(vp.VideoPrismError, match="contain NaN or infinity"):
        vp.probabilities(np.array([[0.1, np.nan]]))


def test_weights_that_change_while_they_are_read(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there afterwards is not known to be intact."""
    monkeypatch.setattr(integrity, "REMEMBERED_BYTES", 1)
    examine = integrity.examine

    def replaced_meanwhile(path: Path) -> str:
        checksum = examine(path)
        content = bytearray(path.read_bytes())
        content[-1000] ^= 1
        path.write_bytes(content)
        return checksum

    with monkeypatch.context() as patched:
        patched.setattr(integrity, "examine", replaced_meanwhile)
        os.utime(directory / WEIGHTS_FILE, ns=(1, 1))
        vp.load_model(directory)
    with pytest.raises(CheckpointError, match="has been changed: the SHA"):
        vp.load_model(directory)


def test_folders_whose_names_are_not_utf_8(directory: Path, tmp_path: Path) -> None:
    """MLX cannot open them. On a Mac there are none."""
    named = os.fsdecode(os.fsencode(tmp_path) + b"/d\xff")
    try:
        os.mkdir(named)
    except OSError:
        pytest.skip("the file system takes names in UTF-8 only")
    shutil.copytree(directory, Path(named) / "m")
    for use in (
        lambda: vp.load_model(Path(named) / "m"),
        lambda: vp.save_model(vp.load_model(directory), Path(named) / "n"),
        lambda: vp.convert.flax_to_mlx(tmp_path / "x.npz", Path(named) / "n"),
    ):
        with pytest.raises(InputError, match=r"d\\udcff/.* cannot be used: .* not UTF-8"):
            use()
    assert os.listdir(named) == ["m"]
