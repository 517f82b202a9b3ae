"""Files of features: NumPy archives, safetensors, JSON lines and Parquet.

They are written in streams.

A file holds arrays with a row for each of its videos or, if the videos have windows, for each of
all their windows; and a record of how the features were made and of which videos.

Shapes: V videos, W windows of all videos.
"""

import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from videoprism_mlx.errors import FeatureFileError, MissingLibraryError
from videoprism_mlx.features.formats.parquet import (
    read_parquet,
    read_parquet_record,
    write_parquet,
)
from videoprism_mlx.features.formats.rows import (
    CHECKSUMS,
    HALVES,
    RECORD,
    TEXTS,
    VIDEO_OF_WINDOW,
    VIDEOS,
    Rows,
    checksum_of,
    finite,
    has_windows,
    owners,
    rows_named,
    summed,
    verified,
    verified_record,
)
from videoprism_mlx.features.pipeline import Array, Features
from videoprism_mlx.files.checksum import CHECKSUM, is_intact, with_checksum
from videoprism_mlx.files.npz import NpzFile, write_array, write_member
from videoprism_mlx.files.reading import open_regular, parse_json
from videoprism_mlx.files.record import Record

FORMATS = ("npz", "safetensors", "jsonl", "parquet")

# The formats with a line or row for each video or window, in which each feature is one vector.
VECTORS_ONLY = ("jsonl", "parquet")

_SAFETENSORS_TYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64"}


def write_features(
    path: Path, file_format: str, arrays: Mapping[str, Rows], record: Record
) -> None:
    """Writes a file of features. The same features give the same bytes."""
    with open(path, "wb") as file:
        if file_format == "npz":
            _write_npz(file, arrays, record)
        elif file_format == "safetensors":
            _write_safetensors(file, arrays, record)
        elif file_format == "parquet":
            write_parquet(file, arrays, record)
        else:
            _write_json_lines(file, arrays, record)


def _write_npz(file: BinaryIO, arrays: Mapping[str, Rows], record: Record) -> None:
    kind, videos = rows_named(record)
    with zipfile.ZipFile(file, "w") as archive:
        for name, rows in arrays.items():
            write_member(archive, name, rows.dtype, rows.shape, rows.pieces())
        write_array(archive, kind, np.array([video["name"] for video in videos]))
        if has_windows(videos):
            write_array(archive, VIDEO_OF_WINDOW, owners(videos))
        write_array(archive, RECORD, np.array(json.dumps(record)))


def _write_safetensors(file: BinaryIO, arrays: Mapping[str, Rows], record: Record) -> None:
    kind, videos = rows_named(record)
    if has_windows(videos):
        arrays = {**arrays, VIDEO_OF_WINDOW: Rows.of(owners(videos))}
    described = json.dumps(record)
    checksums = {RECORD: checksum_of(described), **dict.fromkeys(arrays, "0" * 8)}
    names = json.dumps([video["name"] for video in videos])
    metadata = {RECORD: described, CHECKSUMS: json.dumps(checksums), kind: names}
    # The header comes first. It is written again with the checksums, which have the same length.
    file.write(_safetensors_header(arrays, metadata))
    for name, rows in arrays.items():
        for piece in summed(name, rows, checksums).pieces():
            file.write(piece.tobytes())
    metadata[CHECKSUMS] = json.dumps(checksums)
    file.seek(0)
    file.write(_safetensors_header(arrays, metadata))


