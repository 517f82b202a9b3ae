"""Lists of videos with captions or labels, as people keep them.

Paths in a file are taken from the folder that the file is in.
"""

import csv
import io
import json
import logging
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from videoprism_mlx.errors import InputError
from videoprism_mlx.video.sampling import Files, files_below, is_video_name, natural_order

# What a column or key may be called.
VIDEO_KEYS = ("video", "file", "files", "path", "video_id")
CAPTION_KEYS = ("caption", "captions", "text", "sentence")
LABEL_KEYS = NUMBER_KEY, NAME_KEY = "label_idx", "label"

# A number beyond these, and beyond the number of videos, is taken for a mistake.
MOST_CLASSES = 100_000

logger = logging.getLogger(__name__)


class Captioned(NamedTuple):
    """A video and what is said of it, in one or more ways."""

    video: Files
    captions: tuple[str, ...]


def read_captions(path: str | Path) -> list[Captioned]:
    """Videos with captions from a CSV (columns video, caption) or JSON (a list of such objects).

    Rows of the same video are brought together, in the order of first appearance.
    """
    path = Path(path)
    captions: dict[Files, list[str]] = {}
    for where, row in rows_of(path):
        video = files_of(take(row, VIDEO_KEYS, where), path.parent, where)
        said = take(row, CAPTION_KEYS, where)
        for caption in said if isinstance(said, list) and said else [said]:
            if not isinstance(caption, str) or not caption.strip():
                raise InputError(f"{where}: the caption is {caption!r}; expected a text")
            captions.setdefault(video, []).append(caption.strip())
    if not captions:
        raise InputError(f"{path} has no entries; expected videos with captions")
    return [Captioned(video, tuple(said)) for video, said in captions.items()]


def rows_of(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a CSV, a JSON list or JSON lines, each with where it is."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8 ({error})") from None
    if path.suffix.lower() in (".csv", ".tsv"):
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row:
                    raise InputError(
                        f"{where}: has {len(row[None])} more fields than the heading, such as "
                        f"{row[None][0]!r}; put quotes around a text with a {delimiter!r} in it"
                    )
                yield where, row
        except csv.Error as error:
            raise InputError(f"{path}, after line {reader.line_num}: {error}") from None
        return
    try:
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            rows = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is neither JSON ({error}) nor called *.csv") from None
    if not isinstance(rows, list):
        raise InputError(f"{path} holds a {type(rows).__name__}; expected a list of objects")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, entry {number}: {row!r} is no object")
        yield f"{path}, entry {number}", row


def take(row: Mapping[str, Any], keys: Sequence[str], where: str) -> Any:
    """What a row has under one of `keys`."""
    for key in keys:
        if row.get(key) is not None:
            return row[key]
    has = ", ".join(repr(key) for key, value in row.items() if value is not None)
    raise InputError(f"{where}: has {has or 'nothing'}; expected {' or '.join(keys[:2])}")


def files_of(value: Any, folder: Path, where: str) -> Files:
    """The video file, or image files, that a row names."""
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(n, str) and n.strip() and "\0" not in n for n in names):
        raise InputError(f"{where}: the video is {value!r}; expected a path or a list of them")
    paths = tuple(Path(os.path.normpath(folder / name)) for name in names)
    return paths if isinstance(value, list) else paths[0]


def warn_of_overlap(training: Sequence[Files], validation: Sequence[Files]) -> None:
    """Says how many of the videos to validate on are trained on too."""

    def places(videos: Sequence[Files]) -> set[Any]:
        return {
            os.path.realpath(one) if isinstance(one, Path) else tuple(map(os.path.realpath, one))
            for one in videos
        }

    shared = sorted(map(str, places(training) & places(validation)))
    if shared:
        logger.warning(
            "%d of %d videos to validate on are trained on as well, such as %s: "
            "what is measured on them says nothing about new ones",
            len(shared),
            len(places(validation)),
            shared[0],
        )


