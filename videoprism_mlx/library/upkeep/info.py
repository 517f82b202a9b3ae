"""What is in a library."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from videoprism_mlx.library.storage import is_remote
from videoprism_mlx.library.table import ERROR, MISSING, MOMENTS, OK, VIDEOS, Tables


def describe(tables: Tables) -> dict[str, Any]:
    """The place, model and settings of a library, and how much it holds."""
    rows = tables.current(columns=["status", "duration", "moments"])
    statuses = Counter(row["status"] for row in rows)
    shown = [row for row in rows if row["status"] == OK]
    return {
        "library": tables.where,
        "format": tables.record["format"],
        "model": tables.record.get("model", {}),
        "source": tables.record.get("source", {}),
        "preprocessing": tables.record.get("preprocessing", {}),
        "dimension": tables.dimension,
        "videos": statuses[OK],
        "errors": statuses[ERROR],
        "missing": statuses[MISSING],
        "seconds": round(sum(row["duration"] for row in shown), 3),
        "moments": sum(row["moments"] for row in shown),
        "bytes": None if is_remote(tables.where) else size_of(Path(tables.where)),
    }


def size_of(place: Path) -> int:
    """The bytes of a library's tables."""
    total = 0
    for name in (VIDEOS, MOMENTS):
        for root, _, files in os.walk(place / f"{name}.lance"):
            for file in files:
                try:
                    total += os.stat(f"{root}/{file}").st_size
                except FileNotFoundError:  # Another process has just removed it.
                    continue
    return total


def errors(tables: Tables) -> list[dict[str, Any]]:
    """The files that cannot be used, and why."""
    rows = tables.current("error != ''", ["path", "error"])
    return [{"path": row["path"], "error": row["error"]} for row in rows]
