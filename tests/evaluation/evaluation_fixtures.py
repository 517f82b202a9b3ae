"""Fixtures of the tests of evaluation. Test modules name this one as a pytest plugin."""

from pathlib import Path
from typing import Any

import media
import pytest
from by_hand import COUNT, Converted

import videoprism_mlx as vp
from videoprism_mlx.features.processor import Processor


@pytest.fixture(scope="session")
def six_clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Videos that differ."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        media.write(folder / f"{n}.mp4", range(n * 150, n * 150 + 12), size=(64, 48))
        for n in range(COUNT)
    ]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def searcher(searchable: Path) -> tuple[Any, Processor]:
    return vp.load(searchable)


@pytest.fixture
def classifier(converted: Converted) -> tuple[Any, Processor]:
    return vp.load(converted("classifier_mild"))
