"""Features as colours, and similarity along time, as pictures."""

import sys
from pathlib import Path
from typing import Any

import cv2
import media
import numpy as np
import pytest
from PIL import Image

from videoprism_mlx.pictures.sheets import (
    draw_features,
    draw_timeline,
    feature_colours,
    find_peaks,
    principal_components,
    write_feature_video,
)

RANDOM = np.random.RandomState(0)


def moving_things(frames: int = 6, side: int = 12, width: int = 32) -> tuple[Any, Any]:
    """Features (T, side, side, D) of two things on a ground, and which is where (T, side, side)."""
    kinds = RANDOM.randn(3, width) * 3
    where = np.zeros((frames, side, side), int)
    for frame in range(frames):
        where[frame, 1:5, frame : frame + 4] = 1
        where[frame, 7:11, side - 4 - frame : side - frame] = 2
    return kinds[where] + 0.1 * RANDOM.randn(*where.shape, width), where


# Colours.


def test_like_things_are_of_like_colour_in_all_frames() -> None:
    features, where = moving_things()
    colours = feature_colours(features)
    assert colours.shape == (6, 12, 12, 3) and colours.dtype == np.uint8
    means = np.array([colours[where == kind].mean(0) for kind in range(3)])
    for kind in range(3):
        for frame in range(6):
            here = colours[frame][where[frame] == kind].astype(float)
            assert np.abs(here - means[kind]).mean() < 12
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(means[one] - means[other]).max() > 70


def test_components_are_those_of_the_singular_values() -> None:
    features, _ = moving_things()
    features += RANDOM.randn(32) * 5
    components = principal_components(features).reshape(-1, 3)
    flat = features.reshape(-1, 32) - features.reshape(-1, 32).mean(0)
    left, sizes, _ = np.linalg.svd(flat, full_matrices=False)
    for axis in range(2):  # The third is noise, whose order is anyone's.
        expected = left[:, axis] * sizes[axis]
        sign = np.sign(expected @ components[:, axis])
        np.testing.assert_allclose(components[:, axis], sign * expected, atol=0.1)
    assert np.abs(components.mean(0)).max() < 1e-9


def test_colours_do_not_depend_on_signs_scale_or_order_of_frames() -> None:
    features, _ = moving_things()
    colours = feature_colours(features).astype(int)
    for same in (features * 7, features + RANDOM.randn(32), features.astype(np.float32)):
        assert np.abs(feature_colours(same).astype(int) - colours).max() <= 1
    order = [3, 0, 5, 1, 4, 2]
    assert np.abs(feature_colours(features[order]) - colours[order]).max() <= 1


def test_a_little_noise_changes_colours_little() -> None:
    features, _ = moving_things()
    colours = feature_colours(features).astype(int)
    noisy = feature_colours(features + 1e-3 * RANDOM.randn(*features.shape)).astype(int)
    assert np.abs(noisy - colours).mean() < 2


