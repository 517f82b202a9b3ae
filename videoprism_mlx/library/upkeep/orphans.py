"""Moments that no row names: of runs that were killed, and of runs that are still alive."""

import time

from videoprism_mlx.library.indexing.claims import Claims, remove_others
from videoprism_mlx.library.indexing.view import seconds_of
from videoprism_mlx.library.storage import is_remote
from videoprism_mlx.library.table import Tables

# In a bucket, nobody knows whether a run is still alive. Moments without a row that are older than
# this, in seconds, are those of a run that was killed: no run takes longer to write their row.
AGE = 3600.0


def orphans(tables: Tables) -> set[tuple[str, int]]:
    """The videos and takes of moments that no row names."""
    import pyarrow as pa

    takes = {row["id"]: row["take"] for row in tables.current(columns=["id", "take"])}
    found: set[tuple[str, int]] = set()
    for batch in tables.batches(["video", "take"]):
        pairs = pa.Table.from_batches([batch]).group_by(["video", "take"]).aggregate([])
        for video, take in zip(pairs["video"].to_pylist(), pairs["take"].to_pylist(), strict=True):
            if takes.get(video) != take:
                found.add((video, take))
    return found


def remove_orphans(tables: Tables) -> int:
    """Removes orphans, except those of runs that are still alive. Returns how many takes."""
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
