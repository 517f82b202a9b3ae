"""Messages call a model what the user called it, and not by its class."""

from collections.abc import Callable
from pathlib import Path

import media
import pytest
from commands import run

import videoprism_mlx as vp

TINY = "videoprism_lvt_demo_tiny"


def test_a_model_is_called_what_the_user_called_it(
    converted: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").symlink_to(converted("encoder"))
    Path("texts").symlink_to(converted("text"))
    (tmp_path / "a").mkdir()
    Path("a/b.mp4").symlink_to(media.clip("b.mp4"))
    released = "google/videoprism-base-f16r288"
    for arguments, message in (
        (("similarity", "a", "--text", "x", "--model", "mine"), "mine cannot compare videos with"),
        (("similarity", "a", "--text", "x", "--model", released), f"{released} cannot compare vi"),
        (("embed", "a", "-o", "o", "--features", "embedding", "--model", "mine"), "mine has no em"),
        (("show", "a/b.mp4", "-o", "x.png", "--model", "texts"), "texts has no video encoder; "),
        (("evaluate", "classifier", "--data", "a", "--model", TINY), f"{TINY} is not a classifier"),
    ):
        assert run(*arguments) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"videoprism-mlx: {message}") and "Factorized" not in line


def test_a_model_without_a_name_is_called_by_its_class() -> None:
    model = vp.get_model(TINY)
    assert model.called == "a FactorizedVideoCLIP"
    assert vp.load_model(TINY).called == TINY
    with pytest.raises(vp.VideoPrismError, match=r"a FactorizedEncoder has video$"):
        vp.add_adapters(model.video_encoder, rank=2, towers=["text"])