class Labelled(NamedTuple):
    """Videos, the numbers of the classes of each, and the names of all classes if they have any.

    A video has one class or, with `multi_label`, any number of them.
    """

    videos: tuple[Files, ...]
    labels: tuple[tuple[int, ...], ...]
    multi_label: bool
    names: tuple[str, ...] | None
    by_name: bool = False  # Whether the list itself says names, not numbers.


def read_labels(path: str | Path, names: Sequence[str] | None = None) -> Labelled:
    """Labelled videos: a list as the official demo has it, or a folder with a folder a class.

    An entry of the list says `file` or `files`, and as `label_idx` a class or a list of those; it
    may say as `label` what the class is called. Where none has a `label_idx`, the `label` is the
    class, by number or by name. Folders and names count in the order of the alphabet. `names` of
    classes, if given, are those that there may be, in their order.
    """
    path = Path(path)
    return labelled_folders(path, names) if path.is_dir() else labelled_rows(path, names)


def labelled_rows(path: Path, names: Sequence[str] | None) -> Labelled:
    """The labelled videos of a JSON list or a CSV."""
    rows = list(rows_of(path))
    has_numbers = any(row.get(NUMBER_KEY) is not None for _, row in rows)
    key, keys = (NUMBER_KEY, [NUMBER_KEY]) if has_numbers else (NAME_KEY, LABEL_KEYS)
    if names is None and not has_numbers:
        names = names_among([row.get(NAME_KEY) for _, row in rows])
        names = names and checked_names(names, path)
    by_name = {} if has_numbers or names is None else {name: n for n, name in enumerate(names)}

    videos, labels, multi_label = [], [], None
    called: dict[int, set[Any]] = {}
    for where, row in rows:
        videos.append(files_of(take(row, VIDEO_KEYS, where), path.parent, where))
        value = take(row, keys, where)
        is_list = isinstance(value, list)
        if multi_label is None:
            multi_label = is_list
        elif is_list != multi_label:
            expected = "a list of classes" if multi_label else "one class"
            raise InputError(f"{where}: {key} is {value!r}; expected {expected}, as before it")
        numbers = []
        for one in value if is_list else [value]:
            number = by_name.get(plain_name(one)) if isinstance(one, str) else None
            numbers.append(class_number(one, names, where, key) if number is None else number)
        labels.append(tuple(sorted(set(numbers))))
        if not is_list:
            called.setdefault(numbers[0], set()).add(str(row.get(NAME_KEY) or ""))
    if not videos:
        raise InputError(f"{path} has no entries; expected videos with labels")
    if has_numbers:
        names = names_of(called) if names is None else names
        warn_of_other_names(called, names, path)
    highest = max((number for each in labels for number in each), default=0)
    if names is None and highest > max(MOST_CLASSES, len(videos)):
        raise InputError(
            f"{path} has a class {highest}; if there are that many, say with labels (--labels) "
            "what they are called"
        )
    warn_of_contradictions(videos, labels, path)
    kept = names and tuple(names)
    return Labelled(tuple(videos), tuple(labels), bool(multi_label), kept, bool(by_name))


def warn_of_other_names(
    called: Mapping[int, set[str]], names: Sequence[str] | None, path: Path
) -> None:
    """Says where a list calls a class something else than it is called."""
    for number, texts in sorted(called.items()):
        if names and (others := {plain_name(text) for text in texts if text} - {names[number]}):
            logger.warning(
                "%s calls class %d %r, which is %r here: its number counts",
                path,
                number,
                min(others),
                names[number],
            )
            return


def warn_of_contradictions(
    videos: Sequence[Files], labels: Sequence[tuple[int, ...]], path: Path
) -> None:
    """Says how many videos are listed more than once, as of different classes."""
    known: dict[Files, set[tuple[int, ...]]] = {}
    for video, numbers in zip(videos, labels, strict=True):
        known.setdefault(video, set()).add(numbers)
    double = [video for video, each in known.items() if len(each) > 1]
    if double:
        logger.warning(
            "%d videos in %s are listed as of different classes, such as %s",
            len(double),
            path,
            double[0],
        )


