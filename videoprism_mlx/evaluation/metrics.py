"""How good a classifier's logits are.

Shapes: E examples, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from videoprism_mlx.errors import InputError

# Of so many classes one may be the right one.
FEW = 5


def ranks(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Where the right class comes, 1 for first: (E,), of logits (E, C) and classes (E,).

    What is as likely counts as before it.
    """
    logits, targets = checked(logits, targets, 1)
    own = logits[np.arange(len(targets)), targets]
    return (logits >= own[:, None]).sum(axis=1)  # Itself is among them.


def single_label_metrics(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Top-1 and top-5 accuracy and mean class accuracy of logits (E, C) and classes (E,).

    Top-5 is of all classes where they are fewer. Mean class accuracy is the mean, over the classes
    that there are examples of, of the accuracy within each.
    """
    places = ranks(logits, targets)
    return {
        "top1": float((places == 1).mean()),
        "top5": float((places <= FEW).mean()),
        "mean_class_accuracy": float(np.nanmean(class_accuracies(logits, targets))),
    }


def class_accuracies(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Top-1 accuracy within each class (C,), NaN where there is no example."""
    count = np.asarray(logits).shape[-1]
    right = np.bincount(targets, ranks(logits, targets) == 1, minlength=count)
    examples = np.bincount(targets, minlength=count)
    return np.divide(right, examples, out=np.full(count, np.nan), where=examples > 0)


def multi_label_metrics(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Mean average precision and mean class accuracy of logits and multi-hot targets (E, C).

    The first is the mean over the classes that there are examples of; the second the mean over all
    classes of how often a logit above 0 is right.
    """
    logits, targets = checked(logits, targets, 2)
    precisions = average_precisions(logits, targets)
    if np.isnan(precisions).all():
        raise InputError("no example has a label: there is no precision to average")
    return {
        "map": float(np.nanmean(precisions)),
        "mean_class_accuracy": float(((logits > 0) == (targets > 0)).mean()),
    }


def average_precisions(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The average precision of each class (C,), NaN where there is no example."""
    logits, targets = checked(logits, targets, 2)
    return np.array([average_precision(*pair) for pair in zip(logits.T, targets.T, strict=True)])


def average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """The sum, over falling thresholds, of precision times gain in recall, of scores (E,).

    Examples of one score pass the threshold together. NaN if no target (E,) is above 0.
    """
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], np.cumsum(targets[order] > 0)
    if not len(scores) or found[-1] == 0:
        return np.nan
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # Of each score.
    precision = found[last] / (last + 1)
    return float((np.diff(found[last], prepend=0) * precision).sum() / found[-1])


def checked(
    logits: np.ndarray, targets: np.ndarray, target_axes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (E, C) that are finite, and as many targets."""
    logits, targets = np.asarray(logits), np.asarray(targets)
    expected = logits.shape[:target_axes]
    if logits.ndim != 2 or 0 in logits.shape or targets.shape != expected:
        raise InputError(
            f"logits are {logits.shape} and targets {targets.shape}; expected (examples, classes) "
            f"and {'(examples,)' if target_axes == 1 else 'the same'}"
        )
    if not np.isfinite(logits).all():
        raise InputError(f"{(~np.isfinite(logits)).sum()} of the logits are NaN or infinity")
    if target_axes == 1 and not (targets.min() >= 0 and targets.max() < logits.shape[1]):
        raise InputError(
            f"targets are from {targets.min()} to {targets.max()}; "
            f"expected 0 to {logits.shape[1] - 1}"
        )
    return logits, targets


def class_rows(
    logits: np.ndarray, targets: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """What is measured of each class: logits (E, C), and classes (E,) or those multi-hot."""
    if targets.ndim == 2:
        kind, values, counts = "average_precision", average_precisions, targets.sum(axis=0)
    else:
        kind, values = "accuracy", class_accuracies
        counts = np.bincount(targets, minlength=len(names))
    return [
        {"name": name, "examples": int(count), kind: float(value) if count else None}
        for name, count, value in zip(names, counts, values(logits, targets), strict=True)
    ]


def multi_hot(labels: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """Classes of each video as (E, C), true where it has the class."""
    targets = np.zeros((len(labels), count), bool)
    for row, numbers in enumerate(labels):
        targets[row, list(numbers)] = True
    return targets
