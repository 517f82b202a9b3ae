"""Videos with classes, and the names of classes."""

import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from videoprism_mlx.datasets.rows import Row, base_of, files_of, rows_of, take
from videoprism_mlx.errors import InputError, are, counted, excerpt, shown
from videoprism_mlx.files.reading import read_text
from videoprism_mlx.video.find import files_below, is_video_name, natural_order
from videoprism_mlx.video.source import Files

# The names of the columns or keys for the class.
NUMBER_KEY, NAME_KEY = "label_idx", "label"

# A class number above this and above the number of videos is refused as a mistake.
MOST_CLASSES = 100_000

# How many names an error lists.
LISTED = 8

# A number with more digits is not a class number. int() refuses more than 4,300 digits.
MOST_DIGITS = 1000

logger = logging.getLogger(__name__)


class Labelled(NamedTuple):
    """Videos, the class numbers of each, and the names of all classes if they have any.

    A video has one class or, with `multi_label`, any number of them.
    """

    videos: tuple[Files, ...]
    labels: tuple[tuple[int, ...], ...]
    multi_label: bool
    names: tuple[str, ...] | None
    by_name: bool = False  # Whether the list gives classes by name, not by number.


def read_labels(path: str | Path, names: Sequence[str] | None = None) -> Labelled:
    """Labelled videos from a list as in the official demo, or from a folder of class folders.

    An entry of the list has `file` or `files`. Its `label_idx` is a class number or a list of them;
    its `label` may give the name of the class. If no entry has a `label_idx`, the `label` is the
    class, by number or by name. Folders and names are numbered in alphabetical order. `names`, if
    given, are the names of all classes, in the order of their numbers.
    """
    path = Path(path)
    return labelled_folders(path, names) if path.is_dir() else labelled_rows(path, names)


def labelled_rows(path: Path, names: Sequence[str] | None) -> Labelled:
    """The labelled videos of a JSON list or a CSV."""
    rows = list(rows_of(path))
    has_numbers = any(row.get(NUMBER_KEY) is not None for _, row in rows)
    key, keys = (NUMBER_KEY, [NUMBER_KEY]) if has_numbers else (NAME_KEY, [NUMBER_KEY, NAME_KEY])
    if names is None and not has_numbers:
        names = names_among([row.get(NAME_KEY) for _, row in rows])
        names = names and checked_names(names, path)
    by_name = {} if has_numbers or names is None else {name: n for n, name in enumerate(names)}

    videos, labels, multi_label = [], [], None
    folder = base_of(rows, path)
    for where, row in rows:
        videos.append(files_of(row, folder, where))
        value = take(row, keys, where)
        is_list = isinstance(value, list)
        if multi_label is None:
            multi_label = is_list
        elif is_list != multi_label:
            expected = "a list of classes" if multi_label else "one class"
            raise InputError(
                f"{where}: {key} is {shown(value)}; expected {expected}, as in the entries before"
            )
        numbers = set()
        for one in value if is_list else [value]:
            number = by_name.get(plain_name(one)) if isinstance(one, str) else None
            numbers.add(class_number(one, names, where, key) if number is None else number)
        labels.append(tuple(sorted(numbers)))
    if not videos:
        raise InputError(f"{path} has no entries; expected videos with labels")
    if has_numbers and not multi_label:
        called = names_by_class(rows, labels)
        names = names_of(called) if names is None else names
        warn_of_other_names(called, names, path)
    highest = max((number for each in labels for number in each), default=0)
    if names is None and highest > max(MOST_CLASSES, len(videos)):
        raise InputError(
            f"{path} has a class number {shown(highest)}; correct it or, if there are so many "
            "classes, give their names with labels (--labels)"
        )
    warn_of_contradictions(videos, labels, path)
    kept = None if names is None else tuple(names)
    return Labelled(tuple(videos), tuple(labels), bool(multi_label), kept, bool(by_name))


def labelled_folders(folder: Path, names: Sequence[str] | None) -> Labelled:
    """The videos of a folder that holds a folder for each class."""
    found: dict[str, list[Path]] = {}
    for one in folder.iterdir():
        if one.is_dir() and not one.name.startswith("."):
            videos = [video for video in files_below(one) if is_video_name(video)]
            videos.sort(key=lambda video: (video.parent, natural_order(video)))
            found.setdefault(composed(one.name), []).extend(videos)
    if not any(found.values()):
        raise InputError(f"{folder} has no folders with videos; expected one for each class")
    if loose := sum(is_video_name(one) and one.is_file() for one in folder.iterdir()):
        logger.warning(
            "%s in %s %s left out: not in the folder of a class",
            counted(loose, "video"),
            folder,
            are(loose),
        )
    numbers = {
        name: number for number, name in enumerate(sorted(found) if names is None else names)
    }
    if unknown := sorted(found.keys() - numbers.keys()):
        raise InputError(
            f"{folder} has a folder {excerpt(unknown[0])}; expected one of the {len(numbers)} "
            f"classes: {listed(numbers)}"
        )
    return Labelled(
        videos=tuple(video for name in sorted(found) for video in found[name]),
        labels=tuple((numbers[name],) for name in sorted(found) for _ in found[name]),
        multi_label=False,
        names=checked_names(tuple(numbers), folder),
        by_name=True,
    )


