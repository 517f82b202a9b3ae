"""Videos into a library: each is claimed, encoded here or on workers, and written at once."""

import dataclasses
import os
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, Protocol

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import (
    EXPECTED,
    DeadlyError,
    VideoError,
    VideoPrismError,
    WorkerError,
    excerpt,
)
from videoprism_mlx.features.encode import one_line
from videoprism_mlx.features.pipeline import read_ahead
from videoprism_mlx.library.indexing.claims import Claims
from videoprism_mlx.library.indexing.recognise import BUSY, ENCODED, FAILED, GONE, Outcome
from videoprism_mlx.library.indexing.rows import empty_row, moments_table, row_of
from videoprism_mlx.library.indexing.scan import File, is_gone, look
from videoprism_mlx.library.indexing.starts import Started, Starts
from videoprism_mlx.library.indexing.view import Known, View
from videoprism_mlx.library.indexing.windows import Moments, Opening, moments_of
from videoprism_mlx.library.model import LibraryModel, Reading
from videoprism_mlx.library.storage import is_remote
from videoprism_mlx.library.table import MISSING

# How many videos are begun before they are encoded.
AHEAD = 8

# A file that could not be opened just now is tried again by every run: no file has this time.
NEVER = -1

# What comes of a video while it is encoded: how much is done, from 0 to 1, and at last its moments
# or an error.
Part = float | Moments | Exception


class Encoding(Protocol):
    """Where videos are encoded."""

    def opened(self, path: Path) -> Opening | None:
        """A video that is encoded in this process."""

    def encoded(self, started: Iterator[Started]) -> Iterator[tuple[Started, Part | None]]:
        """The parts of each video. None for one that is not to be encoded."""

    def speeds(self) -> str:
        """How fast each worker is, for the bar."""

    def close(self) -> None:
        """Closes videos that are open."""


# Lets workers encode files for a library with this model.
Workers = Callable[[LibraryModel, Sequence[File]], AbstractContextManager[Encoding]]


class Here:
    """Encodes one video after the other in this process. `load` gives the model, on first use."""

    def __init__(self, reading: Reading, load: Callable[[], VideoPrismModel]):
        self._reading, self._load = reading, load
        self._openings: set[Opening] = set()

    def opened(self, path: Path) -> Opening:
        """A video, of which the beginning has been read."""
        opening = Opening.of(path, self._reading)
        self._openings.add(opening)
        return opening

    def encoded(self, started: Iterator[Started]) -> Iterator[tuple[Started, Part | None]]:
        """The parts of each video, one after the other."""
        for begun in started:
            if begun.opening is None:
                yield begun, None
                continue
            for part in self._parts(begun.opening, begun.file.path):
                yield begun, part
            self._openings.discard(begun.opening)

    def _parts(self, opening: Opening, path: Path) -> Iterator[Part]:
        model = self._load()
        try:
            with closing(moments_of(model, opening, path)) as parts:
                yield from parts
        except EXPECTED as error:
            yield error

    def speeds(self) -> str:
        """Nothing: the bar itself shows it."""
        return ""

    def close(self) -> None:
        """Closes videos that were not encoded to their end."""
        for opening in self._openings:
            opening.close()


class Ingest:
    """Brings new and changed videos into a library. `tidy` is called after each write."""

    def __init__(self, view: View, claims: Claims, encoding: Encoding, tidy: Callable[[], None]):
        self.view, self.claims = view, claims
        self._encoding, self._tidy = encoding, tidy
        self._starts = Starts(view, claims, encoding.opened)

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
            with read_ahead(self._starts.start, files, None, AHEAD) as started:
                every = (begun for _, begun in started)
                for begun, part in self._encoding.encoded(every):
                    yield self._outcome(begun, begun.error if part is None else part)
        finally:
            self._encoding.close()

    def _outcome(self, begun: Started, part: Part | None) -> Outcome:
        """What becomes of a video. The last one of a video is final."""
        if isinstance(part, float):
            return Outcome(begun.file, ENCODED, part, is_final=False)
        if isinstance(part, Moments):
            try:
                return self._encoded(begun.file, begun, part)
            except EXPECTED as error:
                part = error
        if part is not None:
            return self._failed(begun.file, begun, part)
        assert begun.outcome is not None
        return dataclasses.replace(begun.outcome, claimed=begun.claimed)

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
        if is_passing(error):
            row["modified"] = NEVER

        def write() -> bool:
            self.view.add(None, row, before)
            return True

        return Outcome(file, FAILED, error=said, write=write, claimed=begun.claimed)

    def _row(self, file: File, content: str) -> dict[str, Any]:
        """The row of a video that has no moments."""
        before = self.view.by_path.get(file.key)
        return empty_row(before.id if before else self.view.id_for(file.key), file, content)


def is_passing(error: Exception) -> bool:
    """Whether a video may be read the next time: a disk or a worker has failed."""
    if isinstance(error, WorkerError):
        return not isinstance(error, DeadlyError)
    return not isinstance(error, VideoPrismError)


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
