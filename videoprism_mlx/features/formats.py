"""Files of features: NumPy archives, safetensors, JSON lines and Parquet.

They are written in streams.

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
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from videoprism_mlx.errors import FeatureFileError
from videoprism_mlx.features.pipeline import Array, Features
from videoprism_mlx.files.npz import write_array, write_member
from videoprism_mlx.files.record import Record
from videoprism_mlx.runtime.libraries import require_library

FORMATS = ("npz", "safetensors", "jsonl", "parquet")

# The formats with a line or row for each video or window, in which each feature is one vector.
VECTORS_ONLY = ("jsonl", "parquet")

# What a file holds besides features. In a safetensors file, the record and the names of the videos
# are metadata, because the format has no texts.
RECORD, VIDEOS, VIDEO_OF_WINDOW = "record", "videos", "video_of_window"

# What a file of text embeddings holds instead of VIDEOS.
TEXTS = "texts"

# The key of the names of the float16 features, in a JSON line and in the metadata of a Parquet
# file. All others are float32, and times float64.
HALVES = "float16"

_SAFETENSORS_TYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64"}

# Rows of a Parquet file that are written at a time.
ROW_GROUP = 1024


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

    def groups(self, size: int) -> Iterator[Array]:
        """The array in groups of `size` rows, the last of which may be smaller."""
        held: list[Array] = []
        count = 0
        for piece in self.pieces():
            while len(piece) and count + len(piece) >= size:
                part, piece = piece[: size - count], piece[size - count :]
                yield np.concatenate([*held, part])
                held, count = [], 0
            held.append(piece)
            count += len(piece)
        if count:
            yield np.concatenate(held)


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
            _write_parquet(file, arrays, record)
        else:
            _write_json_lines(file, arrays, record)


def rows_named(record: Record) -> tuple[str, Sequence[Record]]:
    """What the rows of a file belong to: VIDEOS or TEXTS, and a mapping with the `name` of each."""
    kind = TEXTS if TEXTS in record else VIDEOS
    return kind, record.get(kind, ())


def has_windows(videos: Sequence[Record]) -> bool:
    """Whether the rows of a file are windows, and not videos."""
    return any("windows" in video for video in videos)


def owners(videos: Sequence[Record]) -> npt.NDArray[np.int64]:
    """The number of the video that each row of a file belongs to: (V,) or (W,)."""
    return np.repeat(np.arange(len(videos)), [video.get("windows", 1) for video in videos])


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
    names = json.dumps([video["name"] for video in videos])
    header: dict[str, Any] = {"__metadata__": {RECORD: json.dumps(record), kind: names}}
    if has_windows(videos):
        arrays = {**arrays, VIDEO_OF_WINDOW: Rows.of(owners(videos))}
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
    for video in rows_named(record)[1]:
        for _ in range(video.get("windows", 1)):
            values = {name: next(each) for name, each in rows.items()}
            file.write(json_line(video, values, record).encode())


def _write_parquet(file: BinaryIO, arrays: Mapping[str, Rows], record: Record) -> None:
    require_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    halves = [name for name, rows in arrays.items() if rows.dtype == np.float16]
    metadata = {RECORD: json.dumps(record), HALVES: json.dumps(halves)}
    of, items = rows_named(record)
    fields = [pa.field(of[:-1], pa.string(), nullable=False)]
    for name, rows in arrays.items():
        kind = pa.float64() if rows.dtype == np.float64 else pa.float32()
        fields.append(
            pa.field(name, kind if len(rows.shape) == 1 else pa.list_(kind, rows.shape[1]))
        )
    schema = pa.schema(fields, metadata=metadata)
    names = [
        # Texts of a Parquet file are UTF-8. The names as they are, are in the record.
        video["name"].encode("utf-8", "backslashreplace").decode()
        for video in items
        for _ in range(video.get("windows", 1))
    ]
    groups = {name: rows.groups(ROW_GROUP) for name, rows in arrays.items()}
    with pq.ParquetWriter(file, schema, use_dictionary=[of[:-1]]) as writer:
        for first in range(0, len(names), ROW_GROUP):
            columns = [pa.array(names[first : first + ROW_GROUP], pa.string())]
            for each, field in zip(groups.values(), fields[1:], strict=True):
                values = next(each)
                kind = field.type
                if values.ndim > 1:
                    flat = pa.array(values.ravel().astype(kind.value_type.to_pandas_dtype()))
                    columns.append(pa.FixedSizeListArray.from_arrays(flat, type=kind))
                else:
                    columns.append(pa.array(values.astype(kind.to_pandas_dtype()), kind))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), ROW_GROUP)


def require_parquet() -> None:
    """Raises MissingLibraryError if the library for Parquet files is not installed."""
    require_library("pyarrow.parquet", "a .parquet file")


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
    return json.dumps({**line, RECORD: {**record, kind: [video]}}) + "\n"


def read_record(path: Path) -> dict[str, Any]:
    """The record of a file of features."""
    with _explained(path):
        if path.suffix == ".npz":
            with _opened_npz(path) as archive:
                return _checked(json.loads(str(archive[RECORD])))
        if path.suffix == ".safetensors":
            with safe_open(path, "numpy") as file:
                return _checked(json.loads((file.metadata() or {})[RECORD]))
        if path.suffix == ".parquet":
            return _checked(_parquet_metadata(path)[RECORD])
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
                return {name: archive[name] for name in archive.files if name not in beside}
        if path.suffix == ".safetensors":
            with safe_open(path, "numpy") as file:
                return {name: file.get_tensor(name) for name in _features_in(file)}
        if path.suffix == ".parquet":
            return _read_parquet(path)
        lines = list(_lines(path))
        names = [name for name in lines[0] if name not in ("video", "text", HALVES, RECORD)]
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
        return {name: rows(name) for name in _features_in(file)}


def _features_in(file: Any) -> list[str]:
    """The names of the features in an open safetensors file."""
    return [name for name in file.keys() if name != VIDEO_OF_WINDOW]  # noqa: SIM118


def _read_parquet(path: Path) -> Features:
    """The arrays of a Parquet file."""
    import pyarrow.parquet as pq

    halves = _parquet_metadata(path)[HALVES]
    with _damage_as_value_error():
        table = pq.read_table(path).combine_chunks()
    features = {}
    for field in table.schema:
        if field.name not in ("video", "text"):
            column = table.column(field.name)
            flat = column.to_numpy() if field.type.num_fields == 0 else _flat(column)
            array = flat.reshape(len(table), -1) if field.type.num_fields else flat
            features[field.name] = array.astype(np.float16) if field.name in halves else array
    return features


def _flat(column: Any) -> Array:
    """The numbers of a column of lists, without their grouping."""
    numbers: Array = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return numbers


def _parquet_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a Parquet file."""
    require_parquet()
    import pyarrow.parquet as pq

    with _damage_as_value_error():
        metadata = pq.read_schema(path).metadata or {}
    return {name: json.loads(metadata[name.encode()]) for name in (RECORD, HALVES)}


@contextmanager
def _damage_as_value_error() -> Iterator[None]:
    """Turns the OSError, without a number, that pyarrow raises for a damaged file to ValueError."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(str(error)) from None


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
    """The record, which names videos or texts. Raises ValueError or the like if it does not."""
    if not isinstance(record, dict):
        raise ValueError("no record")
    for video in record[rows_named(record)[0]]:
        if not isinstance(video["name"], str) or not isinstance(video.get("path", ""), str):
            raise ValueError("a video without a name or path")
        range(video.get("windows", 1))
    return record


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
