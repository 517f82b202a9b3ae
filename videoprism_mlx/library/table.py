"""The two tables of a library, in LanceDB: its videos, and their moments.

A video is there when its row is in the table of videos. The row names a *take*, the number of one
encoding of the video, and the moments of that take are the video's moments. Moments are added
first, all of a take at once, and the row after them. So a video's moments appear together when the
row is written, those of a changed file replace the earlier ones in the same instant, and moments
whose take no row names belong to a run that was killed, or to one that is not done.

Shapes: D width of an embedding.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import LibraryError, NoLibraryError
from videoprism_mlx.files.output import visible
from videoprism_mlx.files.places import data_directory, user_path
from videoprism_mlx.library.storage import (
    LOCKS,
    again_after_conflicts,
    connect,
    is_remote,
    may_have_rows,
    names_of,
    new_or_open,
    require_room,
    storage_errors,
)

# Of the tables. A library of a higher one was written by a later version of this package.
FORMAT = 1

VIDEOS, MOMENTS = "videos", "moments"

# Where the record is: in the metadata of the videos' schema.
RECORD = b"videoprism_mlx"

# How often the tables are looked at again while other processes write.
REFRESHES = 20

# How many moments are read at once.
BATCH_ROWS = 4096

# What the status of a video is.
OK, ERROR, MISSING = "ok", "error", "missing"


def default_place() -> Path:
    """The library that is used when none is named."""
    return data_directory() / "library"


def videos_schema(record: Mapping[str, Any], dimension: int) -> Any:
    """The columns of videos, with the library's record."""
    import pyarrow as pa

    fields = [
        ("id", pa.string()),  # Stays the same when the file is moved or changed.
        ("take", pa.int64()),  # Which moments are the video's. 0 for a video without moments.
        ("path", pa.string()),  # Absolute, without symbolic links.
        ("size", pa.int64()),  # Bytes.
        ("modified", pa.int64()),  # Nanoseconds.
        ("checksum", pa.string()),  # Of the size and of parts of the content.
        ("date", pa.float64()),  # When it was recorded, else modified: seconds since 1970.
        ("duration", pa.float64()),  # Seconds.
        ("width", pa.int32()),  # As it is shown, the right way up.
        ("height", pa.int32()),
        ("rate", pa.float64()),  # Frames a second.
        ("codec", pa.string()),  # FFmpeg's name, such as h264.
        ("moments", pa.int32()),  # How many.
        ("status", pa.string()),  # OK, ERROR or MISSING.
        ("error", pa.string()),  # Why it cannot be read, one line; empty if it can.
    ]
    metadata = {RECORD: json.dumps({"format": FORMAT, "dimension": dimension, **record})}
    return pa.schema(fields, metadata=metadata)


def moments_schema(dimension: int) -> Any:
    """The columns of moments, whose embeddings (D,) are of length one."""
    import pyarrow as pa

    fields = [
        ("video", pa.string()),  # The id of the video.
        ("take", pa.int64()),
        ("number", pa.int32()),  # From 0, in the order of time.
        ("start", pa.float64()),  # Seconds.
        ("end", pa.float64()),
        ("embedding", pa.list_(pa.float32(), dimension)),
        ("picture", pa.binary()),  # The frame in the middle, a small JPEG.
    ]
    return pa.schema(fields)


