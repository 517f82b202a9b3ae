"""Metrics against known answers, and against the definitions written out."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from videoprism_mlx.evaluation.metrics import (
    average_precision,
    average_precisions,
    class_accuracies,
    multi_label_metrics,
    ranks,
    single_label_metrics,
)
from videoprism_mlx.features.text import class_probabilities

RANDOM = np.random.RandomState(0)


def test_known_answers_of_single_labels() -> None:
    logits = np.array(
        [
            [9, 8, 7, 6, 5, 4],  # Class 0 is first.
            [9, 8, 7, 6, 5, 4],  # Class 4 is fifth.
            [9, 8, 7, 6, 5, 4],  # Class 5 is last.
            [0, 0, 3, 0, 0, 0],
        ],
        np.float32,
    )
    targets = np.array([0, 4, 5, 2])
    assert ranks(logits, targets).tolist() == [1, 5, 6, 1]
    assert single_label_metrics(logits, targets) == {
        "top1": 0.5,
        "top5": 0.75,
        "mean_class_accuracy": 0.5,
    }
    # Class 0 is right twice of three times; 1 once of once; there is none of the others.
    logits = np.eye(4)[[0, 0, 1, 1]]
    accuracies = class_accuracies(logits, np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(accuracies, [2 / 3, 1, np.nan, np.nan])
    measured = single_label_metrics(logits, np.array([0, 0, 0, 1]))
    assert measured["mean_class_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert measured["top1"] == 0.75


def test_top5_of_fewer_classes_is_of_all() -> None:
    logits = RANDOM.randn(20, 3)
    assert single_label_metrics(logits, RANDOM.randint(0, 3, 20))["top5"] == 1.0


def test_what_is_as_likely_counts_as_before() -> None:
    assert single_label_metrics(np.zeros((4, 6)), np.arange(4)) == {
        "top1": 0.0,
        "top5": 0.0,
        "mean_class_accuracy": 0.0,
    }


def test_single_labels_by_sorting() -> None:
    logits, targets = RANDOM.randn(300, 12), RANDOM.randint(0, 12, 300)
    logits[np.arange(300), targets] += 1.0
    order = np.argsort(-logits, axis=1)
    top1 = [order[row, 0] == targets[row] for row in range(300)]
    top5 = [targets[row] in order[row, :5] for row in range(300)]
    by_class = [np.mean(np.array(top1)[targets == c]) for c in range(12)]
    measured = single_label_metrics(logits, targets)
    assert measured["top1"] == pytest.approx(np.mean(top1))
    assert measured["top5"] == pytest.approx(np.mean(top5))
    assert measured["mean_class_accuracy"] == pytest.approx(np.mean(by_class))
    np.testing.assert_allclose(class_accuracies(logits, targets), by_class)


def by_thresholds(scores: np.ndarray, targets: np.ndarray) -> float:
    """Average precision as its definition says it: threshold by threshold."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        precision = targets[chosen].mean()
        recall = targets[chosen].sum() / targets.sum()
        total += (recall - recall_before) * precision
        recall_before = recall
    return total


@pytest.mark.parametrize(
    ("scores", "targets", "expected"),
    [
        # The example of scikit-learn's average_precision_score.
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.8333333333333333),
        ([3, 2, 1], [1, 1, 1], 1.0),
        ([3, 2, 1], [0, 0, 1], 1 / 3),
        ([3, 2, 1], [1, 0, 1], 0.5 * 1 + 0.5 * 2 / 3),
        ([5, 5, 5, 5], [1, 0, 0, 0], 0.25),  # All pass the threshold at once.
        ([2, 1, 1], [0, 1, 0], 1 / 3),
        ([2, 1, 1, 0], [1, 0, 1, 1], (1 + 2 / 3 + 3 / 4) / 3),
    ],
)
def test_known_average_precisions(scores: list[float], targets: list[int], expected: float) -> None:
    found = average_precision(np.array(scores, np.float32), np.array(targets))
    assert found == pytest.approx(expected)
    assert by_thresholds(np.array(scores), np.array(targets)) == pytest.approx(expected)


@pytest.mark.parametrize("levels", [3, 10, 10_000])
def test_average_precision_by_thresholds(levels: int) -> None:
    for _ in range(20):
        targets = RANDOM.rand(40) < 0.3
        targets[0] = True
        scores = RANDOM.randint(0, levels, 40) / 7 - 2 + targets
        assert average_precision(scores, targets) == pytest.approx(by_thresholds(scores, targets))


def test_multi_labels() -> None:
    logits, targets = RANDOM.randn(50, 6), RANDOM.rand(50, 6) < 0.3
    targets[:, 2] = False  # No example: not in the mean of the precisions.
    measured = multi_label_metrics(logits, targets)
    present = [0, 1, 3, 4, 5]
    expected = [by_thresholds(logits[:, c], targets[:, c]) for c in present]
    assert measured["map"] == pytest.approx(np.mean(expected))
    right = [(logits[:, c] > 0) == targets[:, c] for c in range(6)]
    assert measured["mean_class_accuracy"] == pytest.approx(np.mean(right))
    precisions = average_precisions(logits, targets)
    np.testing.assert_allclose(precisions[present], expected)
    assert np.isnan(precisions[2])


def test_a_logit_of_zero_is_no() -> None:
    measured = multi_label_metrics(np.zeros((2, 2)), np.array([[1, 0], [0, 0]]))
    assert measured == {"map": 0.5, "mean_class_accuracy": 0.75}


@pytest.mark.parametrize(
    ("measure", "logits", "targets", "message"),
    [
        (single_label_metrics, np.zeros((3, 2)), np.zeros(2, int), r"\(3, 2\) and targets \(2,\)"),
        (single_label_metrics, np.zeros((0, 2)), np.zeros(0, int), "expected"),
        (single_label_metrics, np.zeros((1, 2)), np.array([2]), "from 2 to 2; expected 0 to 1"),
        (single_label_metrics, np.zeros((1, 2)), np.array([-1]), "expected 0 to 1"),
        (single_label_metrics, np.full((1, 2), np.nan), np.array([0]), "2 of the logits are NaN"),
        (single_label_metrics, np.zeros((1, 2)), np.zeros(1), "of float64; expected whole numbers"),
        (single_label_metrics, np.array([["a", "b"]]), np.array([0]), "logits are of <U1"),
        (multi_label_metrics, np.zeros((3, 2)), np.zeros((3, 3)), "the same"),
        (multi_label_metrics, np.zeros((3, 2)), np.zeros((3, 2)), "no example has a label"),
        (multi_label_metrics, np.full((1, 2), np.inf), np.ones((1, 2)), "NaN or infinity"),
    ],
)
def test_bad_input(
    measure: Callable[..., object], logits: np.ndarray, targets: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure(logits, targets)


def test_probabilities() -> None:
    logits = np.array([[1.0, -2.0, 800.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(
        class_probabilities(logits, True), [[0.731059, 0.119203, 1], [0.5, 0.5, 0.5]], atol=1e-6
    )
    np.testing.assert_allclose(class_probabilities(logits, False)[1], [1 / 3] * 3)
    halved = class_probabilities(logits, True, temperature=2)
    assert halved[0, 0] == pytest.approx(1 / (1 + math.exp(-0.5)))
    with pytest.raises(ValueError, match="temperature is 0"):
        class_probabilities(logits, True, temperature=0)