def plain_name(name: str) -> str:
    """The name of a class, as names are compared."""
    return unicodedata.normalize("NFC", name.strip())


def names_among(values: Sequence[Any]) -> list[str] | None:
    """The names in a column of labels; None if all of them are numbers."""
    texts = {
        plain_name(one)
        for value in values
        for one in (value if isinstance(value, list) else [value])
        if isinstance(one, str) and one.strip()
    }
    return None if all(text.isdecimal() for text in texts) else sorted(texts)


def class_number(value: Any, names: Sequence[str] | None, where: str, key: str) -> int:
    """A class that a row names by its number."""
    if isinstance(value, str) and value.strip().isdecimal():  # As a CSV has it.
        value = int(value)
    expected = "whole numbers from 0 on" if names is None else f"0 to {len(names) - 1}"
    if names is not None and key == NAME_KEY:
        expected += f" or one of {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or value < 0 or (names is not None and value >= len(names)):
        raise InputError(f"{where}: {key} is {value!r}; expected {expected}")
    return value


def names_of(called: Mapping[int, set[str]]) -> list[str] | None:
    """The names of the classes from 0 on, where each has one, and no two the same."""
    if set(called) != set(range(len(called))) or any(len(each) != 1 for each in called.values()):
        return None
    names = [next(iter(called[number])) for number in range(len(called))]
    return names if names and all(names) and len(set(names)) == len(names) else None


def labelled_folders(folder: Path, names: Sequence[str] | None) -> Labelled:
    """The videos of a folder that has a folder for each class."""
    found: dict[str, list[Path]] = {}
    for one in folder.iterdir():
        if one.is_dir() and not one.name.startswith("."):
            videos = [video for video in files_below(one) if is_video_name(video)]
            name = unicodedata.normalize("NFC", one.name)  # Some systems take letters apart.
            videos.sort(key=lambda video: (video.parent, natural_order(video)))
            found.setdefault(name, []).extend(videos)
    if not any(found.values()):
        raise InputError(f"{folder} has no folders with videos; expected one for each class")
    if loose := sum(is_video_name(one) and one.is_file() for one in folder.iterdir()):
        logger.warning("%d videos in %s itself have no class, and are left out", loose, folder)
    numbers = {
        name: number for number, name in enumerate(sorted(found) if names is None else names)
    }
    if unknown := sorted(found.keys() - numbers.keys()):
        raise InputError(
            f"{folder} has a folder {unknown[0]}, which is none of the {len(numbers)} classes: "
            f"{', '.join(list(numbers)[:8])}{', …' if len(numbers) > 8 else ''}"
        )
    pairs = [(video, (numbers[name],)) for name in sorted(found) for video in found[name]]
    videos, labels = zip(*pairs, strict=True)
    return Labelled(videos, labels, False, checked_names(tuple(numbers), folder), True)


def read_names(path: str | Path) -> tuple[str, ...]:
    """The names of classes from a file, a line each, in the order of their numbers."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8 ({error})") from None
    return checked_names([line.strip() for line in lines], path)


def is_text(name: str) -> bool:
    """Whether a name can be written down: that of a file may not."""
    return name == name.encode("utf-8", "replace").decode()


def checked_names(names: Sequence[str], where: object) -> tuple[str, ...]:
    """Names of classes, which are not empty and not alike."""
    numbers: dict[str, int] = {}
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{where}: the name of class {number} is {name!r}; expected a text")
        if not is_text(name):
            raise InputError(
                f"{where}: the name of class {number} is {name!r}, which is not text in UTF-8"
            )
        first = numbers.setdefault(unicodedata.normalize("NFC", name), number)
        if first != number:
            raise InputError(f"{where}: classes {first} and {number} are both called {name!r}")
    return tuple(numbers)
