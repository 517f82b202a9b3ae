"""A library's moments as arrays in one file.

Shapes: N moments, D width of an embedding.
"""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from videoprism_mlx.errors import InputError
from videoprism_mlx.files.atomic import new_file, require_new_file
from videoprism_mlx.files.npz import write_array, write_member
from videoprism_mlx.files.output import require_writable
from videoprism_mlx.files.record import as_json
from videoprism_mlx.library.table import OK, RECORD, Tables

ENDINGS = (".npz", ".parquet")


def check_export(output: Path, overwrite: bool) -> None:
    """Raises an error unless a library can be exported to this file."""
    if output.suffix.lower() not in ENDINGS:
        raise InputError(f"{output} does not end in .npz or .parquet; name another output")
    require_writable(output, is_file=True)
    if not overwrite:
        require_new_file(output, or_overwrite=True)


def export(tables: Tables, output: Path, overwrite: bool = False) -> int:
    """Writes the moments of all videos whose files are there. Returns how many.

    The arrays, or columns, are `video` (the file's name), `path`, `start` and `end` (N,) in
    seconds, and `embedding` (N, D). A video's moments follow each other in the order of time.
    """
    tables.refresh()
    with new_file(output, replace=overwrite) as partial:
        if output.suffix.lower() == ".npz":
            return _write_npz(tables, partial)
        return write_parquet(tables, partial, tables.record)


def _shown(tables: Tables, columns: list[str]) -> Iterator[tuple[list[str], Any]]:
    """Moments that are shown, some at a time: the path of each, and these columns."""
    import pyarrow as pa

    rows = tables.current(f"status = '{OK}'", ["id", "take", "path"])
    paths = {(row["id"], row["take"]): row["path"] for row in rows}
    for batch in tables.batches(["video", "take", *columns]):
        keys = zip(batch["video"].to_pylist(), batch["take"].to_pylist(), strict=True)
        found = [paths.get(key) for key in keys]
        mask = pa.array([path is not None for path in found])
        yield [path for path in found if path is not None], batch.filter(mask)


def _write_npz(tables: Tables, partial: Path) -> int:
    paths: list[str] = []
    starts, ends = [], []
    for found, batch in _shown(tables, ["start", "end"]):
        paths += found
        starts.append(batch["start"].to_numpy())
        ends.append(batch["end"].to_numpy())

    def vectors() -> Iterator[Any]:
        for found, batch in _shown(tables, ["embedding"]):
            flat = batch["embedding"].flatten().to_numpy(zero_copy_only=False)
            yield flat.reshape(len(found), tables.dimension)

    nothing = [np.zeros(0)]
    with zipfile.ZipFile(partial, "w") as archive:
        shape = (len(paths), tables.dimension)
        write_member(archive, "embedding", np.dtype(np.float32), shape, vectors())
        write_array(archive, "video", np.array([Path(path).name for path in paths], np.str_))
        write_array(archive, "path", np.array(paths, np.str_))
        write_array(archive, "start", np.concatenate(starts or nothing))
        write_array(archive, "end", np.concatenate(ends or nothing))
        write_array(archive, "record", np.array(as_json(tables.record)))
    return len(paths)


def write_parquet(
    tables: Tables, partial: Path, record: Mapping[str, Any], has_paths: bool = True
) -> int:
    """Writes the moments and a record as Parquet, with or without the videos' paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("video", pa.string()), *([("path", pa.string())] if has_paths else [])]
    fields += [("start", pa.float64()), ("end", pa.float64())]
    fields += [("embedding", pa.list_(pa.float32(), tables.dimension))]
    schema = pa.schema(fields, metadata={RECORD: as_json(dict(record), None).encode()})
    count = 0
    with pq.ParquetWriter(partial, schema) as writer:
        for found, batch in _shown(tables, ["start", "end", "embedding"]):
            names = [Path(path).name for path in found]
            columns = [pa.array(names, pa.string())]
            columns += [pa.array(found, pa.string())] if has_paths else []
            columns += [batch[name] for name in ("start", "end", "embedding")]
            writer.write_table(pa.table(columns, schema=schema))
            count += len(found)
    return count
