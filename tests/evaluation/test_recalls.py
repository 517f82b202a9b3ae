"""Recall and ranks, against brute force."""

import numpy as np
import pytest
from by_hand import (
    brute_force,
)

from videoprism_mlx.evaluation.metrics import recalls


@pytest.mark.parametrize("levels", [3, 30, 10**6])
def test_recalls_by_brute_force(levels: int) -> None:
    random = np.random.RandomState(levels)
    for _ in range(40):
        videos, texts = random.randint(1, 25, 2)
        owners = random.randint(0, videos, texts)
        similarity = random.randint(0, levels, (videos, texts)).astype(np.float32)
        similarity[owners, np.arange(texts)] += levels / 3  # Not all is lost.
        found = recalls(similarity, owners)
        assert found == pytest.approx(brute_force(similarity, owners))
        assert all(type(value) is float for value in found.values())


def test_what_is_as_similar_counts_as_before_it() -> None:
    found = recalls(np.full((11, 11), 0.5), np.arange(11))
    for way in ("text_to_video", "video_to_text"):
        assert [found[f"{way}/recall@{most}"] for most in (1, 5, 10)] == [0, 0, 0]
        assert found[f"{way}/median_rank"] == 11
    perfect = recalls(np.eye(11, dtype=int), np.arange(11))
    assert perfect["text_to_video/recall@1"] == perfect["video_to_text/recall@1"] == 1
    own = recalls(np.array([[1.0, 1.0, 0.5]]), np.zeros(3, int))  # Its own texts are no rivals.
    assert own["video_to_text/recall@1"] == 1


@pytest.mark.parametrize(
    ("similarity", "owners", "message"),
    [
        (np.array([[1.0, np.nan], [0, 0]]), np.arange(2), "1 of the similarities are not a number"),
        (np.array([["a"]]), np.arange(1), "similarities are of <U1; expected numbers"),
        (np.zeros(3), np.arange(3), r"have shape \(3,\); expected \(videos, texts\)"),
        (np.zeros((0, 3)), np.arange(3), r"have shape \(0, 3\)"),
        (np.zeros((2, 3)), np.arange(2), r"shape \(2,\); expected a video's number for each of 3"),
        (np.zeros((2, 3)), np.zeros(3), "video_of_text is of float64"),
        (np.zeros((2, 3)), np.array([0, 1, 2]), "numbers from 0 to 2; expected 0 to 1"),
        (np.zeros((2, 3)), np.array([0, 1, -1]), "numbers from -1 to 1; expected 0 to 1"),
    ],
)
def test_what_has_no_recall(similarity: np.ndarray, owners: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recalls(similarity, owners)