def _safetensors_header(arrays: Mapping[str, Rows], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, rows in arrays.items():
        start, end = end, end + rows.dtype.itemsize * math.prod(rows.shape)
        dtype = _SAFETENSORS_TYPES[rows.dtype.name]
        header[name] = {"dtype": dtype, "shape": rows.shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded


def _write_json_lines(file: BinaryIO, arrays: Mapping[str, Rows], record: Record) -> None:
    rows = {
        name: (row for piece in rows.pieces() for row in piece) for name, rows in arrays.items()
    }
    for video in rows_named(record)[1]:
        for _ in range(video.get("windows", 1)):
            values = {name: next(each) for name, each in rows.items()}
            file.write(json_line(video, values, record).encode())


def json_line(video: Record, values: Mapping[str, Array], record: Record) -> str:
    """The line of one video, window or text: its name, its features and how they were made."""
    # The shortest digits that give the same float32: 0.1 instead of 0.10000000149011612.
    short = {
        name: [float(str(x)) for x in value] if value.ndim else float(value)
        for name, value in values.items()
    }
    kind, _ = rows_named(record)
    line: dict[str, Any] = {kind[:-1]: video["name"], **short}
    if halves := [name for name, value in values.items() if value.dtype == np.float16]:
        line[HALVES] = halves
    line[RECORD] = {**record, kind: [video]}
    return json.dumps(with_checksum(line), allow_nan=False) + "\n"


def read_record(path: Path) -> dict[str, Any]:
    """The record of a file of features."""
    with _explained(path):
        if path.suffix == ".npz":
            with _opened_npz(path) as archive:
                return _checked(parse_json(str(archive.read(RECORD)), RECORD))
        if path.suffix == ".safetensors":
            with _opened_safetensors(path) as file:
                return _checked(verified_record(file.metadata() or {}))
        if path.suffix == ".parquet":
            return _checked(read_parquet_record(path))
        records = [_checked(line[RECORD]) for line in _lines(path)]
        kind, _ = rows_named(records[0])
        items = {record[kind][0]["name"]: record[kind][0] for record in records}
        return {**records[0], kind: list(items.values())}


def read_features(path: Path) -> Features:
    """The arrays of a file of features, (V, ...) or (W, ...)."""
    with _explained(path):
        if path.suffix == ".npz":
            with _opened_npz(path) as archive:
                beside = (RECORD, VIDEOS, TEXTS, VIDEO_OF_WINDOW)
                names = [name for name in archive.headers if name not in beside]
                return {name: finite(archive.read(name)) for name in names}
        if path.suffix == ".safetensors":
            with _opened_safetensors(path) as file:
                return {name: _verified(file, name) for name in _features_in(file)}
        if path.suffix == ".parquet":
            return read_parquet(path)
        lines = list(_lines(path))
        names = [name for name in lines[0] if name not in ("video", "text", HALVES, RECORD)]
        kinds: dict[str, Any] = dict.fromkeys(names, np.float32)
        kinds |= dict.fromkeys(lines[0].get(HALVES, []), np.float16)
        kinds |= {"start": np.float64, "end": np.float64}
        if any(isinstance(line[name], str) for line in lines for name in names):
            raise ValueError("a text in the place of numbers")
        with np.errstate(over="ignore"):  # What overflows is not finite.
            return {
                name: finite(np.array([line[name] for line in lines], kinds[name]))
                for name in names
            }


def lazy_features(path: Path) -> dict[str, Rows]:
    """As `read_features`, of a safetensors file. Each array is read and checked when written."""

    def read(name: str) -> list[Array]:
        with _explained(path), _opened_safetensors(path) as file:
            return [_verified(file, name)]

    def rows(name: str) -> Rows:
        stored = file.get_slice(name)
        dtype = next(t for t, code in _SAFETENSORS_TYPES.items() if code == stored.get_dtype())
        return Rows(np.dtype(dtype), tuple(stored.get_shape()), lambda: read(name))

    with _explained(path), _opened_safetensors(path) as file:
        return {name: rows(name) for name in _features_in(file)}


def _features_in(file: Any) -> list[str]:
    """The names of the features in an open safetensors file."""
    return [name for name in file.keys() if name != VIDEO_OF_WINDOW]  # noqa: SIM118


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns all errors from reading a damaged or foreign file into FeatureFileError."""
    try:
        yield
    except MissingLibraryError:
        raise
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        ArithmeticError,
        SafetensorError,
    ):
        raise FeatureFileError(
            f"{path} is damaged, or not a file of features; expected one that `videoprism-mlx "
            "embed` has written: name another output, or remove it"
        ) from None


def _opened_npz(path: Path) -> NpzFile:
    return NpzFile(path, FeatureFileError, "name another output, or remove it")


def _opened_safetensors(path: Path) -> Any:
    open_regular(path, FeatureFileError).close()  # The library would wait at a pipe.
    return safe_open(path, "numpy")


def _verified(file: Any, name: str) -> Array:
    """An array of a safetensors file. Raises ValueError if its checksum is wrong."""
    return verified(file.metadata() or {}, name, file.get_tensor(name))


def _checked(record: Any) -> dict[str, Any]:
    """The record, which names videos or texts. Raises ValueError or the like if it does not."""
    if not isinstance(record, dict):
        raise ValueError("no record")
    kind, _ = rows_named(record)
    for item in record[kind]:
        name = item["name"]
        if not isinstance(name, str) or not isinstance(item.get("path", ""), str):
            raise ValueError("a video without a name or path")
        # The name of a video names a file in a folder.
        if kind == VIDEOS and (os.path.isabs(name) or ".." in Path(name).parts):
            raise ValueError("a name that leads elsewhere")
        range(item.get("windows", 1))
    return record


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open_regular(path, FeatureFileError) as file:
        for line in file:
            found = parse_json(line.decode(), "a line")
            if not is_intact(found):
                raise ValueError("wrong checksum")
            found.pop(CHECKSUM, None)
            yield found
