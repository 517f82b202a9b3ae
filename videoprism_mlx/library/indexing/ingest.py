"""Videos into a library: each is claimed, read ahead, encoded, and written at once."""

import dataclasses
import os
import random
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import (
    EXPECTED,
    LibraryError,
    OutputError,
    VideoError,
    VideoPrismError,
    excerpt,
)
from videoprism_mlx.features.encode import one_line
from videoprism_mlx.features.pipeline import read_ahead
from videoprism_mlx.library.indexing.claims import Claims
from videoprism_mlx.library.indexing.scan import File, checksum, is_gone, look
from videoprism_mlx.library.indexing.view import Known, View, new_take, path_id
from videoprism_mlx.library.indexing.windows import Moments, Opening, moments_of
from videoprism_mlx.library.model import Reading
from videoprism_mlx.library.table import (
    ERROR,
    MISSING,
    OK,
    is_remote,
    moments_schema,
    quoted,
)

# How many videos are opened and begun before they are encoded.
AHEAD = 8

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

# A file that could not be opened just now is tried again by every run: no file has this time.
NEVER = -1


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


@dataclasses.dataclass
class Started:
    """A claimed video. Exactly one of the others is set."""

    file: File
    claimed: tuple[str, ...]
    outcome: Outcome | None = None
    opening: Opening | None = None
    error: Exception | None = None
    checksum: str = ""


