"""Bars while weights are fused, verified and checked; and tables of modules that fit."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import run
from conftest import REFERENCE

import videoprism_mlx as vp
from videoprism_mlx.cli.program.tables import shortened
from videoprism_mlx.weights import integrity

TINY = "videoprism_lvt_demo_tiny"
ACTIVATIONS = REFERENCE / "encoder" / "plain.npz"


class Terminal(io.StringIO):
    """An output that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    model = vp.load_model(TINY)
    vp.add_adapters(model, rank=2)
    vp.save_adapters(model, tmp_path / "adapters", TINY)
    return tmp_path / "adapters"


def bars(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """What a command writes to a terminal."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert run(*arguments) == 0
    return terminal.getvalue()


@pytest.mark.parametrize("loudness", [(), ("-q",)])
def test_bars(
    loudness: tuple[str, ...],
    adapters: Path,
    converted: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = converted("encoder")
    said = bars(monkeypatch, "fuse", "--adapters", adapters, "-o", tmp_path / "new", *loudness)
    assert ("fusing: " in said) == (loudness == ())
    said = bars(monkeypatch, *loudness, "convert", encoder, "--verify", ACTIVATIONS)
    assert ("verifying: " in said) == (loudness == ())
    monkeypatch.setattr(integrity, "REMEMBERED_BYTES", 1)
    said = bars(monkeypatch, "info", encoder, "--verify", *loudness)
    assert ("checking weights: " in said) == (loudness == ())


def test_the_table_of_modules_fits_the_terminal(
    converted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert run("convert", converted("encoder"), "--verify", ACTIVATIONS) == 0
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and any("/…/" in line for line in lines)
    monkeypatch.setattr(sys, "stdout", file := io.StringIO())
    assert run("convert", converted("encoder"), "--verify", ACTIVATIONS) == 0
    assert "/…/" not in file.getvalue()
    assert len(file.getvalue().splitlines()) == len(lines)


def test_shortened_paths() -> None:
    path = "encoder/stack/x_layers_1/attention/key"
    assert shortened(path, 38) == path
    assert shortened(path, 37) == "encoder/…/x_layers_1/attention/key"
    assert shortened(path, 30) == "encoder/…/attention/key"
    assert shortened(path, 9) == "encoder/…"
