"""The names of a classifier's classes, from the file labels.json in its model directory."""

from pathlib import Path
from typing import NamedTuple

from videoprism_mlx.datasets.labels import checked_names
from videoprism_mlx.errors import CheckpointError, counted, excerpt
from videoprism_mlx.files.checksum import require_checksum
from videoprism_mlx.files.reading import parse_json, read_text
from videoprism_mlx.weights.directory import LABELS_FILE


class Labels(NamedTuple):
    """The names of a classifier's classes. With `multi_label`, a video may have several classes."""

    names: tuple[str, ...]
    multi_label: bool = False


def numbered(count: int) -> tuple[str, ...]:
    """Names for classes without names."""
    return tuple(f"class {number}" for number in range(count))


def load_labels(directory: Path, count: int) -> Labels:
    """The names of the `count` classes of the classifier in `directory`."""
    path = directory / LABELS_FILE
    if not path.is_file():
        return Labels(numbered(count))
    text = read_text(path, CheckpointError)
    try:
        found = parse_json(text, "it")
        names, multi_label = checked_names(found["labels"], path), found["multi_label"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not contain valid class names: {excerpt(error, 200)}"
        ) from None
    if len(names) != count:
        raise CheckpointError(
            f"{path} names {counted(len(names), 'class', 'classes')}; the model has {count}"
        )
    require_checksum(found, path, CheckpointError)
    return Labels(names, bool(multi_label))
