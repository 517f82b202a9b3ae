"""Rows of the tables: what is written of a video and of its moments."""

from collections.abc import Mapping
from typing import Any

from videoprism_mlx.library.indexing.scan import File
from videoprism_mlx.library.indexing.view import Known, new_take
from videoprism_mlx.library.indexing.windows import Moments
from videoprism_mlx.library.storage import storage_errors
from videoprism_mlx.library.table import ERROR, OK, Tables, moments_schema, quoted


def empty_row(identity: str, file: File, checksum: str) -> dict[str, Any]:
    """The row of a video that has no moments."""
    numbers = dict(take=0, duration=0.0, width=0, height=0, rate=0.0, moments=0)
    return {
        **numbers,
        "id": identity,
        "path": file.key,
        "size": file.size,
        "modified": file.modified,
        "checksum": checksum,
        "date": file.modified / 1e9,
        "codec": "",
        "status": ERROR,
        "error": "",
    }


def row_of(file: File, moments: Moments) -> dict[str, Any]:
    """What replaces parts of that row when the video is encoded: a new take."""
    facts = moments.facts
    return {
        "take": new_take(),
        "date": file.modified / 1e9 if facts.recorded is None else facts.recorded,
        "duration": facts.duration,
        "width": facts.width,
        "height": facts.height,
        "rate": facts.rate,
        "codec": facts.codec,
        "moments": len(moments.starts),
        "status": OK,
    }


def moments_table(dimension: int, video: str, take: int, moments: Moments) -> Any:
    """The moments of a video as a pyarrow Table."""
    import pyarrow as pa

    count = len(moments.starts)
    flat = pa.array(moments.embeddings.reshape(-1), pa.float32())
    return pa.table(
        {
            "video": pa.array([video] * count, pa.string()),
            "take": pa.array([take] * count, pa.int64()),
            "number": pa.array(range(count), pa.int32()),
            "start": pa.array(moments.starts, pa.float64()),
            "end": pa.array(moments.ends, pa.float64()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, dimension),
            "picture": pa.array(moments.pictures, pa.binary()),
        },
        schema=moments_schema(dimension),
    )


def copied_moments(tables: Tables, same: Known, row: Mapping[str, Any]) -> Any:
    """The moments of a video as those of a copy of it, whose row this is."""
    import pyarrow as pa

    condition = f"video = {quoted(same.id)} AND take = {same.take}"
    with storage_errors(tables.where):
        tables.moments.checkout_latest()
        found = tables.moments.search().where(condition).limit(None).to_arrow().sort_by("number")
    schema = moments_schema(tables.dimension)
    columns = {name: found[name] for name in schema.names}
    columns["video"] = pa.array([row["id"]] * len(found), pa.string())
    columns["take"] = pa.array([row["take"]] * len(found), pa.int64())
    return pa.table(columns, schema=schema)
