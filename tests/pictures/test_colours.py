"""Features as colours."""

from typing import Any

import numpy as np
import pytest

from videoprism_mlx.pictures import feature_colours, principal_components

RANDOM = np.random.RandomState(0)


def moving_things(frames: int = 6, side: int = 12, width: int = 32) -> tuple[Any, Any]:
    """Features (T, side, side, D) of two things on a ground, and which is where (T, side, side)."""
    kinds = RANDOM.randn(3, width) * 3
    where = np.zeros((frames, side, side), int)
    for frame in range(frames):
        where[frame, 1:5, frame : frame + 4] = 1
        where[frame, 7:11, side - 4 - frame : side - frame] = 2
    return kinds[where] + 0.1 * RANDOM.randn(*where.shape, width), where


def test_similar_features_get_similar_colours_in_all_frames() -> None:
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
        (np.full((1, 2, 2, 3), np.nan), "contain NaN or infinity"),
        (np.full((1, 2, 2, 3), np.inf), "contain NaN or infinity"),
    ],
)
def test_bad_features(features: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        feature_colours(features)
