"""Keeping the files of a library few. Each write adds some."""

from datetime import timedelta
from typing import Any

from videoprism_mlx.library.storage import is_conflict, storage_errors
from videoprism_mlx.library.table import Tables

# After how many writes the tables are looked at.
EVERY = 48

# A table of moments is compacted when it has more than a few files, and those but the largest hold
# this share of its rows: so each moment is rewritten a few times only. It is also compacted when it
# has many files, which make a search slow.
FEW_FILES, SHARE, MANY_FILES = 48, 0.2, 600

# How long a reader can go on with the table as it was when the reader opened it.
KEEP, KEEP_AT_LEAST = timedelta(minutes=10), timedelta(minutes=1)


class Tidying:
    """Compacts the tables now and then while they are written to."""

    def __init__(self, tables: Tables):
        self.tables = tables
        self._writes = 0

    def __call__(self) -> bool:
        """Counts a write. Whether something was compacted."""
        self._writes += 1
        if self._writes % EVERY:
            return False
        compact(self.tables.videos, self.tables.where)
        if wants_compaction(self.tables.moments, self.tables.where):
            compact(self.tables.moments, self.tables.where)
        return True


def wants_compaction(table: Any, where: str) -> bool:
    """Whether it pays to join the files of a table of moments."""
    with storage_errors(where):
        stats = table.stats()
    fragments = stats["fragment_stats"]
    small = stats["num_rows"] - fragments["lengths"]["max"]
    count = fragments["num_fragments"]
    return bool(count > MANY_FILES or (count > FEW_FILES and small > SHARE * stats["num_rows"]))


def compact(table: Any, where: str, keep: timedelta = KEEP) -> bool:
    """Joins the files of a table, and removes those of its earlier versions.

    Whether that was possible: another process may be writing.
    """
    with storage_errors(where):
        try:
            table.optimize(cleanup_older_than=keep)
        except (RuntimeError, OSError) as error:
            if not is_conflict(error):
                raise
            return False
    return True
