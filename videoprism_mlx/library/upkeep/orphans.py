"""Moments that no row names: of runs that were killed, and of runs that are not done."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from videoprism_mlx.library.indexing.claims import Claims, remove_others
from videoprism_mlx.library.indexing.view import seconds_of
from videoprism_mlx.library.table import Tables, is_remote, storage_errors

# In a bucket, nobody knows whether a run goes on. None takes so long for one video: seconds.
AGE = 3600.0

# Rows of moments that are read at once.
BATCH = 4096


def batches(tables: Tables, columns: Sequence[str]) -> Iterator[Any]:
    """The moments, some at a time, as pyarrow record batches."""
    with storage_errors(tables.where):
        query = tables.moments.search().limit(None).select(list(columns))
        yield from query.to_batches(BATCH)


def orphans(tables: Tables) -> set[tuple[str, int]]:
    """The videos and takes of moments that no row names."""
    import pyarrow as pa

    takes = {row["id"]: row["take"] for row in tables.current(columns=["id", "take"])}
    found: set[tuple[str, int]] = set()
    for batch in batches(tables, ["video", "take"]):
        pairs = pa.Table.from_batches([batch]).group_by(["video", "take"]).aggregate([])
        for video, take in zip(pairs["video"].to_pylist(), pairs["take"].to_pylist(), strict=True):
            if takes.get(video) != take:
                found.add((video, take))
    return found


def remove_orphans(tables: Tables) -> int:
    """Removes them, but for those of runs that go on. Returns how many takes were removed."""
    claims = Claims(tables)
    count = 0
    for video, take in sorted(orphans(tables)):
        if is_remote(tables.where) and time.time() - seconds_of(take) < AGE:
            continue
        if claims.take(video):
            try:
                remove_others(tables, video, [take])
                count += 1
            finally:
                claims.release(video)
    return count
