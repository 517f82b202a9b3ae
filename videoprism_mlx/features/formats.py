"""Files of features: NumPy archives, safetensors and JSON lines, written in streams and read.

A file holds arrays with a row for each of its videos or, if the videos have windows, for each of
all their windows; and a record of how the features were made and of which videos.

Shapes: V videos, W windows of all videos.
"""

import json
import math
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
from videoprism_mlx.files.npz import write_array, write_member
from videoprism_mlx.files.record import Record

FORMATS = ("npz", "safetensors", "jsonl")

# The arrays of a NumPy archive that are not features.
RECORD, VIDEOS, VIDEO_OF_WINDOW = "record", "videos", "video_of_window"

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
    return json.dumps({**line, RECORD: {**record, "videos": [video]}}) + "\n"


def read_record(path: Path) -> dict[str, Any]:
    """The record of a file of features."""
    with _explained(path):
        if path.suffix == ".npz":
            with _opened_npz(path) as archive:
                return _checked(json.loads(str(archive[RECORD])))
        if path.suffix == ".safetensors":
            with safe_open(path, "numpy") as file:
                return _checked(json.loads((file.metadata() or {})[RECORD]))
        records = [_checked(line[RECORD]) for line in _lines(path)]
        videos = {record["videos"][0]["name"]: record["videos"][0] for record in records}
        return {**records[0], "videos": list(videos.values())}


def read_features(path: Path) -> Features:
    """The arrays of a file of features, (V, ...) or (W, ...)."""
    with _explained(path):
        if path.suffix == ".npz":
            with _opened_npz(path) as archive:
                beside = (RECORD, VIDEOS, VIDEO_OF_WINDOW)
                return {name: archive[name] for name in archive.files if name not in beside}
        if path.suffix == ".safetensors":
            with safe_open(path, "numpy") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        lines = list(_lines(path))
        names = [name for name in lines[0] if name not in ("video", HALVES, RECORD)]
        kinds: dict[str, Any] = dict.fromkeys(names, np.float32)
        kinds |= dict.fromkeys(lines[0].get(HALVES, []), np.float16)
        kinds |= {"start": np.float64, "end": np.float64}
        return {name: np.array([line[name] for line in lines], kinds[name]) for name in names}


def lazy_features(path: Path) -> dict[str, Rows]:
    """As `read_features`, of a safetensors file. Each array is read when it is written."""

    def read(name: str) -> list[Array]:
        with _explained(path), safe_open(path, "numpy") as file:
            return [file.get_tensor(name)]

    def rows(name: str) -> Rows:
        stored = file.get_slice(name)
        dtype = next(t for t, code in _SAFETENSORS_TYPES.items() if code == stored.get_dtype())
        return Rows(np.dtype(dtype), tuple(stored.get_shape()), lambda: read(name))

    with _explained(path), safe_open(path, "numpy") as file:
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
        RecursionError,
        EOFError,
        NotImplementedError,
        SafetensorError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        raise FeatureFileError(
            f"{path} is damaged, or not a file of features; expected one that `videoprism-mlx "
            "embed` has written: name another output, or remove it"
        ) from None


def _opened_npz(path: Path) -> "np.lib.npyio.NpzFile":
    archive = np.load(path)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("one array instead of an archive")
    return archive


def _checked(record: Any) -> dict[str, Any]:
    """The record, which names videos. Raises ValueError or the like if it does not."""
    if not isinstance(record, dict):
        raise ValueError("no record")
    for video in record["videos"]:
        if not isinstance(video["name"], str) or not isinstance(video.get("path", ""), str):
            raise ValueError("a video without a name or path")
        range(video.get("windows", 1))
    return record


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
