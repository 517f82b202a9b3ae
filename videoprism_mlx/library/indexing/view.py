"""The rows of videos as a writer sees them: read once, and kept up to date."""

import hashlib
import random
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from videoprism_mlx.library.storage import is_remote, storage_errors
from videoprism_mlx.library.table import ERROR, MOMENTS, OK, VIDEOS, Tables, quoted, replaced

COLUMNS = ("id", "take", "path", "size", "modified", "checksum", "moments", "status", "error")


class Known(NamedTuple):
    """What a writer keeps of a row."""

    id: str
    take: int
    path: str
    size: int
    modified: int
    checksum: str
    moments: int
    status: str
    error: str

    @property
    def when_found(self) -> str:
        """The status of the video while its file is there."""
        return ERROR if self.error else OK


class View:
    """The rows of a library by id, path, and content. Threads share it."""

    def __init__(self, tables: Tables):
        self.tables = tables
        self._lock = threading.RLock()
        self.read()

    def read(self) -> None:
        """Reads all rows. Those that others replace are removed."""
        with self._lock:
            self.tables.refresh()
            self._version = self.tables.videos.version
            rows = self.tables.rows(columns=COLUMNS)
            gone = replaced(rows)
            for identity, take in gone:
                self.tables.remove(VIDEOS, f"id = {quoted(identity)} AND take = {take}")
            read = (row for row in rows if (row["id"], row["take"]) not in gone)
            fresh = {known.id: known for known in map(known_of, read)}
            self._by_content: dict[tuple[int, str], dict[str, Known]] = {}
            self._by_look: dict[tuple[int, int], dict[str, Known]] = {}
            for known in fresh.values():
                self._sort(known)
            # Other threads look at these without the lock: they are never there in part.
            self.by_id = fresh
            self.by_path = {known.path: known for known in fresh.values()}

    def _keep(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            self._forget(row["id"])
            known = known_of(row)
            self.by_id[known.id] = self.by_path[known.path] = known
            self._sort(known)

    def _sort(self, known: Known) -> None:
        self._by_content.setdefault((known.size, known.checksum), {})[known.id] = known
        self._by_look.setdefault((known.size, known.modified), {})[known.id] = known

    def _forget(self, identity: str) -> None:
        known = self.by_id.pop(identity, None)
        if known is None:
            return
        if self.by_path.get(known.path) is known:
            del self.by_path[known.path]
        self._by_content[known.size, known.checksum].pop(identity, None)
        self._by_look[known.size, known.modified].pop(identity, None)

    def rows(self) -> list[Known]:
        """All rows, in the order of their paths."""
        with self._lock:
            return sorted(self.by_id.values(), key=lambda known: (known.path, known.id))

    def same_content(self, size: int, checksum: str) -> list[Known]:
        """The rows of files with this content, in the order of their paths."""
        with self._lock:
            found = self._by_content.get((size, checksum), {}).values()
            return sorted(found, key=lambda known: (known.path, known.id))

    def same_look(self, size: int, modified: int) -> list[Known]:
        """The rows of files of this size and time."""
        with self._lock:
            return [*self._by_look.get((size, modified), {}).values()]

    def refresh(self, key: str, identity: str) -> None:
        """Reads the rows of one video again, if another process has written since."""
        with self._lock:
            with storage_errors(self.tables.where):
                self.tables.videos.checkout_latest()
                if self.tables.videos.version == self._version:
                    return
            condition = f"path = {quoted(key)} OR id = {quoted(identity)}"
            rows = self.tables.rows(condition, COLUMNS)
            for known in (self.by_id.get(identity), self.by_path.get(key)):
                if known is not None:
                    self._forget(known.id)
            gone = replaced(rows)
            self._keep(row for row in rows if (row["id"], row["take"]) not in gone)

    def put(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes rows of videos that this process has claimed."""
        with self._lock:
            is_new = not any(row["id"] in self.by_id for row in rows)
            if is_new and not is_remote(self.tables.where):  # A bucket has no claims.
                self.tables.add_videos(rows)
            else:
                self.tables.put_videos(rows)
            self._keep(rows)
            if self.tables.videos.version == self._version + 1:  # Nobody else has written.
                self._version += 1

    def add(self, moments: Any, row: Mapping[str, Any], before: Known | None) -> None:
        """Writes a new take of a video. Those of an earlier take are then removed."""
        if moments is not None:
            self.tables.add_moments(moments)
        self.put([row])
        if before is not None and before.take:
            condition = f"video = {quoted(row['id'])} AND take != {row['take']}"
            self.tables.remove(MOMENTS, condition)

    def changed(self, known: Known, **values: Any) -> dict[str, Any] | None:
        """The whole row of a video, as it is now, with other values. None if it is gone."""
        self.tables.refresh()
        found = self.tables.rows(f"id = {quoted(known.id)} AND take = {known.take}")
        return {**found[0], **values} if found else None

    def id_for(self, key: str) -> str:
        """The id of a video that is new at this path."""
        number = 0
        while (known := self.by_id.get(path_id(key, number))) and known.path != key:
            number += 1
        return path_id(key, number)


def known_of(row: Mapping[str, Any]) -> Known:
    """What is kept of a row."""
    return Known(*(row[name] for name in COLUMNS))


def path_id(key: str, number: int = 0) -> str:
    """The id of the first video that had this path, or of the one after `number` others."""
    text = key if number == 0 else f"{key}\0{number}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def new_take() -> int:
    """The number of a new take, which no other process uses. It begins with the time."""
    return time.time_ns() // 1000 * 1000 + random.SystemRandom().randrange(1000)


def seconds_of(take: int) -> float:
    """When a take was begun, in seconds since 1970."""
    return take / 1e9