def test_one_wild_token_does_not_wash_out_the_rest() -> None:
    features, where = moving_things()
    features[0, 0, 0] *= 5
    colours = feature_colours(features)
    means = np.array([colours[where == kind].mean(0) for kind in range(3)])
    assert min(np.abs(means[a] - means[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 50


@pytest.mark.parametrize("shape", [(2, 3, 3, 8), (1, 1, 1, 8), (1, 1, 2, 8), (2, 2, 2, 1)])
def test_few_and_equal_features(shape: tuple[int, ...]) -> None:
    grey = feature_colours(np.full(shape, 3.7, np.float32))
    assert grey.shape == (*shape[:3], 3)
    assert np.all(grey == grey[0, 0, 0]) and 120 <= grey.min() <= grey.max() <= 135
    assert feature_colours(RANDOM.randn(*shape)).shape == (*shape[:3], 3)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((2, 3, 8)), r"\(2, 3, 8\); expected \(T, rows, columns, D\)"),
        (np.zeros((0, 3, 3, 8)), "expected"),
        (np.full((1, 2, 2, 3), np.nan), "hold NaN or infinity"),
        (np.full((1, 2, 2, 3), np.inf), "hold NaN or infinity"),
    ],
)
def test_bad_features(features: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        feature_colours(features)


# Sheets and films.


def tinted(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames of one colour each, all different, and colours of others."""
    levels = np.arange(count) * 7 + 20
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0] = 200
    frames[..., 1] = levels[:, None, None]
    colours = np.zeros((count, 4, 4, 3), np.uint8)
    colours[..., 2] = 200
    colours[..., 1] = levels[:, None, None]
    return frames, colours


@pytest.mark.parametrize("size", [(18, 18), (288, 512), (512, 288), (40, 900), (900, 40)])
@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_every_frame_has_its_colours_beside_it(count: int, size: tuple[int, int]) -> None:
    frames, colours = tinted(count, *size)
    times = np.arange(count) * 0.5
    sheet = draw_features(frames, colours, times, "a title")
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
    assert max(sheet.shape) < 4000
    places = []
    for images in (frames, colours):
        spots = []
        for image in images:
            ys, xs = np.nonzero((sheet == image[0, 0]).all(-1))
            assert len(ys) >= 100 or min(size) < 60
            spots.append((ys.mean(), xs.mean(), len(ys)))
        places.append(np.array(spots))
    of_frames, of_colours = places
    np.testing.assert_allclose(of_frames[:, 2], of_colours[:, 2], rtol=0.02)
    offsets = of_colours[:, :2] - of_frames[:, :2]  # All below, or all to the right.
    np.testing.assert_allclose(offsets, np.broadcast_to(offsets[0], offsets.shape), atol=1)
    assert (offsets[0] > 5).sum() == 1
    order = np.lexsort((of_frames[:, 1].round(), of_frames[:, 0].round()))
    assert order.tolist() == list(range(count))


def test_of_many_frames_some_are_shown() -> None:
    frames, colours = tinted(33, 40, 40)
    sheet = draw_features(frames, colours)
    shown = [number for number, frame in enumerate(frames) if (sheet == frame[0, 0]).all(-1).any()]
    assert len(shown) == 16 and shown[0] == 0 and shown[-1] == 32
    assert set(np.diff(shown)) <= {2, 3}


def test_a_title_of_any_length_and_script() -> None:
    frames, colours = tinted(2, 40, 40)
    plain = draw_features(frames, colours, title="x")
    for title in ("long " * 100, "影片 🎬 vidéo", "new\nline\ttab", "$math_{broken"):
        assert draw_features(frames, colours, title=title).shape == plain.shape


@pytest.mark.parametrize(
    ("frames", "colours", "times", "message"),
    [
        (tinted(2, 8, 8)[0], tinted(3, 8, 8)[1], None, "2 frames, 3 colours"),
        (tinted(2, 8, 8)[0], tinted(2, 8, 8)[1], [0.0], "1 times: not as many"),
        (np.zeros((2, 8, 8, 3)), tinted(2, 8, 8)[1], None, "frames are float64"),
        (tinted(2, 8, 8)[0], tinted(2, 8, 8)[1][..., :2], None, "colours are uint8"),
        (tinted(2, 8, 8)[0][:0], tinted(2, 8, 8)[1][:0], None, "expected uint8"),
    ],
)
def test_bad_sheets(frames: Any, colours: Any, times: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_features(frames, colours, times)


@pytest.mark.parametrize("size", [(96, 128), (97, 129)])
def test_a_film(size: tuple[int, int], tmp_path: Path) -> None:
    frames = np.stack([media.frame(n, size[1], size[0]) for n in range(20)])
    colours = np.zeros((20, 4, 4, 3), np.uint8)
    colours[..., 1] = (np.arange(20) * 12)[:, None, None]
    write_feature_video(tmp_path / "film.mp4", frames, colours, fps=5)
    film = cv2.VideoCapture(str(tmp_path / "film.mp4"))
    assert film.get(cv2.CAP_PROP_FPS) == 5
    for number in range(20):
        read, page = film.read()
        assert read
        assert media.number(page[: size[0], : size[1], ::-1]) == number
        side = page[: size[0], size[1] + 8 : 2 * size[1] + 8]
        assert abs(side[..., 1].mean() - 12 * number) < 12
    assert not film.read()[0]


@pytest.mark.parametrize(
    ("name", "counts", "fps", "message"),
    [
        ("film.avi", (2, 2), 8, r"film\.avi does not end in \.mp4"),
        ("film.mp4", (2, 3), 8, "not as many: one ends at 2"),
        ("film.mp4", (0, 0), 8, "no frames to write"),
        ("film.mp4", (2, 2), 0, "fps is 0; expected a number above zero"),
    ],
)
def test_bad_films(
    name: str, counts: tuple[int, int], fps: float, message: str, tmp_path: Path
) -> None:
    frames, colours = tinted(max(counts), 32, 32)
    with pytest.raises(ValueError, match=message):
        write_feature_video(tmp_path / name, frames[: counts[0]], colours[: counts[1]], fps=fps)


def test_a_film_that_cannot_be_written(tmp_path: Path) -> None:
    frames, colours = tinted(2, 32, 32)
    with pytest.raises(OSError, match="cannot write"):
        write_feature_video(tmp_path / "missing" / "film.mp4", frames, colours)


# Timelines.


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
