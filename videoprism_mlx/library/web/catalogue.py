"""What the page shows of a library's tables, kept until they change."""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Any, NamedTuple

from videoprism_mlx.library.storage import storage_errors
from videoprism_mlx.library.table import ERROR, MISSING, OK, Tables, quoted

# Seconds between two looks at the tables, and how long after a change videos are "being added".
LOOK_EVERY, ADDING = 1.0, 6.0

# Pictures and rows that are kept. A picture has a few kilobytes.
KEPT_PICTURES, KEPT_ROWS = 4096, 4096

MOST_FOLDERS = 200

Row = dict[str, Any]


class Summary(NamedTuple):
    """How many videos and moments there are, the newest videos, and the folders of videos."""

    videos: int
    moments: int
    errors: int
    missing: int
    newest: list[str]  # Their ids, the newest first.
    folders: dict[str, int]  # How many videos are in each and below it.
    root: str  # The deepest folder that holds all.


class Catalogue:
    """The rows and pictures of a library. Safe to be used from several threads."""

    def __init__(self, tables: Tables):
        self.tables = tables
        self._lock = threading.RLock()
        self._looked = -LOOK_EVERY
        self._changed = -ADDING
        self._version: Any = None
        self._rows: dict[str, Row] = {}
        self._pictures: dict[tuple[str, int, int], bytes] = {}
        self._summary: Summary | None = None

    def refresh(self) -> None:
        """Sees what other processes have written, at most once in LOOK_EVERY seconds."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked < LOOK_EVERY:
                return
            self._looked = now
            self.tables.refresh()
            version = self.tables.videos.version
            if version != self._version:
                if self._version is not None:
                    self._changed = now
                self._version, self._summary = version, None
                self._rows.clear()

    @property
    def is_growing(self) -> bool:
        """Whether the table of videos has changed just now."""
        return time.monotonic() - self._changed < ADDING

    def video(self, video_id: str) -> Row | None:
        """The row of a video, or None."""
        return self.videos([video_id]).get(video_id)

    def videos(self, ids: Iterable[str]) -> dict[str, Row]:
        """The rows of those of these videos that there are, by their ids."""
        wanted = list(dict.fromkeys(ids))
        with self._lock:
            self.refresh()
            unknown = [one for one in wanted if one not in self._rows]
            if unknown:
                if len(self._rows) > KEPT_ROWS:
                    self._rows.clear()
                condition = f"id IN ({', '.join(map(quoted, unknown))})"
                self._rows |= {row["id"]: row for row in self.tables.current(condition)}
            return {one: self._rows[one] for one in wanted if one in self._rows}

    def pictures(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """The small pictures of moments, each named by its video and number."""
        rows = self.videos(video for video, _ in wanted)
        keys = [
            (video, rows[video]["take"], number) if video in rows else None
            for video, number in wanted
        ]
        with self._lock:
            unknown = {key for key in keys if key and key not in self._pictures}
            if unknown:
                if len(self._pictures) > KEPT_PICTURES:
                    self._pictures.clear()
                self._pictures |= read_pictures(self.tables, unknown)
            return [self._pictures.get(key) if key else None for key in keys]

    def summary(self) -> Summary:
        """What there is in all."""
        with self._lock:
            self.refresh()
            if self._summary is None:
                self._summary = summarize(self.tables)
            return self._summary


def read_pictures(
    tables: Tables, wanted: Iterable[tuple[str, int, int]]
) -> dict[tuple[str, int, int], bytes]:
    """The pictures of moments, each named by its video, take and number."""
    numbers: dict[tuple[str, int], list[int]] = {}
    for video, take, number in wanted:
        numbers.setdefault((video, take), []).append(number)
    conditions = [
        f"(video = {quoted(video)} AND take = {take} AND number IN ({', '.join(map(str, some))}))"
        for (video, take), some in numbers.items()
    ]
    with storage_errors(tables.where):
        query = tables.moments.search().where(" OR ".join(conditions)).limit(None)
        found = query.select(["video", "take", "number", "picture"]).to_list()
    return {(row["video"], row["take"], row["number"]): row["picture"] for row in found}


def summarize(tables: Tables, newest: int = 24) -> Summary:
    """The summary of the table of videos."""
    columns = ["id", "path", "date", "status", "moments"]
    with storage_errors(tables.where):
        rows = tables.videos.search().select(columns).limit(None).to_arrow()
    statuses = Counter(rows["status"].to_pylist())
    fine = rows.filter([one == OK for one in rows["status"].to_pylist()])
    latest = fine.sort_by([("date", "descending"), ("path", "ascending")]).slice(0, newest)
    counts = Counter(str(PurePath(path).parent) for path in fine["path"].to_pylist())
    root, folders = tree_of(counts)
    return Summary(
        fine.num_rows,
        sum(fine["moments"].to_pylist()),
        statuses[ERROR],
        statuses[MISSING],
        latest["id"].to_pylist(),
        folders,
        root,
    )


def tree_of(counts: Mapping[str, int]) -> tuple[str, dict[str, int]]:
    """The folder that holds all videos, and how many are in each folder below it, and below that.

    `counts` says how many are in each folder itself.
    """
    below: Counter[str] = Counter()
    for folder, count in counts.items():
        path = PurePath(folder)
        for one in (path, *path.parents):
            below[str(one)] += count
    total = sum(counts.values())
    root = max((one for one in below if below[one] == total), key=len, default="")
    inside = {one: count for one, count in below.items() if is_below(one, root) and one != root}
    most = sorted(inside, key=lambda one: (-inside[one], one))[:MOST_FOLDERS]
    return root, {one: inside[one] for one in sorted(most)}


@lru_cache(maxsize=4096)
def is_below(folder: str, root: str) -> bool:
    """Whether a folder is in another one, or the same."""
    return PurePath(folder).is_relative_to(root) if root else True
