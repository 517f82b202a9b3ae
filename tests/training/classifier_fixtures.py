"""Fixtures of the tests of classifiers, which learn to tell clips of three colours apart.

Test modules name this one as a pytest plugin.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coloured_clips import COLOURS, QUICK, Train, colour_clip, colour_rows, listed

from videoprism_mlx.features.processor import Processor
from videoprism_mlx.pictures.curves import draw_curves
from videoprism_mlx.training import session
from videoprism_mlx.training.classifier import train_classifier
from videoprism_mlx.training.session import Trained


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing takes as long as the picture of a training."""
    monkeypatch.setattr(session, "draw_curves", lambda *arguments: None)


@pytest.fixture
def with_pictures(without_pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "draw_curves", draw_curves)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders train and val, with a folder for each colour."""
    root = tmp_path_factory.mktemp("colours")
    for name, colour in COLOURS.items():
        for number, shade in enumerate((1.0, 0.9, 0.8)):
            colour_clip(root / "train" / name / f"{name}{number}.mp4", colour, shade)
        colour_clip(root / "val" / name / f"{name}.mp4", colour, 0.85)
    return root


@pytest.fixture
def backbone(converted: Callable[[str], Path]) -> Path:
    return converted("encoder_mild")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features for all tests that are not about them."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def train(clips: Path, backbone: Path, tmp_path: Path, shared_cache: Path) -> Train:
    """`train_classifier` on the clips."""

    def trained(output: str = "out", **options: Any) -> Trained:
        settings = dict(
            model=backbone,
            data=clips / "train",
            val=clips / "val",
            output=tmp_path / output,
            recipe=QUICK,
            cache=shared_cache,
        )
        return train_classifier(**settings | options)

    return trained


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of videos as they are read."""
    names: list[str] = []
    original = Processor.read

    def noted(processor: Processor, video: Any, **options: Any) -> np.ndarray:
        names.append(Path(video).name)
        return original(processor, video, **options)

    monkeypatch.setattr(Processor, "read", noted)
    return names


@pytest.fixture
def with_bad(clips: Path, tmp_path: Path) -> dict[str, Path]:
    """A list of which three cannot be used, and one to validate on of which one cannot."""
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    bad = [("empty.mp4", 0), ("text.mp4", 3), ("gone.mp4", 1)]
    rows = colour_rows(clips)
    return {
        "data": listed(tmp_path / "train.json", [*rows[:4], *bad, *rows[4:]]),
        "val": listed(tmp_path / "val.json", [*rows[::4], ("empty.mp4", 0)]),
    }
