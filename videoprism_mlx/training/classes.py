"""The labelled videos that a classifier is trained on, and their classes."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from videoprism_mlx.datasets.labels import Labelled, checked_names, read_labels, read_names
from videoprism_mlx.datasets.overlap import warn_of_overlap
from videoprism_mlx.errors import InputError, counted
from videoprism_mlx.files.record import digest

# How many names a message lists.
LISTED = 20

logger = logging.getLogger(__name__)


class Lists(NamedTuple):
    """The videos to train on and, if there are any, those to validate on."""

    training: Labelled
    validation: Labelled | None = None

    def count_classes(self) -> int:
        """The number of classes: as many as names or, without names, the highest number plus 1."""
        if self.training.names is not None:
            return len(self.training.names)
        both = (self.training, self.validation or self.training)
        return 1 + max(number for listed in both for labels in listed.labels for number in labels)


def read_lists(
    data: str | Path, val: str | Path | None, labels: str | Path | Sequence[str] | None
) -> Lists:
    """Reads both lists. `labels` are the names of the classes, or a file with a name on each line.

    Raises InputError unless both lists give classes in the same form, the labels to train on
    differ, and a video to validate on has a label.
    """
    if isinstance(labels, (str, Path)):
        labels = read_names(labels)
    elif labels is not None:
        labels = checked_names(labels, "labels")
    training = read_labels(data, labels)
    require_variety(training.labels)
    if val is None:
        return Lists(training)
    validation = read_labels(val, training.names)
    if validation.multi_label != training.multi_label:
        kinds = {True: "a list of classes", False: "one class"}
        raise InputError(
            f"a video has {kinds[training.multi_label]} in {data} and "
            f"{kinds[validation.multi_label]} in {val}; expected the same in both"
        )
    if training.names is None and validation.by_name:
        raise InputError(
            f"{data} gives classes by number and {val} by name; give the names of all classes, in "
            "the order of their numbers, with labels (--labels)"
        )
    require_labels(validation.labels, val)
    warn_of_overlap(training.videos, validation.videos)
    return Lists(training, validation)


def require_labels(labels: Sequence[Sequence[int]], where: object) -> None:
    """Raises InputError unless some video to validate on has a label."""
    if not any(labels):
        raise InputError(f"no video of {where} has a label; expected at least one to validate on")


def require_variety(labels: Sequence[tuple[int, ...]]) -> None:
    """Raises InputError unless the labels of the videos to train on differ."""
    if len(set(labels)) < 2:
        raise InputError(
            f"the labels of the {counted(len(labels), 'video')} to train on do not differ; "
            "expected two classes or more"
        )


def warn_of_unseen(labels: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    """Logs a warning that names the classes without a video to train on."""
    seen = {number for each in labels for number in each}
    unseen = [name for number, name in enumerate(names) if number not in seen]
    if unseen:
        more = f" and {len(unseen) - LISTED} more" if len(unseen) > LISTED else ""
        logger.warning(
            "there is no video to train on for %d of %s, which will not be learned: %s%s",
            len(unseen),
            counted(len(names), "class", "classes"),
            ", ".join(unseen[:LISTED]),
            more,
        )


def described(listed: Labelled) -> dict[str, Any]:
    """A list of videos, for a record: their number, and a checksum of their paths and labels."""
    places = [
        os.path.abspath(video) if isinstance(video, Path) else [*map(os.path.abspath, video)]
        for video in listed.videos
    ]
    return {"videos": len(places), "list": digest([places, listed.labels])}
