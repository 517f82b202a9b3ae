"""`--overwrite` of `convert`, `fuse` and `train`."""

from pathlib import Path

import pytest
from commands import run
from conftest import REFERENCE

CHECKPOINT = REFERENCE / "encoder" / "checkpoint.npz"
CONFIG = REFERENCE / "encoder" / "config.json"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_converting_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "m"
    wishes = ("convert", CHECKPOINT, "-o", output, "--config", CONFIG)
    assert run(*wishes) == 0
    before = contents(output)
    assert run(*wishes, "--dtype", "float16") == 2
    assert "already exists; name another output or replace it with --overwrite" in (
        capsys.readouterr().err
    )
    assert run(*wishes, "--dtype", "float16", "--overwrite") == 0
    assert str(output) in capsys.readouterr().out
    assert len(contents(output)["model.safetensors"]) < len(before["model.safetensors"])
    assert run(*wishes, "--overwrite") == 0
    assert contents(output) == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_conversion_that_fails_leaves_the_earlier_model(tmp_path: Path) -> None:
    output = tmp_path / "m"
    assert run("convert", CHECKPOINT, "-o", output, "--config", CONFIG) == 0
    before = contents(output)
    (tmp_path / "x.npz").write_bytes(b"no checkpoint")
    assert run("convert", tmp_path / "x.npz", "-o", output, "--overwrite") == 2
    assert contents(output) == before


def test_only_a_model_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "m"
    wishes = ("convert", CHECKPOINT, "-o", output, "--config", CONFIG, "--overwrite")
    output.mkdir()
    (output / "notes.txt").write_text("someone's own")
    assert run(*wishes) == 2
    assert "holds something other than a model, such as notes.txt" in capsys.readouterr().err
    (output / "config.json").write_text("{}")
    assert run(*wishes) == 2
    assert sorted(contents(output)) == ["config.json", "notes.txt"]


def test_back_to_flax_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("convert", CHECKPOINT, "-o", tmp_path / "m", "--config", CONFIG)
    wishes = ("convert", tmp_path / "m", "-o", tmp_path / "back.npz")
    assert run(*wishes) == 0
    written = (tmp_path / "back.npz").read_bytes()
    (tmp_path / "back.npz").write_bytes(b"an earlier file")
    capsys.readouterr()
    assert run(*wishes) == 2 and "replace it with --overwrite" in capsys.readouterr().err
    assert run(*wishes, "--overwrite") == 0
    assert (tmp_path / "back.npz").read_bytes() == written
