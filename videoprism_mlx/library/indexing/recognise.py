"""Videos that a library knows, under another name or with another time."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from videoprism_mlx.library.indexing.rows import copied_moments
from videoprism_mlx.library.indexing.scan import File, is_gone
from videoprism_mlx.library.indexing.view import Known, View, new_take
from videoprism_mlx.library.table import OK

# What can become of a video.
ENCODED, MOVED, COPIED, UNCHANGED, FAILED, BUSY, GONE = (
    "encoded",
    "moved",
    "copied",
    "unchanged",
    "failed",
    "busy",
    "gone",
)


@dataclasses.dataclass
class Outcome:
    """What became of a video, and how it is written; or how much of it is done by now."""

    file: File
    kind: str
    done: float = 1.0
    is_final: bool = True
    error: str = ""
    moments: int = 0
    write: Callable[[], bool] | None = None  # Whether nobody was faster.
    claimed: tuple[str, ...] = ()


class Recognition:
    """Finds known videos, and says what becomes of files that hold them."""

    def __init__(self, view: View):
        self.view = view

    def same(self, file: File, content: str) -> Known | None:
        """Another row with this content: best the same file, then one that has vanished."""
        known = [one for one in self.view.same_content(file.size, content) if not one.error]
        name = file.path.name
        known.sort(key=lambda one: (Path(one.path).name != name, one.path))
        for one in known:
            if is_same_file(one.path, file.path):
                return one
        return next((one for one in known if is_gone(one.path)), known[0] if known else None)

    def found_again(
        self, file: File, known: Known, values: dict[str, Any], kind: str = UNCHANGED
    ) -> Outcome:
        """A video whose moments are in the library."""
        values |= {"status": known.when_found}
        error = known.error
        if all(getattr(known, name) == value for name, value in values.items()):
            return Outcome(file, FAILED if error else kind, error=error)

        def write() -> bool:
            if (row := self.view.changed(known, **values)) is None:
                return False
            self.view.put([dated(row, known, file)])
            return True

        return Outcome(file, FAILED if error else kind, error=error, write=write)

    def copied(
        self, file: File, same: Known, values: dict[str, Any], before: Known | None = None
    ) -> Outcome:
        """A copy of a video gets an entry and moments of its own."""

        def write() -> bool:
            row = self.view.changed(same, **values)
            if row is None:
                return False
            row["id"] = before.id if before else self.view.id_for(file.key)
            row |= {"take": new_take(), "path": file.key, "status": OK}
            row = dated(row, same, file)
            moments = copied_moments(self.view.tables, same, row)
            if len(moments) != row["moments"]:  # Another process has just replaced them.
                return False
            self.view.add(moments, row, before)
            return True

        return Outcome(file, COPIED, moments=same.moments, write=write)


def dated(row: Mapping[str, Any], before: Known, file: File) -> dict[str, Any]:
    """A row with the date of a file that was `before`: its time, unless the video has a date."""
    is_time = row["date"] == before.modified / 1e9
    return {**row, "date": file.modified / 1e9 if is_time else row["date"]}


def is_same_file(path: str, other: Path) -> bool:
    """Whether two paths lead to one file that is there."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


def is_same(known: Known, file: File) -> bool:
    """Whether a file looks as it did when the library read it."""
    return (known.size, known.modified) == (file.size, file.modified)
