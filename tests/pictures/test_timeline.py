"""Similarity along time, and its peaks."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from videoprism_mlx.pictures import draw_timeline, find_peaks


def peaks(scores: list[float], most: int = 3, width: float = 1.0) -> list[int]:
    starts = np.arange(len(scores), dtype=float)
    return find_peaks(np.array(scores), starts, starts + width, most)


def test_peaks() -> None:
    assert peaks([0, 1, 0, 3, 0, 2, 0]) == [3, 5, 1]
    assert peaks([0, 1, 0, 3, 0, 2, 0], most=2) == [3, 5]
    assert peaks([5, 1, 0, 1, 4]) == [0, 4]  # The ends count.
    assert peaks([0, 2, 2, 2, 0]) == [2]  # A level stretch counts once.
    assert peaks([1, 1, 1]) == [1]
    assert peaks([7]) == [0]
    assert peaks([0, 3, 0, 2.9, 0, 0, 0, 0, 1, 0], width=4) == [1, 8]  # Windows do not overlap.
    many = np.sin(np.arange(400)) + np.arange(400) / 1000
    chosen = peaks(many.tolist(), most=5)
    assert len(chosen) == 5 and min(np.diff(sorted(chosen))) >= 20
    with pytest.raises(ValueError, match="hold NaN"):
        peaks([0, np.nan])
    with pytest.raises(ValueError, match=r"expected \(N,\)"):
        find_peaks(np.zeros(3), [0, 1], [1, 2])


def timeline(path: Path, **changes: Any) -> np.ndarray:
    """A drawn timeline, as pixels."""
    count = changes.pop("count", 60)
    starts = np.arange(count, dtype=float)
    scores = np.stack([np.sin(starts / 9) * 0.1 + 0.2, np.cos(starts / 5) * 0.05], axis=1)
    given = dict(
        starts=starts,
        ends=starts + 2,
        scores=scores,
        queries=["a red cat", "a ball"],
        thumbnails=[(0, 15.0, 0.3, np.full((48, 64, 3), (250, 0, 250), np.uint8))],
        title="clip.mp4",
    )
    draw_timeline(path, **given | changes)
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_timeline_shows_its_thumbnails(tmp_path: Path) -> None:
    image = timeline(tmp_path / "a.png")
    ys, xs = np.nonzero((image == (250, 0, 250)).all(-1))
    share = xs.mean() / image.shape[1]
    assert len(ys) > 5000 and 0.2 < share < 0.35  # A quarter along the axis.
    assert ys.mean() < image.shape[0] / 2  # In the first query's panel.


def test_the_curve_is_where_the_scores_are(tmp_path: Path) -> None:
    starts = np.arange(100, dtype=float)
    scores = np.where(starts < 50, 0.0, 1.0)[:, None]
    image = timeline(
        tmp_path / "a.png",
        starts=starts,
        ends=starts + 1,
        scores=scores,
        queries=["step"],
        thumbnails=[],
    ).astype(int)
    blue = (np.abs(image - (0, 0x72, 0xB2)).sum(-1) < 30).astype(float)
    height, width = blue.shape
    ys = np.arange(height)[:, None]
    left, right = blue[:, : width * 45 // 100], blue[:, width * 60 // 100 :]
    low, high = ((ys * part).sum() / part.sum() for part in (left, right))
    assert low - high > height / 6


@pytest.mark.parametrize("count", [1, 2, 5000])
def test_timelines_of_any_length(count: int, tmp_path: Path) -> None:
    assert timeline(tmp_path / "a.png", count=count, thumbnails=[]).shape[1] == 1800


def test_texts_are_drawn_as_they_are(tmp_path: Path) -> None:
    for number, query in enumerate(("$x_{", "a" * 500, "déjà\nvu", "日本語", "")):
        timeline(tmp_path / f"{number}.png", queries=[query, "a ball"], title=query)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(queries=["one"]), r"scores are \(60, 2\); expected a row for each"),
        (dict(ends=np.zeros(3)), "3 ends"),
        (dict(scores=np.full((60, 2), np.nan)), "hold NaN or infinity"),
        (dict(count=0), "scores are"),
    ],
)
def test_bad_timelines(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        timeline(tmp_path / "a.png", **changes)


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"pip install 'videoprism_mlx\[pictures\]'"):
        timeline(tmp_path / "a.png")
