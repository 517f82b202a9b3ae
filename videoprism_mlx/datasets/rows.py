"""Rows of a CSV, JSON or JSON Lines file that lists videos.

Paths in a file are relative to the folder that the file is in or, as in the lists of the official
demo, to one above it.
"""

import csv
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import InputError, counted, excerpt, shown
from videoprism_mlx.files.reading import parse_json, read_text
from videoprism_mlx.video.source import Files

# The names that the column or key of the video may have.
VIDEO_KEYS = ("video", "file", "files", "path", "video_id")

# So many rows of a list are looked for in the folders above it.
LOOKED_FOR = 1000

Row = Mapping[str, Any]

logger = logging.getLogger(__name__)


def rows_of(path: Path) -> Iterator[tuple[str, Row]]:
    """The rows of a CSV, a JSON list or JSON lines, each after its place for error messages."""
    text = read_text(path)
    return csv_rows(path, text) if is_csv(path) else json_rows(path, text)


def is_csv(path: Path) -> bool:
    """Whether the file name ends in .csv or .tsv."""
    return path.suffix.lower() in (".csv", ".tsv")


def csv_rows(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    """The rows of a table with a heading, as `rows_of` gives them."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if extra := row.pop(None, None):  # DictReader puts extra fields here.
                raise InputError(
                    f"{where}: has {counted(len(extra), 'more field')} than the heading, such as "
                    f"{shown(extra[0])}; put quotes around texts that contain {delimiter!r}"
                )
            yield where, row
    except csv.Error as error:
        raise InputError(f"{path}, after line {reader.line_num}: {excerpt(error)}") from None


def json_rows(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    """The objects of a JSON list or of JSON lines, as `rows_of` gives them."""
    try:
        if path.suffix.lower() == ".jsonl":
            lines = enumerate(text.split("\n"), 1)
            rows = [parse_json(line, f"line {n}") for n, line in lines if line.strip()]
        else:
            rows = parse_json(text, "it")
    except InputError as error:
        raise InputError(
            f"{path} is not valid JSON: {error}; if it is a table, call it *.csv or *.tsv"
        ) from None
    if not isinstance(rows, list):
        raise InputError(f"{path} holds a {type(rows).__name__}; expected a list of objects")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(
                f"{path}, entry {number}: {shown(row)} is not an object, such as {{…}}"
            )
        yield f"{path}, entry {number}", row


def take(row: Row, keys: Sequence[str], where: str) -> Any:
    """The value of a row under the first of `keys` that it has."""
    for key in keys:
        if row.get(key) is not None:
            return row[key]
    has = excerpt(", ".join(repr(key) for key, value in row.items() if value is not None))
    raise InputError(f"{where}: has {has or 'nothing'}; expected {' or '.join(keys[:2])}")


def base_of(rows: Sequence[tuple[str, Row]], path: Path) -> Path:
    """The folder that the paths in a list are relative to.

    It is the folder of the list or, if that has none of the files, the nearest folder above it that
    has one. If no folder has any, it is the folder of the list.
    """
    values = (next((row[key] for key in VIDEO_KEYS if row.get(key)), None) for _, row in rows)
    firsts = (value[0] if isinstance(value, list) else value for value in values)
    names = [str(name) for name in firsts if is_file_name(name)]
    if any(os.path.exists(path.parent / name) for name in names):
        return path.parent
    for folder in Path(os.path.abspath(path.parent)).parents:
        if any(os.path.exists(folder / name) for name in names[:LOOKED_FOR]):
            logger.info("the paths in %s are relative to %s", path, folder)
            return folder
    return path.parent


def files_of(row: Row, folder: Path, where: str) -> Files:
    """The video file, or the image files, that a row names."""
    value = take(row, VIDEO_KEYS, where)
    names = value if isinstance(value, list) else [value]
    if not names or not all(is_file_name(name) for name in names):
        raise InputError(f"{where}: the video is {shown(value)}; expected a path or a list of them")
    paths = tuple(Path(os.path.normpath(folder / name)) for name in names)
    return paths if isinstance(value, list) else paths[0]


def is_file_name(name: Any) -> bool:
    """Whether a file can have this name."""
    if not isinstance(name, str) or not name.strip():
        return False
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False
