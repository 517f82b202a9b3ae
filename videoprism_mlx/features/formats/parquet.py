"""Features in Parquet files: a row for each video, window or text, and one vector of a feature.

`pyarrow` reads and writes them.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from videoprism_mlx.errors import FeatureFileError
from videoprism_mlx.features.formats.rows import (
    CHECKSUMS,
    HALVES,
    RECORD,
    Rows,
    checksum_of,
    rows_named,
    summed,
    verified,
    verified_record,
)
from videoprism_mlx.features.pipeline import Array, Features
from videoprism_mlx.files.reading import open_regular, parse_json
from videoprism_mlx.files.record import Record
from videoprism_mlx.runtime.libraries import require_library

# Rows that are written at a time.
ROW_GROUP = 1024


def require_parquet() -> None:
    """Raises MissingLibraryError if the library for Parquet files is not installed."""
    require_library("pyarrow.parquet", "a .parquet file")


def write_parquet(file: BinaryIO, arrays: Mapping[str, Rows], record: Record) -> None:
    """Writes features, and in the metadata of the file the record and the checksums."""
    require_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    halves = [name for name, rows in arrays.items() if rows.dtype == np.float16]
    described = json.dumps(record)
    of, items = rows_named(record)
    fields = [pa.field(of[:-1], pa.string(), nullable=False)]
    for name, rows in arrays.items():
        kind = pa.float64() if rows.dtype == np.float64 else pa.float32()
        fields.append(
            pa.field(name, kind if len(rows.shape) == 1 else pa.list_(kind, rows.shape[1]))
        )
    schema = pa.schema(fields, metadata={RECORD: described, HALVES: json.dumps(halves)})
    names = [
        # Texts of a Parquet file are UTF-8. The names as they are, are in the record.
        video["name"].encode("utf-8", "backslashreplace").decode()
        for video in items
        for _ in range(video.get("windows", 1))
    ]
    checksums = {RECORD: checksum_of(described)}
    groups = [summed(name, rows, checksums).groups(ROW_GROUP) for name, rows in arrays.items()]
    with pq.ParquetWriter(
        file, schema, use_dictionary=[of[:-1]], write_page_checksum=True
    ) as writer:
        for first in range(0, len(names), ROW_GROUP):
            columns = [pa.array(names[first : first + ROW_GROUP], pa.string())]
            for each, field in zip(groups, fields[1:], strict=True):
                columns.append(_column(next(each), field.type))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), ROW_GROUP)
        writer.add_key_value_metadata({CHECKSUMS: json.dumps(checksums)})


def _column(values: Array, kind: Any) -> Any:
    """Rows as a column of a type."""
    import pyarrow as pa

    wide = values.astype(np.float32) if values.dtype == np.float16 else values
    flat = pa.array(wide.ravel())
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, type=kind)


def read_parquet_record(path: Path) -> Any:
    """The record of a Parquet file. Raises ValueError or the like if it is damaged."""
    with _opened(path) as file:
        return verified_record(_metadata(file))


def read_parquet(path: Path) -> Features:
    """The arrays of a Parquet file. Raises ValueError or the like if it is damaged."""
    require_parquet()
    import pyarrow as pa

    with _opened(path) as file:
        metadata = _metadata(file)
        halves = parse_json(metadata[HALVES], HALVES)
        table = file.read().combine_chunks()
        features = {}
        for field in table.schema:
            if field.name not in ("video", "text"):
                column = table.column(field.name)
                is_list = pa.types.is_fixed_size_list(field.type)
                flat = _flat(column) if is_list else column.to_numpy()
                array = flat.reshape(len(table), -1) if is_list else flat
                array = array.astype(np.float16) if field.name in halves else array
                features[field.name] = verified(metadata, field.name, array)
        return features


def _flat(column: Any) -> Array:
    """The numbers of a column of lists, without their grouping."""
    numbers: Array = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return numbers


def _metadata(file: Any) -> dict[str, str]:
    """The metadata of an open file, as text."""
    found = file.metadata.metadata or {}
    return {
        name: found[name.encode()].decode()
        for name in (RECORD, HALVES, CHECKSUMS)
        if name.encode() in found
    }


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open Parquet file. The errors of pyarrow become ValueError."""
    require_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_regular(path, FeatureFileError) as opened:
        try:
            yield pq.ParquetFile(opened, page_checksum_verification=True)
        except OSError as error:  # pyarrow raises it, without a number, for a damaged file.
            if error.errno is not None:
                raise
            raise ValueError(str(error)) from None
        except pa.ArrowException as error:
            raise ValueError(str(error)) from None
