"""`info` prints where a model is from in words, with short checksums; JSON has all of them."""

import json
from pathlib import Path

import pytest
from commands import run

import videoprism_mlx as vp
from videoprism_mlx.cli import info
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.models import DEMO_MODEL, MODEL_CLASSES


def lines_of(printed: str) -> dict[str, str]:
    return {line[:16].strip(): line[16:] for line in printed.splitlines()}


def test_what_a_model_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = vp.convert.draw_checkpoint(DEMO_MODEL, tmp_path / "mine.npz")
    vp.convert.flax_to_mlx(checkpoint, tmp_path / "mine", DEMO_MODEL)
    model = vp.load_model(tmp_path / "mine")
    vp.save_adapters(vp.add_adapters(model, rank=2), tmp_path / "adapters", tmp_path / "mine")
    assert run("fuse", "--adapters", tmp_path / "adapters", "-o", tmp_path / "fused") == 0
    digest = sha256(checkpoint)
    base = sha256(tmp_path / "mine" / "model.safetensors")
    for name, expected in (
        ("mine", {"checkpoint": f"mine.npz, SHA-256 {digest[:12]}…", "layout": "scanned"}),
        ("fused", {"fused from": f"{tmp_path / 'mine'}, SHA-256 {base[:12]}…"}),
    ):
        capsys.readouterr()
        assert run("info", tmp_path / name) == 0
        said = capsys.readouterr().out
        lines = lines_of(said)
        assert expected.items() <= lines.items() and "_" not in "".join(lines)
        assert lines["model"] == "video-text model (FactorizedVideoCLIP)"
        assert run("info", tmp_path / name, "--json") == 0
        described = json.loads(capsys.readouterr().out)
        stored = json.loads((tmp_path / name / "config.json").read_text())
        assert described["source"] == stored["source"]
        assert described["model"] == "FactorizedVideoCLIP"


def test_every_key_of_a_source_has_a_line() -> None:
    source = {"trained_from": "m", "adapters": "a" * 64, "some_key": "b" * 64, "long": "c" * 500}
    rows = dict(info.source_rows(source))
    assert rows["trained from"] == "m" and rows["adapters"] == f"SHA-256 {'a' * 12}…"
    assert rows["some key"] == f"SHA-256 {'b' * 12}…" and len(rows["long"]) == 100


def test_every_class_of_models_has_a_name() -> None:
    assert info.KINDS.keys() == MODEL_CLASSES.keys()
