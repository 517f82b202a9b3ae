"""What all files of features have in common: arrays in rows, whose rows they are, and checksums.

Shapes: V videos, W windows of all videos.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import FeatureFileError
from videoprism_mlx.features.pipeline import Array
from videoprism_mlx.files.reading import parse_json
from videoprism_mlx.files.record import Record

# What a file holds besides features. In a safetensors file, the record and the names of the videos
# are metadata, because the format has no texts.
RECORD, VIDEOS, VIDEO_OF_WINDOW = "record", "videos", "video_of_window"

# What a file of text embeddings holds instead of VIDEOS.
TEXTS = "texts"

# The key of the names of the float16 features, in a JSON line and in the metadata of a Parquet
# file. All others are float32, and times float64.
HALVES = "float16"

# The metadata of a safetensors or Parquet file that holds the checksums of its record and arrays.
CHECKSUMS = "crc32"


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


def summed(name: str, rows: Rows, checksums: dict[str, str]) -> Rows:
    """The same array. While it is read, `checksums` gets that of its name, type and numbers."""

    def pieces() -> Iterator[Array]:
        checksum = zlib.crc32(f"{name} {rows.dtype.name} {tuple(rows.shape)}".encode())
        checksums[name] = f"{checksum:08x}"
        for piece in rows.pieces():
            piece = np.ascontiguousarray(piece)
            checksum = zlib.crc32(piece.data, checksum)
            checksums[name] = f"{checksum:08x}"
            yield piece

    return Rows(rows.dtype, rows.shape, pieces)


def checksum_of(described: str) -> str:
    """The checksum of a record."""
    return f"{zlib.crc32(described.encode()):08x}"


def verified_record(metadata: Mapping[str, str]) -> Any:
    """The record in the metadata of a file. Raises ValueError if its checksum is wrong."""
    _compare(metadata, RECORD, checksum_of(metadata[RECORD]))
    return parse_json(metadata[RECORD], RECORD)


def verified(metadata: Mapping[str, str], name: str, array: Array) -> Array:
    """An array of a file. Raises ValueError if its checksum is wrong, or if it is not finite."""
    found: dict[str, str] = {}
    list(summed(name, Rows.of(array), found).pieces())
    _compare(metadata, name, found[name])
    return finite(array)


def finite(array: Array) -> Array:
    """The array. Raises ValueError if it holds NaN or infinity."""
    if not np.isfinite(array).all():
        raise ValueError("NaN or infinity")
    return array


def _compare(metadata: Mapping[str, str], name: str, checksum: str) -> None:
    # Earlier versions wrote no checksums.
    if CHECKSUMS in metadata and parse_json(metadata[CHECKSUMS], CHECKSUMS)[name] != checksum:
        raise ValueError("wrong checksum")
