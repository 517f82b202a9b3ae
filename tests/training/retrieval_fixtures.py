"""Fixtures of the tests of fine-tuning. Test modules name this one as a pytest plugin."""

from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest
from captioned_clips import CAPTIONS, COLOURS, RECIPE, Tune, write_rows

import videoprism_mlx as vp
from videoprism_mlx.training.retrieval import Tuning
from videoprism_mlx.training.session import Trained


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of five clips with one to three captions each."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [("video", "caption")]
    for number, captions in enumerate(CAPTIONS):
        frames = np.zeros((6, 36, 48, 3), np.uint8) + np.uint8(COLOURS[number])
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "48x36", "-r", "6", "-i", "-"]
        media.ffmpeg(*raw, "-c:v", "mpeg4", folder / f"{number}.mp4", given=frames.tobytes())
        rows += [(f"{number}.mp4", caption) for caption in captions]
    write_rows(folder / "pairs.csv", rows)
    return folder / "pairs.csv"


@pytest.fixture
def tune(searchable: Path, pairs: Path, tmp_path: Path) -> Tune:
    """Tunes the small model on the five clips."""

    def tune(output: str = "out", **options: Any) -> Trained:
        settings = dict(recipe=RECIPE, tuning=Tuning(at_once=3), cache=tmp_path / "cache")
        settings |= dict(model=searchable, data=pairs, output=tmp_path / output) | options
        return vp.train_retrieval(**settings)

    return tune
