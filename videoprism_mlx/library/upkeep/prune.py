"""Removing videos whose files are gone."""

from collections.abc import Sequence

from videoprism_mlx.files.places import real_path
from videoprism_mlx.library.indexing.claims import Claims
from videoprism_mlx.library.indexing.scan import is_below, is_gone
from videoprism_mlx.library.table import MISSING, MOMENTS, VIDEOS, Tables, quoted

# Videos that are removed at once.
BATCH = 200


def prune(tables: Tables, folder: str | None = None) -> list[str]:
    """Removes videos that are marked as missing, and returns their paths.

    With `folder`, it removes all videos below it whose files are gone, and no others.
    """
    inside = None if folder is None else real_path(folder)
    removed: list[str] = []
    columns = ["id", "take", "path", "status"]
    tables.refresh()
    rows = [
        row
        for row in tables.current(columns=columns)
        if (row["status"] == MISSING if inside is None else is_below(row["path"], [inside]))
    ]
    for start in range(0, len(rows), BATCH):
        removed += _removed(tables, {row["id"]: row["path"] for row in rows[start : start + BATCH]})
    return removed


def _removed(tables: Tables, paths: dict[str, str]) -> Sequence[str]:
    claims, is_done = Claims(tables), False
    try:
        held = {id for id in paths if claims.take(id)}
        tables.refresh()
        now = tables.current(f"id IN ({_listed(paths)})", ["id", "path"])
        gone = {
            row["id"]: row["path"]
            for row in now
            if row["id"] in held and row["path"] == paths[row["id"]] and is_gone(row["path"])
        }
        if gone:
            # The rows go first: moments without a row are invisible, and are removed later.
            tables.remove(VIDEOS, f"id IN ({_listed(gone)})")
            tables.remove(MOMENTS, f"video IN ({_listed(gone)})")
        is_done = True
        return sorted(gone.values())
    finally:
        claims.release_all(is_done)


def _listed(ids: dict[str, str]) -> str:
    return ", ".join(map(quoted, ids))
