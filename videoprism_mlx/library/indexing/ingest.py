"""Videos into a library: each is claimed, read ahead, encoded, and written at once."""

import dataclasses
import os
import random
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
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
from videoprism_mlx.library.indexing.recognise import (
    BUSY,
    ENCODED,
    FAILED,
    GONE,
    MOVED,
    UNCHANGED,
    Outcome,
    Recognition,
    is_same,
    is_same_file,
)
from videoprism_mlx.library.indexing.rows import (
    empty_row,
    moments_table,
    row_of,
)
from videoprism_mlx.library.indexing.scan import File, checksum, is_gone, look
from videoprism_mlx.library.indexing.view import Known, View, path_id
from videoprism_mlx.library.indexing.windows import Moments, Opening, moments_of
from videoprism_mlx.library.model import Reading
from videoprism_mlx.library.table import (
    MISSING,
    is_remote,
)

# How many videos are opened and begun before they are encoded.
AHEAD = 8

# A file that could not be opened just now is tried again by every run: no file has this time.
NEVER = -1


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
        self._known = Recognition(view)
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
            return Started(file, claimed, self._known.found_again(file, known, {}))
        content = checksum(file.path)
        values = {"size": file.size, "modified": file.modified, "checksum": content}
        if known is not None and not known.error and known.checksum == content:
            return Started(file, claimed, self._known.found_again(file, known, values))
        if (same := self._known.same(file, content)) is not None:
            if known is not None:
                return Started(file, claimed, self._known.copied(file, same, values, known))
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

    def _started_again(
        self, file: File, claimed: tuple[str, ...], same: Known, values: dict[str, Any]
    ) -> Started:
        """A file whose content the library has: another name of it, moved here, or a copy."""
        if not is_gone(same.path):
            if is_same_file(same.path, file.path):
                return Started(file, claimed, Outcome(file, UNCHANGED))
            return Started(file, claimed, self._known.copied(file, same, values))
        if same.id not in claimed and not self.claims.take(same.id):
            return Started(file, claimed, Outcome(file, BUSY))
        claimed = tuple(dict.fromkeys((*claimed, same.id)))
        self.view.refresh(same.path, same.id)
        if self.view.by_id.get(same.id) != same:  # Another process was faster.
            return Started(file, claimed, Outcome(file, BUSY))
        values |= {"path": file.key}
        return Started(file, claimed, self._known.found_again(file, same, values, MOVED))

    # In the thread of the model.

    def _finish(self, begun: Started) -> Iterator[Outcome]:
        """Encodes a video. What is yielded last is its outcome."""
        file = begun.file
        if begun.outcome is not None:
            yield dataclasses.replace(begun.outcome, claimed=begun.claimed)
            return
        error = begun.error
        if begun.opening is not None:
            model = self._load()
            try:
                with closing(moments_of(model, begun.opening, file.path)) as parts:
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
        now = look(file.path)
        if (now.size, now.modified) != (file.size, file.modified):
            raise VideoError(f"{file.path} was changed while it was read; index it again")
        before = self.view.by_path.get(file.key)
        row = self._row(file, begun.checksum) | row_of(file, moments)
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
        return empty_row(before.id if before else self.view.id_for(file.key), file, content)


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
