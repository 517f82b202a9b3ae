"""Adding videos to a library: what is there, what is new, and what has vanished."""

import dataclasses
import errno
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

from videoprism_mlx.errors import VideoError, are, counted
from videoprism_mlx.library.indexing.claims import Claims
from videoprism_mlx.library.indexing.ingest import Encoding, Here, Ingest, Workers, mark_missing
from videoprism_mlx.library.indexing.recognise import (
    BUSY,
    COPIED,
    ENCODED,
    FAILED,
    MOVED,
    Outcome,
    is_same,
    is_same_file,
)
from videoprism_mlx.library.indexing.scan import File, Found, is_below
from videoprism_mlx.library.indexing.view import Known, View
from videoprism_mlx.library.model import LibraryModel
from videoprism_mlx.library.neighbours import keep_up
from videoprism_mlx.library.storage import is_remote
from videoprism_mlx.library.table import MISSING, Tables
from videoprism_mlx.library.upkeep.compact import Tidying
from videoprism_mlx.library.upkeep.orphans import remove_orphans
from videoprism_mlx.progress import bar, write

# A video that another run is encoding is looked at again at the end. How often all are looked at.
PASSES = 5

# The bar while workers encode: their speeds take the place of the bytes.
MACHINES = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


@dataclasses.dataclass(frozen=True)
class Added:
    """What `Library.add` did, in numbers of videos.

    `videos` were found. Of these, `encoded` are new, `moved` have another path than before,
    `copied` have the content of another one, and `busy` were left to another run. `missing` have
    vanished since the last time. `moments` were written. `skipped` says, by path, why a video
    cannot be used.
    """

    library: str
    videos: int
    encoded: int = 0
    moved: int = 0
    copied: int = 0
    missing: int = 0
    busy: int = 0
    moments: int = 0
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    waiting: tuple[str, ...] = ()  # Of `watch`: files that are still being written.


def require_found(found: Found, known: Mapping[str, Known] | None = None) -> None:
    """Raises an error if nothing was found where videos were asked for, and none were before."""
    paths = known or {}
    if found.files or found.problems or found.unreadable:
        return
    if any(found.covers(path) or path in found.absent for path in paths):
        return
    for path in found.absent:
        if not any(is_below(one, [path]) for one in paths):
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", path)
    if not found.absent:
        raise VideoError(f"{', '.join(found.roots)}: no videos are there, and no images as frames")