class Ingest:
    """Brings new and changed videos into a library.

    `load` gives the model, on first use. `tidy` is called after each write.
    """

    def __init__(
        self,
        view: View,
        claims: Claims,
        reading: Reading,
        load: Callable[[], VideoPrismModel],
        tidy: Callable[[], None],
    ):
        self.view, self.claims, self.reading = view, claims, reading
        self._load, self._tidy = load, tidy
        self._contents: dict[str, str] = {}  # The path of each content that is being encoded.
        self._openings: set[Opening | None] = set()
        self._lock = threading.Lock()

    def run(self, files: Sequence[File]) -> Generator[Outcome, None, None]:
        """What becomes of each video. While one is encoded, its outcome comes several times.

        Whoever does not use it to its end closes it, before the claims are released.
        """
        files = list(files)
        if is_remote(self.view.tables.where):  # No locks there: writers take other ways.
            random.SystemRandom().shuffle(files)
        with (
            closing(self._outcomes(files)) as outcomes,
            read_ahead(self._written, outcomes, readers=1, ahead=1) as written,
        ):
            for _, outcome in written:
                yield outcome

    def _written(self, outcome: Outcome) -> Outcome:
        is_done = False
        try:
            is_new = outcome.write is not None and outcome.write()
            is_done = True
        finally:
            self.claims.release(*outcome.claimed, is_done=is_done)
        if is_new:
            self._tidy()
        is_late = outcome.write is not None and not is_new
        return dataclasses.replace(outcome, kind=BUSY) if is_late else outcome

    def _outcomes(self, files: Sequence[File]) -> Generator[Outcome, None, None]:
        try:
            with read_ahead(self._start, files, None, AHEAD) as started:
                for _, begun in started:
                    yield from self._finish(begun)
                    self._openings.discard(begun.opening)
        finally:
            for opening in filter(None, self._openings):
                opening.close()

    # In the threads that read.

    def _start(self, file: File) -> Started:
        """Claims a video and, unless it is known by now, begins to read it."""
        known = self.view.by_path.get(file.key)
        identity = known.id if known else self.view.id_for(file.key)
        claimed = tuple(dict.fromkeys([path_id(file.key), identity]))
        if not self.claims.take(*claimed):
            return Started(file, (), Outcome(file, BUSY))
        self.view.refresh(file.key, claimed[-1])
        try:
            return self._started(file, claimed)
        except (LibraryError, OutputError):  # Not of this video, but of all.
            raise
        except EXPECTED as error:
            return Started(file, claimed, error=error)

    def _started(self, file: File, claimed: tuple[str, ...]) -> Started:
        known = self.view.by_path.get(file.key)
        identity = known.id if known else self.view.id_for(file.key)
        if identity not in claimed:  # Another process has just moved it.
            return Started(file, claimed, Outcome(file, BUSY))
        file = look(file.path)
        if file.key != os.fspath(file.path):
            raise VideoError(f"{file.path} cannot be kept: its name is not UTF-8; rename it")
        if known is not None and is_same(known, file):
            return Started(file, claimed, self._found_again(file, known, {}))
        content = checksum(file.path)
        values = {"size": file.size, "modified": file.modified, "checksum": content}
        if known is not None and not known.error and known.checksum == content:
            return Started(file, claimed, self._found_again(file, known, values))
        if (same := self._same(file, content)) is not None:
            if known is not None:
                return Started(file, claimed, self._copied(file, same, values, known))
            return self._started_again(file, claimed, same, values)
        with self._lock:
            owner = self._contents.setdefault(content, file.key)
        if owner != file.key:  # It is copied when that one is done.
            return Started(file, claimed, Outcome(file, BUSY))
        try:
            opening = Opening.of(file.path, self.reading)
        except EXPECTED as error:
            return Started(file, claimed, error=error, checksum=content)
        self._openings.add(opening)
        return Started(file, claimed, opening=opening, checksum=content)

    def _same(self, file: File, content: str) -> Known | None:
        """Another row with this content: best the same file, then one that has vanished."""
        known = [one for one in self.view.same_content(file.size, content) if not one.error]
        name = file.path.name
        known.sort(key=lambda one: (Path(one.path).name != name, one.path))
        for one in known:
            if is_same_file(one.path, file.path):
                return one
        return next((one for one in known if is_gone(one.path)), known[0] if known else None)

    def _started_again(
        self, file: File, claimed: tuple[str, ...], same: Known, values: dict[str, Any]
    ) -> Started:
        """A file whose content the library has: another name of it, moved here, or a copy."""
        if not is_gone(same.path):
            if is_same_file(same.path, file.path):
                return Started(file, claimed, Outcome(file, UNCHANGED))
            return Started(file, claimed, self._copied(file, same, values))
        if same.id not in claimed and not self.claims.take(same.id):
            return Started(file, claimed, Outcome(file, BUSY))
        claimed = tuple(dict.fromkeys((*claimed, same.id)))
        self.view.refresh(same.path, same.id)
        if self.view.by_id.get(same.id) != same:  # Another process was faster.
            return Started(file, claimed, Outcome(file, BUSY))
        values |= {"path": file.key}
        return Started(file, claimed, self._found_again(file, same, values, MOVED))

    def _found_again(
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
            self.view.put([row])
            return True

        return Outcome(file, FAILED if error else kind, error=error, write=write)

    def _copied(
        self, file: File, same: Known, values: dict[str, Any], before: Known | None = None
    ) -> Outcome:
        """A copy of a video gets an entry and moments of its own."""

        def write() -> bool:
            row = self.view.changed(same, **values)
            if row is None:
                return False
            was_modified = row["date"] == same.modified / 1e9
            row["id"] = before.id if before else self.view.id_for(file.key)
            row |= {"take": new_take(), "path": file.key, "status": OK}
            row["date"] = file.modified / 1e9 if was_modified else row["date"]
            self.view.add(self._moments_for(same, row), row, before)
            return True

        return Outcome(file, COPIED, moments=same.moments, write=write)

    def _moments_for(self, same: Known, row: dict[str, Any]) -> Any:
        import pyarrow as pa

        table = self.view.tables.moments
        condition = f"video = {quoted(same.id)} AND take = {same.take}"
        found = table.search().where(condition).limit(None).to_arrow().sort_by("number")
        schema = moments_schema(self.view.tables.dimension)
        columns = {name: found[name] for name in schema.names}
        columns["video"] = pa.array([row["id"]] * len(found), pa.string())
        columns["take"] = pa.array([row["take"]] * len(found), pa.int64())
        return pa.table(columns, schema=schema)

    # In the thread of the model.

    def _finish(self, begun: Started) -> Iterator[Outcome]:
        """Encodes a video. What is yielded last is its outcome."""
        file = begun.file
        if begun.outcome is not None:
            yield dataclasses.replace(begun.outcome, claimed=begun.claimed)
            return
        error = begun.error
        if begun.opening is not None:
            try:
                with closing(moments_of(self._load(), begun.opening, file.path)) as parts:
                    for part in parts:
                        if isinstance(part, Moments):
                            yield self._encoded(file, begun, part)
                            return
                        yield Outcome(file, ENCODED, part, is_final=False)
            except EXPECTED as caught:
                error = caught
        assert error is not None
        yield self._failed(file, begun, error)

    def _encoded(self, file: File, begun: Started, moments: Moments) -> Outcome:
        facts, now = moments.facts, look(file.path)
        if (now.size, now.modified) != (file.size, file.modified):
            raise VideoError(f"{file.path} was changed while it was read; index it again")
        before = self.view.by_path.get(file.key)
        row = self._row(file, begun.checksum) | {
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
        table = moments_table(self.view.tables.dimension, row["id"], row["take"], moments)
        count = len(moments.starts)

        def write() -> bool:
            self.view.add(table, row, before)
            return True

        return Outcome(file, ENCODED, moments=count, write=write, claimed=begun.claimed)

    def _failed(self, file: File, begun: Started, error: Exception) -> Outcome:
        said = one_line(file.path, error)
        if is_gone(os.fspath(file.path)):
            return Outcome(file, GONE, error=said, claimed=begun.claimed)
        before = self.view.by_path.get(file.key)
        row = self._row(file, begun.checksum) | {"error": excerpt(said, 500)}
        if not isinstance(error, VideoPrismError):  # The disk may answer the next time.
            row["modified"] = NEVER

        def write() -> bool:
            self.view.add(None, row, before)
            return True

        return Outcome(file, FAILED, error=said, write=write, claimed=begun.claimed)

    def _row(self, file: File, content: str) -> dict[str, Any]:
        """The row of a video that has no moments."""
        before = self.view.by_path.get(file.key)
        numbers = dict(take=0, duration=0.0, width=0, height=0, rate=0.0, moments=0)
        return {
            **numbers,
            "id": before.id if before else self.view.id_for(file.key),
            "path": file.key,
            "size": file.size,
            "modified": file.modified,
            "checksum": content,
            "date": file.modified / 1e9,
            "codec": "",
            "status": ERROR,
            "error": "",
        }


def is_same_file(path: str, other: Path) -> bool:
    """Whether two paths lead to one file that is there."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


def is_same(known: Known, file: File) -> bool:
    """Whether a file looks as it did when the library read it."""
    return (known.size, known.modified) == (file.size, file.modified)


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


def mark_missing(view: View, claims: Claims, known: Sequence[Known]) -> int:
    """Marks videos whose files have vanished. Returns how many."""
    marked: list[dict[str, Any]] = []
    held: list[str] = []
    try:
        for one in known:
            if not claims.take(one.id):
                continue
            held.append(one.id)
            view.refresh(one.path, one.id)
            if view.by_id.get(one.id) == one and is_gone(one.path):
                row = view.changed(one, status=MISSING)
                marked += [row] if row is not None else []
        if marked:
            view.put(marked)
    finally:
        claims.release(*held)
    return len(marked)
