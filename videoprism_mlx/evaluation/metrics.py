"""Metrics: accuracy and average precision of classifiers, recall and rank of retrieval.

Shapes: E examples, C classes, V videos, Q texts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import InputError, counted
from videoprism_mlx.runtime.rounding import first_equal

Array = npt.NDArray[Any]

# How many classes top-5 accuracy looks at.
TOP = 5

# The names of the metrics in tables and pictures.
TITLES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "map": "mean average precision",
}

# The ranks up to which recall is measured.
RECALL_RANKS = (1, 5, 10)


# Classification.


def ranks(logits: Array, targets: Array) -> npt.NDArray[np.intp]:
    """The rank of the right class of each example (E,), from logits (E, C) and classes (E,).

    Rank 1 is the highest logit. In a tie, the right class gets the last of the tied ranks.
    """
    logits, targets = checked(logits, targets, 1)
    own = logits[np.arange(len(targets)), targets]
    places: npt.NDArray[np.intp] = (logits >= own[:, None]).sum(axis=1)  # It counts itself.
    return places


def single_label_metrics(logits: Array, targets: Array) -> dict[str, float]:
    """Top-1 and top-5 accuracy and mean class accuracy, from logits (E, C) and classes (E,).

    With five classes or fewer, top-5 accuracy is 1. Mean class accuracy is the mean of the
    accuracies of all classes that have examples.
    """
    places = ranks(logits, targets)
    return {
        "top1": float((places == 1).mean()),
        "top5": float((places <= TOP).mean()),
        "mean_class_accuracy": float(np.nanmean(class_accuracies(logits, targets))),
    }


def class_accuracies(logits: Array, targets: Array) -> npt.NDArray[np.float64]:
    """The top-1 accuracy of each class (C,); NaN for classes without examples."""
    count = np.asarray(logits).shape[-1]
    right = np.bincount(targets, ranks(logits, targets) == 1, minlength=count)
    examples = np.bincount(targets, minlength=count)
    accuracies = np.full(count, np.nan)
    np.divide(right, examples, out=accuracies, where=examples > 0)
    return accuracies


def multi_label_metrics(logits: Array, targets: Array) -> dict[str, float]:
    """Mean average precision and mean class accuracy, from logits and multi-hot targets (E, C).

    Mean average precision is the mean over the classes that have examples. Mean class accuracy is
    the share of right decisions when a logit above 0 means that the example has the class.
    """
    logits, targets = checked(logits, targets, 2)
    precisions = average_precisions(logits, targets)
    if np.isnan(precisions).all():
        raise InputError("no example has a label: there is no precision to average")
    return {
        "map": float(np.nanmean(precisions)),
        "mean_class_accuracy": float(((logits > 0) == (targets > 0)).mean()),
    }


def average_precisions(logits: Array, targets: Array) -> npt.NDArray[np.float64]:
    """The average precision of each class (C,); NaN for classes without examples."""
    logits, targets = checked(logits, targets, 2)
    return np.array([average_precision(*pair) for pair in zip(logits.T, targets.T, strict=True)])


def average_precision(scores: Array, targets: Array) -> float:
    """The average precision of scores (E,) for targets (E,): the sum of precision x recall gain.

    The sum is over falling thresholds; examples with equal scores pass a threshold together. NaN if
    no target is above 0.
    """
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], np.cumsum(targets[order] > 0)
    if not len(scores) or found[-1] == 0:
        return np.nan
    # The last example with each score.
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    precision = found[last] / (last + 1)
    return float((np.diff(found[last], prepend=0) * precision).sum() / found[-1])


def checked(logits: Array, targets: Array, target_axes: int) -> tuple[Array, Array]:
    """Logits (E, C) and targets as arrays.

    Raises InputError unless the logits are finite and the targets have a fitting shape: (E,) if
    `target_axes` is 1, (E, C) if it is 2.
    """
    logits, targets = np.asarray(logits), np.asarray(targets)
    expected = logits.shape[:target_axes]
    if logits.ndim != 2 or 0 in logits.shape or targets.shape != expected:
        raise InputError(
            f"logits are {logits.shape} and targets {targets.shape}; expected (examples, classes) "
            f"and {'(examples,)' if target_axes == 1 else 'the same'}"
        )
    for name, array, kinds in (("logits", logits, "fiub"), ("targets", targets, "fiub")):
        if array.dtype.kind not in kinds:
            raise InputError(f"{name} are of {array.dtype}; expected numbers")
    if not np.isfinite(logits).all():
        raise InputError(f"{(~np.isfinite(logits)).sum()} of the logits are NaN or infinity")
    if target_axes == 1:
        if targets.dtype.kind not in "iu":
            raise InputError(f"targets are of {targets.dtype}; expected whole numbers")
        if not (targets.min() >= 0 and targets.max() < logits.shape[1]):
            raise InputError(
                f"targets are from {targets.min()} to {targets.max()}; "
                f"expected 0 to {logits.shape[1] - 1}"
            )
    return logits, targets


def class_rows(logits: Array, targets: Array, names: Sequence[str]) -> list[dict[str, Any]]:
    """The metrics of each class, from logits (E, C) and targets (E,) or (E, C)."""
    if targets.ndim == 2:
        kind, values, counts = "average_precision", average_precisions, targets.sum(axis=0)
    else:
        kind, values = "accuracy", class_accuracies
        counts = np.bincount(targets, minlength=len(names))
    return [
        {"name": name, "examples": int(count), kind: float(value) if count else None}
        for name, count, value in zip(names, counts, values(logits, targets), strict=True)
    ]


def multi_hot(labels: Sequence[Sequence[int]], count: int) -> npt.NDArray[np.bool_]:
    """The classes of each example as (E, C): true where the example has the class."""
    targets = np.zeros((len(labels), count), bool)
    for row, numbers in enumerate(labels):
        targets[row, list(numbers)] = True
    return targets


def cosines(videos: Array, texts: Array) -> Array:
    """The cosines (V, Q) of embeddings of videos (V, D) and texts (Q, D), all of length one.

    Equal embeddings have equal cosines, so that `recalls` sees a tie where there is one: a matrix
    product may round equal rows and columns differently, by their place in the matrix.
    """
    (rows, row_of), (columns, column_of) = first_equal(videos), first_equal(texts)
    distinct: Array = videos[rows] @ texts[columns].T
    return distinct[np.ix_(row_of, column_of)]


def recalls(similarity: Array, video_of_text: Array) -> dict[str, float]:
    """Recall at 1, 5 and 10 (0 to 1), median and mean rank, from similarities (V, Q).

    Text q belongs to the video `video_of_text[q]`. From text to video, each text ranks all videos.
    From video to text, each video ranks all texts, and the best rank among its own texts counts.
    In a tie, the right answer gets the last of the tied ranks.
    """
    similarity, owners = checked_similarity(similarity, video_of_text)
    texts = np.arange(len(owners))
    own = similarity[owners, texts]  # (Q,)
    by_text = (similarity >= own).sum(axis=0)  # It counts itself.
    best = np.full(len(similarity), -np.inf, similarity.dtype)
    np.maximum.at(best, owners, own)
    as_good = similarity >= best[:, None]
    as_good[owners, texts] = False
    by_video = 1 + as_good.sum(axis=1)[np.unique(owners)]
    return {
        f"{direction}/{name}": value
        for direction, ranks in (("text_to_video", by_text), ("video_to_text", by_video))
        for name, value in rank_metrics(ranks).items()
    }


def checked_similarity(similarity: Array, video_of_text: Array) -> tuple[Array, Array]:
    """Similarities (V, Q) as floats, and the video of each text (Q,), once both are valid."""
    similarity, owners = np.asarray(similarity), np.asarray(video_of_text)
    if similarity.ndim != 2 or 0 in similarity.shape:
        raise InputError(f"similarities have shape {similarity.shape}; expected (videos, texts)")
    if similarity.dtype.kind not in "fiub":
        raise InputError(f"similarities are of {similarity.dtype}; expected numbers")
    if owners.shape != similarity.shape[1:] or owners.dtype.kind not in "iu":
        raise InputError(
            f"video_of_text is of {owners.dtype} and shape {owners.shape}; "
            f"expected a video's number for each of {counted(similarity.shape[1], 'text')}"
        )
    if owners.min() < 0 or owners.max() >= len(similarity):
        raise InputError(
            f"video_of_text has numbers from {owners.min()} to {owners.max()}; "
            f"expected 0 to {len(similarity) - 1}"
        )
    if np.isnan(similarity).any():
        raise InputError(f"{np.isnan(similarity).sum()} of the similarities are not a number")
    if similarity.dtype.kind != "f":
        similarity = similarity.astype(np.float64)
    return similarity, owners


def rank_metrics(ranks: Array) -> dict[str, float]:
    """Recalls, median and mean of ranks, which start at 1."""
    return {
        **{f"recall@{most}": float((ranks <= most).mean()) for most in RECALL_RANKS},
        "median_rank": float(np.median(ranks)),
        "mean_rank": float(ranks.mean()),
    }