class Tables:
    """The open tables of a library, and its record: the model, and how videos are read."""

    def __init__(self, where: str, videos: Any, moments: Any, record: dict[str, Any]):
        self.where = where
        self.videos = videos
        self.moments = moments
        self.record = record

    @classmethod
    def open(cls, where: str | Path | None = None) -> "Tables":
        """The tables of a library. Raises LibraryError if there is none."""
        place = library_place(where)
        missing = NoLibraryError(
            f"there is no library at {place}; make one with `videoprism-mlx index FOLDER`"
        )
        if not is_remote(place) and not Path(place).is_dir():
            raise missing  # LanceDB would make the folder.
        with storage_errors(place):
            database = connect(place)
            if VIDEOS not in names_of(database):
                raise missing
            try:
                videos = database.open_table(VIDEOS)
            except ValueError:  # Perhaps another process is just making it, and it has no rows.
                if may_have_rows(place, VIDEOS):
                    raise
                raise missing from None
            record = read_record(place, videos.schema.metadata)
            # It is missing if whoever made the library was killed just then.
            moments = new_or_open(database, MOMENTS, moments_schema(record["dimension"]))
            return cls(place, videos, moments, record)

    @classmethod
    def create(
        cls, where: str | Path | None, record: Mapping[str, Any], dimension: int
    ) -> "Tables":
        """The tables of a new library or, if there is one by now, of that one."""
        place = library_place(where)
        require_place(place)
        with storage_errors(place):
            new_or_open(connect(place), VIDEOS, videos_schema(record, dimension))
        return cls.open(where)

    @property
    def dimension(self) -> int:
        """The width D of an embedding."""
        return int(self.record["dimension"])

    def refresh(self) -> None:
        """Sees what other processes have written since: rows, and the moments that they name."""
        with storage_errors(self.where):
            self.videos.checkout_latest()
            for _ in range(REFRESHES):
                seen = self.videos.version
                self.moments.checkout_latest()
                # If a row was written meanwhile, the moments of the one before it may be gone.
                self.videos.checkout_latest()
                if self.videos.version == seen:
                    return

    def version(self) -> tuple[int, int]:
        """Which state of the two tables is seen."""
        with storage_errors(self.where):
            return int(self.videos.version), int(self.moments.version)

    def rows(
        self, where: str | None = None, columns: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """The rows of videos that fit an SQL condition, in the order of their paths."""
        with storage_errors(self.where):
            query = self.videos.search().limit(None)
            query = query.where(where) if where else query
            query = query.select(list(columns)) if columns else query
            found: list[dict[str, Any]] = query.to_list()
        return sorted(found, key=lambda row: row.get("path", ""))

    def current(
        self, where: str | None = None, columns: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """As `rows`, without rows that `replaced` names. Writers of a bucket may leave some."""
        names = None if columns is None else sorted({"id", "take", "path", *columns})
        rows = self.rows(where, names)
        gone = replaced(rows)
        return [row for row in rows if (row["id"], row["take"]) not in gone]

    def batches(self, columns: Sequence[str], where: str | None = None) -> Iterator[Any]:
        """The moments that fit an SQL condition, as pyarrow record batches."""
        with storage_errors(self.where):
            query = self.moments.search().limit(None).select(list(columns))
            query = query.where(where) if where else query
            yield from (batch for batch in query.to_batches(BATCH_ROWS) if batch.num_rows)

    def put_videos(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes rows of videos at once. Each replaces the row with the same id."""
        import pyarrow as pa

        with storage_errors(self.where):
            table = pa.Table.from_pylist([dict(row) for row in rows], schema=self.videos.schema)
            require_room(self.where, table.nbytes)
            merge = self.videos.merge_insert("id")
            merge = merge.when_matched_update_all().when_not_matched_insert_all()
            again_after_conflicts(self.videos, lambda: merge.execute(table))

    def add_videos(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """As `put_videos`, of rows whose ids are new for sure. This is faster."""
        import pyarrow as pa

        with storage_errors(self.where):
            table = pa.Table.from_pylist([dict(row) for row in rows], schema=self.videos.schema)
            require_room(self.where, table.nbytes)
            again_after_conflicts(self.videos, lambda: self.videos.add(table))

    def add_moments(self, table: Any) -> None:
        """Adds moments, a pyarrow Table, at once. They are seen when a video's row names them."""
        with storage_errors(self.where):
            require_room(self.where, table.nbytes)
            again_after_conflicts(self.moments, lambda: self.moments.add(table))

    def remove(self, name: str, where: str) -> None:
        """Removes the rows of a table that fit an SQL condition."""
        table = self.videos if name == VIDEOS else self.moments
        with storage_errors(self.where):
            again_after_conflicts(table, lambda: table.delete(where))


def replaced(rows: Iterable[Mapping[str, Any]]) -> set[tuple[str, int]]:
    """The ids and takes of rows that another row replaces: of one id, or of one path.

    Two machines that write to one bucket may leave such rows. The latest take stays, for everyone.
    """
    gone: set[tuple[str, int]] = set()
    for name in ("id", "path"):
        best: dict[str, tuple[int, str]] = {}
        for row in rows:
            if (row["id"], row["take"]) in gone:
                continue
            mine, other = (row["take"], row["id"]), best.get(row[name])
            if other is not None:
                gone.add(min(mine, other)[::-1])
            best[row[name]] = mine if other is None else max(mine, other)
    return gone


def require_place(place: str) -> None:
    """Raises LibraryError unless a folder is new, empty, or holds a library."""
    if is_remote(place):
        return
    names = visible(Path(place))
    if Path(place).exists() and not Path(place).is_dir():
        raise LibraryError(f"{place} is a file; expected a folder for the library")
    if names and f"{VIDEOS}.lance" not in names and names != [LOCKS]:
        raise LibraryError(
            f"{place} holds something other than a library, such as {names[0]}; name a new or "
            "empty folder (--library)"
        )


def library_place(where: str | Path | None) -> str:
    """Where a library is, as LanceDB takes it: an absolute path, or an address such as s3://..."""
    if isinstance(where, str) and is_remote(where):
        return where
    return str((default_place() if where is None else user_path(where)).absolute())


def read_record(where: str, metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """The record in a schema's metadata. Raises LibraryError if this version cannot use it."""
    try:
        record = json.loads((metadata or {})[RECORD])
        number = int(record["format"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise LibraryError(
            f"{where} is not a library of videos: its table of videos has no record"
        ) from None
    if number > FORMAT:
        raise LibraryError(
            f"the library {where} has format {number}, and this version of videoprism_mlx knows "
            f"formats up to {FORMAT}: update videoprism_mlx"
        )
    if not isinstance(record.get("dimension"), int):
        raise LibraryError(f"the library {where} is damaged: its record names no dimension")
    return dict(record)


def quoted(text: str) -> str:
    """A text as a literal in SQL."""
    return "'" + text.replace("'", "''") + "'"
