"""Sheets of frames beside their colours, and of search results."""

from typing import Any

import numpy as np
import pytest
from thinned import thinned

from videoprism_mlx.pictures import draw_features, draw_search
from videoprism_mlx.pictures.drawing import CURVE, PEAK


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


SIZES = [(18, 18), (288, 512), (512, 288), (40, 900), (900, 40)]


@pytest.mark.parametrize(("count", "height", "width"), thinned([1, 2, 7, 16], SIZES, keep=2))
def test_every_frame_has_its_colours_beside_it(count: int, height: int, width: int) -> None:
    frames, colours = tinted(count, height, width)
    times = np.arange(count) * 0.5
    sheet = draw_features(frames, colours, times, "a title")
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
    assert max(sheet.shape) < 4000
    places = []
    for images in (frames, colours):
        spots = []
        for image in images:
            ys, xs = np.nonzero((sheet == image[0, 0]).all(-1))
            assert len(ys) >= 100 or min(height, width) < 60
            spots.append((ys.mean(), xs.mean(), len(ys)))
        places.append(np.array(spots))
    of_frames, of_colours = places
    np.testing.assert_allclose(of_frames[:, 2], of_colours[:, 2], rtol=0.02)
    offsets = of_colours[:, :2] - of_frames[:, :2]  # All below, or all to the right.
    np.testing.assert_allclose(offsets, np.broadcast_to(offsets[0], offsets.shape), atol=1)
    assert (offsets[0] > 5).sum() == 1
    order = np.lexsort((of_frames[:, 1].round(), of_frames[:, 0].round()))
    assert order.tolist() == list(range(count))


def test_a_sheet_shows_16_of_many_frames() -> None:
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
        (tinted(2, 8, 8)[0], tinted(2, 8, 8)[1], [0.0], "1 time; expected the same number"),
        (np.zeros((2, 8, 8, 3)), tinted(2, 8, 8)[1], None, "frames are float64"),
        (tinted(2, 8, 8)[0], tinted(2, 8, 8)[1][..., :2], None, "colours are uint8"),
        (tinted(2, 8, 8)[0][:0], tinted(2, 8, 8)[1][:0], None, "expected uint8"),
    ],
)
def test_bad_sheets(frames: Any, colours: Any, times: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_features(frames, colours, times)


def test_search_results_are_drawn_in_their_places() -> None:
    shades = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (90, 60, 150)]
    clips = [
        np.full((5, 8, 8, 3), shade, np.uint8) + np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
        for shade in shades
    ]
    rows = [
        ("right, and wrong", [(clips[0], "0.9", True), (clips[1], "0.8", False)]),
        ("nobody knows", [(clips[2], "0.7", None), (clips[3], "0.6", None)]),
    ]
    sheet = draw_search(rows, frames=3).astype(int)

    def rectangle(colour: tuple[int, ...]) -> tuple[int, int, int, int]:
        ys, xs = np.nonzero((sheet == colour).all(-1))
        return xs.min(), ys.min(), xs.max(), ys.max()

    found = [rectangle(shade) for shade in shades]  # First frames.
    assert found[0][1] == found[1][1] < found[2][1] == found[3][1]
    assert found[0][0] == found[2][0] < found[1][0] == found[3][0]
    for shade, first in zip(shades, found, strict=True):
        middle, last = (rectangle(tuple(np.add(shade, step))) for step in (2, 4))
        assert first[2] < middle[0] and middle[2] < last[0] and first[1] == middle[1] == last[1]
        assert (first[2] - first[0], first[3] - first[1]) == (last[2] - last[0], last[3] - last[1])

    def has_mark(box: tuple[int, ...], colour: str) -> bool:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        below = sheet[box[3] + 1 : box[3] + 38, box[0] : box[0] + 25]
        return bool((below == rgb).all(-1).any())

    assert [has_mark(box, CURVE) for box in found] == [True, False, False, False]
    assert [has_mark(box, PEAK) for box in found] == [False, True, False, False]
    with pytest.raises(ValueError, match="no queries, or one has no results"):
        draw_search([])
