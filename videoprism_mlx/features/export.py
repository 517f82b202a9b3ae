"""Files of features: NumPy archives, safetensors and JSON lines, read and written in streams.

A file holds arrays whose first axis runs over its videos or, where they have them, over all their
windows; and a record, which says what made them and of which videos.
"""

import json
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from videoprism_mlx.errors import FeatureFileError
from videoprism_mlx.files.npz import write_member
from videoprism_mlx.files.record import Record

FORMATS = ("npz", "safetensors", "jsonl")

# What stands beside the features in a NumPy archive.
RECORD, VIDEOS, VIDEO_OF_WINDOW = "record", "videos", "video_of_window"

# In a JSON line, the names of what is float16. The rest is float32, times are float64.
HALVES = "float16"

_SAFETENSORS_TYPES = {"float16": "F16", "float32": "F32", "float64": "F64"}


class Rows(NamedTuple):
    """An array that comes in pieces along its first axis."""

    dtype: np.dtype
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[np.ndarray]]

    @classmethod
    def of(cls, array: np.ndarray) -> "Rows":
        """An array that is all there."""
        return cls(array.dtype, array.shape, lambda: [array])

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> "Rows":
        """Arrays one below the other."""
        inner = {(part.dtype, part.shape[1:]) for part in parts}
        if len(inner) > 1:
            raise FeatureFileError(f"features of several types and shapes do not join: {inner}")
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
    beside = {VIDEOS: np.array([video["name"] for video in videos])}
    if any("windows" in video for video in videos):
        counts = [video["windows"] for video in videos]
        beside[VIDEO_OF_WINDOW] = np.repeat(np.arange(len(videos)), counts)
    beside[RECORD] = np.array(json.dumps(record))
    with zipfile.ZipFile(file, "w") as archive:
        for name, rows in {
            **arrays,
            **{key: Rows.of(value) for key, value in beside.items()},
        }.items():
            write_member(archive, name, rows.dtype, rows.shape, rows.pieces())


def _write_safetensors(file: BinaryIO, arrays: Mapping[str, Rows], record: Record) -> None:
    header: dict[str, Any] = {"__metadata__": {RECORD: json.dumps(record)}}
    end = 0
    for name, rows in arrays.items():
        start, end = end, end + rows.dtype.itemsize * math.prod(rows.shape)
        dtype = _SAFETENSORS_TYPES[rows.dtype.name]
        header[name] = {"dtype": dtype, "shape": rows.shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write(len(encoded).to_bytes(8, "little") + encoded)
    for rows in arrays.values():
        for piece in rows.pieces():
            file.write(np.ascontiguousarray(piece).tobytes())


def _write_json_lines(file: BinaryIO, arrays: Mapping[str, Rows], record: Record) -> None:
    rows = {
        name: (row for piece in rows.pieces() for row in piece) for name, rows in arrays.items()
    }
    for video in record["videos"]:
        for _ in range(video.get("windows", 1)):
            values = {name: next(each) for name, each in rows.items()}
            file.write(json_line(video, values, record).encode())


def json_line(video: Record, values: Mapping[str, np.ndarray], record: Record) -> str:
    """The line of one video or window: its name, its features and how they were made."""
    # As short as the type allows: 0.1 for a float32 that prints as 0.1.
    short = {
        name: [float(str(x)) for x in value] if value.ndim else float(value)
        for name, value in values.items()
    }
    line: dict[str, Any] = {"video": video["name"], **short}
    if halves := [name for name, value in values.items() if value.dtype == np.float16]:
        line[HALVES] = halves
    return json.dumps({**line, RECORD: {**record, "videos": [video]}}) + "\n"


def read_record(path: Path) -> dict[str, Any]:
    """The record of a file of features."""
    try:
        if path.suffix == ".npz":
            with np.load(path) as archive:
                return json.loads(str(archive[RECORD]))
        if path.suffix == ".safetensors":
            with safe_open(path, "numpy") as file:
                return json.loads(file.metadata()[RECORD])
        records = [line[RECORD] for line in _lines(path)]
        videos = {record["videos"][0]["name"]: record["videos"][0] for record in records}
        return {**records[0], "videos": list(videos.values())}
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        EOFError,
        SafetensorError,
        zipfile.BadZipFile,
    ):
        raise FeatureFileError(
            f"{path} is damaged, or no file of features; expected what `videoprism-mlx embed` "
            "writes: name another output, or remove it"
        ) from None


def read_features(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file of features, (V, ...) or (W, ...)."""
    if path.suffix == ".npz":
        with np.load(path) as archive:
            beside = (RECORD, VIDEOS, VIDEO_OF_WINDOW)
            return {name: archive[name] for name in archive.files if name not in beside}
    if path.suffix == ".safetensors":
        with safe_open(path, "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    lines = list(_lines(path))
    names = [name for name in lines[0] if name not in ("video", HALVES, RECORD)]
    kinds = dict.fromkeys(names, np.float32) | dict.fromkeys(lines[0].get(HALVES, []), np.float16)
    kinds |= {"start": np.float64, "end": np.float64}
    return {name: np.array([line[name] for line in lines], kinds[name]) for name in names}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def lazy_features(path: Path) -> dict[str, Rows]:
    """As `read_features`, of a safetensors file, each array read when it is written."""

    def rows(name: str) -> Rows:
        with safe_open(path, "numpy") as file:
            stored = file.get_slice(name)
            dtype = next(t for t, code in _SAFETENSORS_TYPES.items() if code == stored.get_dtype())
            shape = tuple(stored.get_shape())
        return Rows(np.dtype(dtype), shape, lambda: [read_features(path)[name]])

    with safe_open(path, "numpy") as file:
        names = list(file.keys())
    return {name: rows(name) for name in names}
