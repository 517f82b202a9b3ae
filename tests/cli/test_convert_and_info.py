"""The command line: what it prints, and where, and its exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REFERENCE

from videoprism_mlx.cli import main

CHECKPOINT = REFERENCE / "encoder" / "checkpoint.npz"
CONFIG = REFERENCE / "encoder" / "config.json"
ACTIVATIONS = REFERENCE / "encoder" / "plain.npz"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_converting_says_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", CHECKPOINT, "-o", tmp_path / "m", "--config", CONFIG) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{tmp_path / 'm'}: FactorizedEncoder, 20,")
    assert " parameters, 0.1 MB, " in printed.out and printed.out.endswith(" s\n")
    assert printed.err == ""


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("convert", CHECKPOINT, "-o", tmp_path / "m", "--config", CONFIG)
    assert run("convert", tmp_path / "m", "-o", tmp_path / "back.npz") == 0
    with np.load(CHECKPOINT) as before, np.load(tmp_path / "back.npz") as after:
        assert set(before.files) == set(after.files)
    assert run("convert", tmp_path / "m", "-o", tmp_path / "x.npz", "--dtype", "float16") == 2
    assert "--dtype has no effect when a model is converted back to Flax" in capsys.readouterr().err


def test_verifying(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("convert", CHECKPOINT, "-o", tmp_path / "m", "--config", CONFIG)
    assert run(*arguments, "--verify", ACTIVATIONS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all 64 agree to within 2 times Flax's own rounding"
    assert lines[2].split()[0] == "patch_projection/linear"
    assert lines[-2].split()[0] == "output/spatial_features"
    assert run("convert", tmp_path / "m", "--verify", ACTIVATIONS) == 0


def test_verifying_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(CHECKPOINT) as saved:
        arrays = dict(saved)
    arrays["params/spatial_ln/bias"] = arrays["params/spatial_ln/bias"] + 1e-4
    np.savez(tmp_path / "x.npz", **arrays)
    arguments = ("convert", tmp_path / "x.npz", "-o", tmp_path / "m", "--config", CONFIG)
    assert run(*arguments, "--verify", ACTIVATIONS) == 1
    printed = capsys.readouterr().out
    assert printed.endswith("the first to differ is spatial_ln\n")
    differing = [line for line in printed.splitlines() if line.endswith("  differs")]
    assert differing[0].split()[0] == "spatial_ln"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.npz", "-o", "m"], "there is no checkpoint nothing.npz"),
        ([CHECKPOINT], "there is no output; name it with -o"),
        ([CHECKPOINT, "-o", "m", "--dtype", "int4"], "dtype is 'int4'; expected one of"),
        ([CHECKPOINT, "-o", "m", "--config", "videoprism_v1_bas"], "did you mean"),
        ([CHECKPOINT, "-o", "m", "--revision", "v2"], "--revision has no effect for a local"),
        (["videoprism_v1_giant", "-o", "m"], "a configuration without published weights"),
        (["videoprism_public_v1_base", "-o", "m", "--config", CONFIG], "--config has no effect"),
    ],
)
def test_a_mistake_is_told_without_a_traceback(
    arguments: list[object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("convert", *arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("videoprism-mlx: ") and message in printed.err
    assert printed.out == "" and list(tmp_path.iterdir()) == []


def test_both_ways_to_call_it() -> None:
    for command in (
        [sys.executable, "-m", "videoprism_mlx.convert", "--help"],
        [Path(sys.executable).parent / "videoprism-mlx", "convert", "--help"],
    ):
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "--verify ACTIVATIONS" in printed


def test_info_of_a_released_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "videoprism_lvt_public_v1_base", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 247_623_424
    assert found["weights_bytes"] == {
        "float32": 4 * 247_623_424, "bfloat16": 2 * 247_623_424, "float16": 2 * 247_623_424
    }  # fmt: skip
    assert (found["frames"], found["size"]) == (16, "288 x 288")
    assert found["source"].startswith("https://huggingface.co/google/videoprism-lvt-base")
    assert run("info", "videoprism_lvt_public_v1_base") == 0
    printed = capsys.readouterr().out
    assert "parameters      247,623,424\n" in printed
    assert "weights         990 MB float32, 495 MB bfloat16, 495 MB float16\n" in printed


def test_info_of_a_directory(
    searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("info", searchable, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["frames"], found["size"]) == (4, "18 x 18")
    assert found["model"] == "FactorizedVideoCLIP"
    assert run("info", "videoprism_lvt_public_v1_bse") == 2
    assert "did you mean 'videoprism_lvt_public_v1_base'" in capsys.readouterr().err
    assert run("info", tmp_path) == 2
    assert "it has no config.json; expected a model's name, a model directory or a video file" in (
        capsys.readouterr().err
    )
    (tmp_path / "adapter_config.json").write_text("{}")
    assert run("info", tmp_path) == 2
    assert f"{tmp_path} holds adapters and not a model" in capsys.readouterr().err
    assert run("info", "gone.mp4") == 2
    assert "and there is no such file or folder" in capsys.readouterr().err
    os.mkfifo(tmp_path / "pipe.mp4")
    assert run("info", tmp_path / "pipe.mp4") == 2
    assert "pipe.mp4 is neither a file nor a folder" in capsys.readouterr().err
    assert run("info", "~nobody-of-this-name/model") == 2
    assert "cannot be used as a path" in capsys.readouterr().err