class Adding:
    """One run of `Library.add` on an open library. Videos are encoded here, or by `workers`."""

    def __init__(
        self, tables: Tables, model: LibraryModel, show: bool, workers: Workers | None = None
    ):
        self.tables, self._model, self._show, self._workers = tables, model, show, workers
        self.claims = Claims(tables)
        self.view = View(tables)
        self._tidy = Tidying(tables)
        self._counts = dict.fromkeys((ENCODED, MOVED, COPIED), 0)
        self._moments = 0
        self.skipped: dict[str, str] = {}

    def run(self, found: Found, is_ready: Callable[[File], bool] | None = None) -> Added:
        """Brings what was found into the library."""
        if is_ready is None:  # Else they may still come.
            require_found(found, self.view.by_path)
        try:
            self.claims.clear_up()
            if is_remote(self.tables.where):  # There are no claims that tell who was killed.
                remove_orphans(self.tables)
            self._say_what_is_not_there(found)
            wanted = self._wanted(found)
            waiting: list[File] = []
            ready: list[File] = []
            for file in wanted:
                (ready if is_ready is None or is_ready(file) else waiting).append(file)
            busy = self._all(ready) if ready else []
            missing = self._missing(found)
            keep_up(self.tables)
        finally:
            self.claims.release_all()
        return Added(
            self.tables.where,
            len(found.files),
            encoded=self._counts[ENCODED],
            moved=self._counts[MOVED],
            copied=self._counts[COPIED],
            missing=missing,
            busy=len(busy),
            moments=self._moments,
            skipped=self.skipped,
            waiting=tuple(file.key for file in waiting),
        )

    def _wanted(self, found: Found) -> list[File]:
        """The videos that are not in the library as they are now. Changed ones come last."""
        new, changed = [], []
        for file in found.files:
            file, known = self._known(file, found.names.get(file.inode, []))
            if known is None:
                others = self.view.same_look(file.size, file.modified)
                if not any(is_same_file(one.path, file.path) for one in others):
                    new.append(file)
            elif not is_same(known, file) or known.status == MISSING:
                changed.append(file)
            elif known.error:
                self.skipped[file.key] = known.error
        return new + changed

    def _known(self, file: File, names: Sequence[File]) -> tuple[File, Known | None]:
        """What the library has of a file, under whichever of its names."""
        for name in [file, *names]:
            if (known := self.view.by_path.get(name.key)) is not None:
                return name, known
        return file, None

    def _all(self, files: list[File]) -> list[File]:
        """Works on videos until none is left, or the rest is left to others. Returns the rest."""
        total = sum(file.size for file in files)
        layout = None if self._workers is None else MACHINES
        with (
            self._encoding(files) as encoding,
            bar(
                unit="B", total=total, show=self._show, leave=True, scale=True, layout=layout
            ) as shown,
        ):
            done = 0
            for _ in range(PASSES):
                busy = self._pass(encoding, files, shown, done, len(files))
                done += len(files) - len(busy)
                if not busy or len(busy) == len(files):
                    break
                files = busy
        return busy

    def _encoding(self, files: Sequence[File]) -> AbstractContextManager[Encoding]:
        model = self._model
        if self._workers is None:
            return nullcontext(Here(model.reading, model.load))
        return self._workers(model, files)

    def _pass(
        self, encoding: Encoding, files: list[File], shown: Any, before: int, count: int
    ) -> list[File]:
        ingest = Ingest(self.view, self.claims, encoding, self._tidied)
        busy: list[File] = []
        done = before
        seen: dict[str, int] = {}  # Bytes of the videos in progress.
        with closing(ingest.run(files)) as outcomes:
            for outcome in outcomes:
                file = outcome.file
                if speeds := encoding.speeds():
                    shown.set_postfix_str(speeds, refresh=False)
                if not outcome.is_final:
                    now = round(outcome.done * file.size)
                    shown.update(now - seen.get(file.key, 0))
                    seen[file.key] = now
                    continue
                if outcome.kind == BUSY:
                    busy.append(file)
                    continue
                shown.update(file.size - seen.pop(file.key, 0))
                done += 1
                shown.set_description_str(f"{done:,} of {before + count:,} videos", refresh=False)
                self._take_note(outcome)
        return busy

    def _take_note(self, outcome: Outcome) -> None:
        if outcome.kind in self._counts:
            self._counts[outcome.kind] += 1
        self._moments += outcome.moments
        if outcome.kind == FAILED:
            self.skipped[outcome.file.key] = outcome.error
            self._say(f"skipped: {outcome.error}")

    def _tidied(self) -> None:
        if self._tidy():
            keep_up(self.tables)
            self.view.read()

    def _missing(self, found: Found) -> int:
        """Marks what has vanished below the folders that were asked for."""
        there = {file.key for file in found.files}
        gone = [
            known
            for known in self.view.rows()
            if known.path not in there
            and known.status != MISSING
            and (found.covers(known.path) or known.path in found.absent)
            and not is_below(known.path, found.empty)
        ]
        count = mark_missing(self.view, self.claims, gone)
        if count:
            self._say(
                f"{counted(count, 'video')} {are(count)} no longer there, and {are(count)} marked "
                "as missing. What comes back is found again; `videoprism-mlx library prune` "
                "removes the rest"
            )
        return count

    def _say_what_is_not_there(self, found: Found) -> None:
        for path, why in {**found.unreadable, **found.problems}.items():
            self.skipped[path] = why
            self._say(f"skipped: {why}")
        for path in [*found.empty, *found.absent]:
            inside = sum(is_below(key, [path]) for key in self.view.by_path if key != path)
            what = "is empty" if path in found.empty else "does not exist"
            if inside:
                self.skipped[path] = (
                    f"{path} {what}, and the library has {inside:,} videos of it. If that disk is "
                    "not connected, connect it. If they are gone, `videoprism-mlx library prune "
                    "--in FOLDER` removes them"
                )
                self._say(self.skipped[path])
            elif path in found.absent and path not in self.view.by_path:
                self.skipped[path] = f"{path}: no such file or folder"
                self._say(f"skipped: {self.skipped[path]}")

    def _say(self, text: str) -> None:
        if self._show:
            write(text)
