"""The picture of a training."""

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from videoprism_mlx.pictures import draw_curves, write_curves
from videoprism_mlx.pictures.drawing import CURVE, PEAK

HISTORY = [
    {"epoch": n, "loss": 1 / n, "learning_rate": 1e-4, "val_loss": 2 / n, "top1": 1 - 1 / n}
    for n in range(1, 6)
]


def test_curves_are_drawn(tmp_path: Path) -> None:
    def ink(history: list[dict[str, Any]], colour: str) -> int:
        write_curves(tmp_path / "curves.png", history)
        pixels = np.array(Image.open(tmp_path / "curves.png").convert("RGB")).astype(int)
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        return int((np.abs(pixels - wanted).max(axis=-1) < 20).sum())

    training_alone = [{key: one[key] for key in ("epoch", "loss")} for one in HISTORY]
    assert ink(training_alone, CURVE) > 500 and ink(training_alone, PEAK) == 0
    assert ink(HISTORY, CURVE) > 1000  # The second panel's first curve as well.
    assert ink(HISTORY, PEAK) > 500
    assert ink(HISTORY[:1], CURVE) > 20
    with pytest.raises(ValueError, match="the history is empty"):
        write_curves(tmp_path / "curves.png", [])


def test_the_same_history_gives_the_same_picture(tmp_path: Path) -> None:
    write_curves(tmp_path / "one.png", HISTORY, best=5)
    write_curves(tmp_path / "two.png", HISTORY, best=5)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_without_matplotlib_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with caplog.at_level(logging.WARNING):
        draw_curves(tmp_path, HISTORY)
    [said] = caplog.messages
    assert "pip install 'videoprism_mlx[pictures]'" in said and "\n" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_history_of_epochs_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no loss and no metric"):
        write_curves(tmp_path / "curves.png", [{"epoch": 1, "learning_rate": 1e-4}])


def test_a_bug_in_drawing_is_logged_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("videoprism_mlx.pictures.curves.write_curves", fail)
    draw_curves(tmp_path, HISTORY)
    [record] = caplog.records
    assert record.exc_info is not None and record.exc_info[0] is KeyError


def panel(history: list[dict[str, Any]], **options: Any) -> list[tuple[str, str, str]]:
    """The label, colour and dashes of each metric's curve."""
    from matplotlib.figure import Figure

    from videoprism_mlx.pictures import curves

    axes = Figure().add_subplot()
    metrics = curves._panels(history, **options)["metrics"]
    curves._draw_panel(axes, "metrics", [one["epoch"] for one in history], metrics, None)
    return [(str(c.get_label()), str(c.get_color()), c.get_linestyle()) for c in axes.get_lines()]


def test_the_main_metrics_and_all_of_them() -> None:
    ways = ("text_to_video", "video_to_text")
    others = [f"{way}/recall@{most}" for way in ways for most in (1, 5, 10)]
    names = ["mean/recall@1", *others, *(f"extra{n}" for n in range(8))]
    history = [{"epoch": n, "loss": 1.0, **dict.fromkeys(names, n / 9)} for n in range(1, 4)]
    main = [label for label, *_ in panel(history)]
    assert main == ["mean recall@1", "text to video recall@1", "video to text recall@1"]
    everything = panel(history, all_metrics=True)
    assert len(everything) == 15 == len({(colour, dash) for _, colour, dash in everything})


def test_metrics_that_nobody_knows_are_few() -> None:
    history = [{"epoch": 1, "loss": 1.0, **{f"m{n}": n / 9 for n in range(9)}}]
    assert [label for label, *_ in panel(history)] == ["m0", "m1", "m2", "m3"]