def class_number(value: Any, names: Sequence[str] | None, where: str, key: str) -> int:
    """The number of a class that a row gives by its number."""
    if isinstance(value, str):  # In a CSV, numbers are strings.
        digits = value.strip()
        value = int(digits) if digits.isdecimal() and len(digits) <= MOST_DIGITS else value
    expected = "whole numbers from 0 on" if names is None else f"0 to {len(names) - 1}"
    if names is not None and key == NAME_KEY:
        expected += f" or one of {listed(names)}"
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or value < 0 or (names is not None and value >= len(names)):
        raise InputError(f"{where}: {key} is {shown(value)}; expected {expected}")
    return int(value)


def listed(names: Iterable[str]) -> str:
    """The first names, for a message."""
    first = list(islice(names, LISTED + 1))
    more = ", …" if len(first) > LISTED else ""
    return excerpt(", ".join(first[:LISTED]), 200) + more


def names_by_class(
    rows: Iterable[tuple[str, Row]], labels: Iterable[tuple[int, ...]]
) -> dict[int, set[str]]:
    """The names of each class, in a list whose videos have one class each."""
    called: dict[int, set[str]] = {}
    for (_, row), (number,) in zip(rows, labels, strict=True):
        called.setdefault(number, set()).add(str(row.get(NAME_KEY) or ""))
    return called


def names_of(called: Mapping[int, set[str]]) -> list[str] | None:
    """The names of all classes; None unless each class from 0 on has one name of its own."""
    if set(called) != set(range(len(called))) or any(len(each) != 1 for each in called.values()):
        return None
    names = [next(iter(called[number])) for number in range(len(called))]
    return names if names and all(names) and len(set(names)) == len(names) else None


def names_among(values: Sequence[Any]) -> list[str] | None:
    """The names in a column of labels, sorted; None if all of them are numbers."""
    texts = {
        plain_name(one)
        for value in values
        for one in (value if isinstance(value, list) else [value])
        if isinstance(one, str) and one.strip()
    }
    return None if all(text.isdecimal() for text in texts) else sorted(texts)


def warn_of_other_names(
    called: Mapping[int, set[str]], names: Sequence[str] | None, path: Path
) -> None:
    """Logs a warning if a list gives a class another name than `names` does."""
    for number, texts in sorted(called.items()):
        if names and (others := {plain_name(text) for text in texts if text} - {names[number]}):
            logger.warning(
                "%s gives class %d the name %r, but it is %r here: the number decides",
                path,
                number,
                min(others),
                names[number],
            )
            return


def warn_of_contradictions(
    videos: Sequence[Files], labels: Sequence[tuple[int, ...]], path: Path
) -> None:
    """Logs a warning if a video is listed more than once, with different classes."""
    known: dict[Files, set[tuple[int, ...]]] = {}
    for video, numbers in zip(videos, labels, strict=True):
        known.setdefault(video, set()).add(numbers)
    double = [video for video, each in known.items() if len(each) > 1]
    if double:
        logger.warning(
            "%s in %s %s listed more than once, with different classes, such as %s",
            counted(len(double), "video"),
            path,
            are(len(double)),
            double[0],
        )


def read_names(path: str | Path) -> tuple[str, ...]:
    """The names of classes from a file with a name on each line, in the order of their numbers."""
    path = Path(path)
    lines = read_text(path).rstrip().split("\n")
    return checked_names([line.strip() for line in lines], path)


def checked_names(names: Sequence[Any], where: object) -> tuple[str, ...]:
    """Names of classes. Raises InputError if a name is empty, or two are the same."""
    numbers: dict[str, int] = {}
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise InputError(
                f"{where}: the name of class {number} is {shown(name)}; expected a text"
            )
        if not is_utf8(name):
            raise InputError(
                f"{where}: the name of class {number} is {shown(name)}, which is not text in UTF-8"
            )
        first = numbers.setdefault(composed(name), number)
        if first != number:
            raise InputError(f"{where}: classes {first} and {number} are both called {shown(name)}")
    return tuple(numbers)


def is_utf8(name: str) -> bool:
    """Whether a name can be written as UTF-8. The name of a file may not."""
    return name == name.encode("utf-8", "replace").decode()


def plain_name(name: str) -> str:
    """The name of a class in the form in which names are compared."""
    return composed(name.strip())


def composed(name: str) -> str:
    """A name with each accented letter as one character. Some file systems use two."""
    return unicodedata.normalize("NFC", name)
