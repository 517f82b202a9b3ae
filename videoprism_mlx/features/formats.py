"""Files of features: NumPy archives, safetensors and JSON lines, written in streams and read.

A file holds arrays with a row for each of its videos or, if the videos have windows, for each of
all their windows; and a record of how the features were made and of which videos.

Shapes: V videos, W windows of all videos.
"""

import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from videoprism_mlx.errors import FeatureFileError
from videoprism_mlx.features.pipeline import Array, Features
from videoprism_mlx.files.npz import NpzFile, write_array, write_member
from videoprism_mlx.files.reading import open_regular, parse_json
from videoprism_mlx.files.record import Record

FORMATS = ("npz", "safetensors", "jsonl")

# The arrays of a NumPy archive that are not features.
RECORD, VIDEOS, VIDEO_OF_WINDOW = "record", "videos", "video_of_window"

# The metadata of a safetensors file that holds the checksums of its record and arrays.
CHECKSUMS = "crc32"

# In a JSON line, the names of the float16 features. All others are float32, and times float64.
HALVES = "float16"

_SAFETENSORS_TYPES = {"float16": "F16", "float32": "F32", "float64": "F64"}


class Rows(NamedTuple):
    """An array that comes in pieces along its first axis."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[Array]]

    @classmethod
    def of(cls, array: Array) -> "Rows":
        """A whole array as one piece."""
        return cls(array.dtype, array.shape, lambda: [array])

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> "Rows":
        """Several arrays, concatenated along the first axis."""
        inner = {(part.dtype, part.shape[1:]) for part in parts}
        if len(inner) > 1:
            raise FeatureFileError(
                f"features of different types or shapes cannot be joined: {inner}"
            )
        shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        pieces = lambda: (piece for part in parts for piece in part.pieces())  # noqa: E731
        return cls(parts[0].dtype, shape, pieces)


def write_features(
    path: Path, file_format: str, arrays: Mapping[str, Rows], record: Record
) -> None:
    """Writes a file of features. The same features give the same bytes."""
    with open(path, "wb") as file:
        if file_format == "npz":
            _write_npz(file, arrays, record)
        elif file_format == "safetensors":
            _write_safetensors(file, arrays, record)
        else:
            _write_json_lines(file, arrays, record)


def _write_npz(file: BinaryIO, arrays: Mapping[str, Rows], record: Record) -> None:
    videos = record["videos"]
    with zipfile.ZipFile(file, "w") as archive:
        for name, rows in arrays.items():
            write_member(archive, name, rows.dtype, rows.shape, rows.pieces())
        write_array(archive, VIDEOS, np.array([video["name"] for video in videos]))
        if any("windows" in video for video in videos):
            counts = [video["windows"] for video in videos]
            write_array(archive, VIDEO_OF_WINDOW, np.repeat(np.arange(len(videos)), counts))
        write_array(archive, RECORD, np.array(json.dumps(record)))


def _write_safetensors(file: BinaryIO, arrays: Mapping[str, Rows], record: Record) -> None:
    described = json.dumps(record)
    checksums = {RECORD: f"{zlib.crc32(described.encode()):08x}", **dict.fromkeys(arrays, "0" * 8)}
    # The header comes first. It is written again with the checksums, which have the same length.
    file.write(_safetensors_header(arrays, described, checksums))
    for name, rows in arrays.items():
        checksum = _first_checksum(name, rows.dtype, rows.shape)
        for piece in rows.pieces():
            data = np.ascontiguousarray(piece).tobytes()
            checksum = zlib.crc32(data, checksum)
            file.write(data)
        checksums[name] = f"{checksum:08x}"
    file.seek(0)
    file.write(_safetensors_header(arrays, described, checksums))


def _safetensors_header(
    arrays: Mapping[str, Rows], described: str, checksums: Mapping[str, str]
) -> bytes:
    metadata = {RECORD: described, CHECKSUMS: json.dumps(checksums)}
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, rows in arrays.items():
        start, end = end, end + rows.dtype.itemsize * math.prod(rows.shape)
        dtype = _SAFETENSORS_TYPES[rows.dtype.name]
        header[name] = {"dtype": dtype, "shape": rows.shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded


def _first_checksum(name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> int:
    """The checksum of what the header says of an array. That of its data continues it."""
    return zlib.crc32(f"{name} {dtype.name} {tuple(shape)}".encode())


def _write_json_lines(file: BinaryIO, arrays: Mapping[str, Rows], record: Record) -> None:
    rows = {
        name: (row for piece in rows.pieces() for row in piece) for name, rows in arrays.items()
    }
    for video in record["videos"]:
        for _ in range(video.get("windows", 1)):
            values = {name: next(each) for name, each in rows.items()}
            file.write(json_line(video, values, record).encode())


def json_line(video: Record, values: Mapping[str, Array], record: Record) -> str:
    """The line of one video or window: its name, its features and how they were made."""
    # The shortest digits that give the same float32: 0.1 instead of 0.10000000149011612.
    short = {
        name: [float(str(x)) for x in value] if value.ndim else float(value)
        for name, value in values.items()
    }
    line: dict[str, Any] = {"video": video["name"], **short}
    if halves := [name for name, value in values.items() if value.dtype == np.float16]:
        line[HALVES] = halves
    line[RECORD] = {**record, "videos": [video]}
    return json.dumps(line, allow_nan=False) + "\n"


def read_record(path: Path) -> dict[str, Any]:
    """The record of a file of features."""
    with _explained(path):
        if path.suffix == ".npz":
            with _opened_npz(path) as archive:
                return _checked(parse_json(str(archive.read(RECORD)), RECORD))
        if path.suffix == ".safetensors":
            with _opened_safetensors(path) as file:
                metadata = file.metadata() or {}
                described = metadata[RECORD]
                _compare(metadata, RECORD, zlib.crc32(described.encode()))
                return _checked(parse_json(described, RECORD))
        records = [_checked(line[RECORD]) for line in _lines(path)]
        videos = {record["videos"][0]["name"]: record["videos"][0] for record in records}
        return {**records[0], "videos": list(videos.values())}


def read_features(path: Path) -> Features:
    """The arrays of a file of features, (V, ...) or (W, ...)."""
    with _explained(path):
        if path.suffix == ".npz":
            with _opened_npz(path) as archive:
                beside = (RECORD, VIDEOS, VIDEO_OF_WINDOW)
                names = [name for name in archive.headers if name not in beside]
                return {name: _require_finite(archive.read(name)) for name in names}
        if path.suffix == ".safetensors":
            with _opened_safetensors(path) as file:
                return {name: _verified(file, name) for name in file.keys()}  # noqa: SIM118
        lines = list(_lines(path))
        names = [name for name in lines[0] if name not in ("video", HALVES, RECORD)]
        kinds: dict[str, Any] = dict.fromkeys(names, np.float32)
        kinds |= dict.fromkeys(lines[0].get(HALVES, []), np.float16)
        kinds |= {"start": np.float64, "end": np.float64}
        with np.errstate(over="ignore"):  # What overflows is not finite.
            return {
                name: _require_finite(np.array([line[name] for line in lines], kinds[name]))
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
        return {name: rows(name) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns all errors from reading a damaged or foreign file into FeatureFileError."""
    try:
        yield
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
    array: Array = file.get_tensor(name)
    checksum = _first_checksum(name, array.dtype, array.shape)
    _compare(file.metadata() or {}, name, zlib.crc32(np.ascontiguousarray(array).data, checksum))
    return _require_finite(array)


def _compare(metadata: Mapping[str, str], name: str, checksum: int) -> None:
    # Earlier versions wrote no checksums.
    if CHECKSUMS in metadata and json.loads(metadata[CHECKSUMS])[name] != f"{checksum:08x}":
        raise ValueError("wrong checksum")


def _require_finite(array: Array) -> Array:
    if not np.isfinite(array).all():
        raise ValueError("NaN or infinity")
    return array


def _checked(record: Any) -> dict[str, Any]:
    """The record, which names videos. Raises ValueError or the like if it does not."""
    if not isinstance(record, dict):
        raise ValueError("no record")
    for video in record["videos"]:
        name = video["name"]
        if not isinstance(name, str) or not isinstance(video.get("path", ""), str):
            raise ValueError("a video without a name or path")
        if os.path.isabs(name) or ".." in Path(name).parts:  # It names a file in a folder.
            raise ValueError("a name that leads elsewhere")
        range(video.get("windows", 1))
    return record


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open_regular(path, FeatureFileError) as file:
        for line in file:
            yield parse_json(line.decode(), "a line")
