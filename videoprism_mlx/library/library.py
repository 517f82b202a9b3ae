"""A library of videos: indexed once, kept up to date, and searched by words, pictures and clips."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import NoLibraryError
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.files.places import user_path
from videoprism_mlx.library.filters import Where
from videoprism_mlx.library.indexing.add import Added, Adding, require_found
from videoprism_mlx.library.indexing.machines import kept_open, workers
from videoprism_mlx.library.indexing.scan import File, scan
from videoprism_mlx.library.indexing.watch import QUIET, watch
from videoprism_mlx.library.model import LibraryModel, Model, load_recorded, recorded_model
from videoprism_mlx.library.moment import Moment
from videoprism_mlx.library.search.duplicates import Group, duplicates
from videoprism_mlx.library.searcher import Query, Searcher
from videoprism_mlx.library.table import Tables, library_place, require_place
from videoprism_mlx.library.upkeep.compact import KEEP_AT_LEAST, compact
from videoprism_mlx.library.upkeep.export import check_export, export
from videoprism_mlx.library.upkeep.info import describe, errors
from videoprism_mlx.library.upkeep.orphans import remove_orphans
from videoprism_mlx.library.upkeep.prune import prune
from videoprism_mlx.library.upkeep.verify import Verified, verify
from videoprism_mlx.runtime.libraries import require_library
from videoprism_mlx.video.ffmpeg.decoding import Decoding
from videoprism_mlx.video.find import local_path
from videoprism_mlx.workers.connect import reached
from videoprism_mlx.workers.places import Mapped

if TYPE_CHECKING:
    from distributed import Client

# The model of a new library for which none is named.
DEFAULT_MODEL = "videoprism_lvt_public_v1_base"


def made(where: str, model: Model | None, settings: dict[str, Any]) -> tuple[Tables, LibraryModel]:
    """A new library, and its model."""
    default = DEFAULT_MODEL if settings["adapters"] is None else None
    chosen = LibraryModel(default if model is None else model, **settings)
    tables = Tables.create(where, chosen.record(), chosen.dimension)
    chosen.require_model(tables.where, tables.record)  # Another run may have made it.
    chosen.require_reading(tables.where, tables.record)
    return tables, chosen


class Library:
    """A library of videos in a folder, or in a bucket (s3://...).

    `where` is by default a folder among the user's data. It need not exist: `add` makes it. Other
    processes may use the library at the same time.
    """

    def __init__(self, where: str | Path | None = None):
        self.where = library_place(where)
        self._model: LibraryModel | None = None
        self._searcher: Searcher | None = None

    def __repr__(self) -> str:
        return f"Library({self.where!r})"

    def tables(self) -> Tables:
        """The tables as they are now. Raises LibraryError if there are none."""
        return Tables.open(self.where)

    def search(
        self,
        query: Query,
        *,
        k: int = 10,
        where: Where | None = None,
        moments: bool = False,
    ) -> list[Moment]:
        """The `k` videos that fit a query best, each with its best moment; the best first.

        A query is a text, or the path of a video or picture, or several of them with + and -
        between spaces, such as "2:surfing + ./wave.mp4@3-7 - beach"; or an embedding (D,). With
        `moments`, the `k` best moments, of which several may be of one video. The first search
        loads the library's model.
        """
        return self.searcher.search(query, k, where, moments)

    @property
    def searcher(self) -> Searcher:
        """What searches it. It keeps the model, and the embeddings of queries."""
        model = None if self._model is None else self._model.loaded
        if model is not None:  # The searcher is another thread, which cannot read the weights.
            mx.eval(model.parameters())
        if self._searcher is None:
            self._searcher = Searcher(self.where, load=self._load)
        return self._searcher

    def _load(self) -> tuple[VideoPrismModel, Processor]:
        """The model that `add` has used, or else the one that the record names."""
        if self._model is not None and self._model.loaded is not None:
            return self._model.loaded, self._model.reading.processor
        return load_recorded(self.tables().record, where=self.where)

    def duplicates(self, where: Where | None = None, *, progress: bool = True) -> list[Group]:
        """Videos that are copies of one another: re-encoded, resized or trimmed.

        The surest groups come first. Parts of the files are read.
        """
        return duplicates(self.tables(), where, progress)

    def add(
        self,
        paths: str | Path | Sequence[str | Path],
        model: Model | None = None,
        *,
        window: int | None = None,
        stride: int | None = None,
        fps: float | None = None,
        partial: bool | None = None,
        size: int | None = None,
        resize: str | None = None,
        resample: str | None = None,
        decoding: Decoding | None = None,
        dtype: str | None = None,
        adapters: str | Path | None = None,
        progress: bool = True,
        is_ready: Callable[[File], bool] | None = None,
        client: "Client | str | int | None" = None,
        mapping: Mapped | None = None,
        send_files: bool = False,
    ) -> Added:
        """Brings the library up to date with videos: files, folders and glob patterns.

        New and changed ones are encoded, `window` frames at a time, `fps` frames a second, every
        `stride` frames; by default windows of the model's number of frames, which last 4 s, one
        after the other. Moved and copied files are recognised. Those below the folders that have
        vanished are marked as missing. A video that cannot be read is skipped.

        All videos of a library are read in the same way, by the same model: the arguments are for
        a new library, and must be left out, or be the same, later. `model`, `dtype`, `adapters` and
        the others are as for `embed`. Files for which `is_ready` is false are left for later.

        `client`, `mapping` and `send_files` are as for `embed`: Dask's workers encode the videos.
        """
        require_library("lancedb", "a library of videos")
        settings: dict[str, Any] = dict(
            window=window, stride=stride, fps=fps, partial=partial, size=size
        )
        settings |= dict(resize=resize, resample=resample, decoding=decoding)
        settings |= dict(dtype=dtype, adapters=adapters)
        paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
        with reached(client, mapping, send_files, progress) as asked:
            try:
                tables = self.tables()
            except NoLibraryError:
                require_place(self.where)
                found = scan(paths)
                if is_ready is not None and not any(map(is_ready, found.files)):
                    return Added(self.where, len(found.files), waiting=found.keys())
                require_found(found)
                tables, chosen = made(self.where, model, settings)
            else:
                chosen = self._chosen(tables, model, settings)
                found = scan(paths)
            self._model = chosen
            return Adding(tables, chosen, progress, workers(asked)).run(found, is_ready)

    def watch(
        self,
        paths: str | Path | Sequence[str | Path],
        model: Model | None = None,
        *,
        stop: threading.Event | None = None,
        quiet: float = QUIET,
        client: "Client | str | int | None" = None,
        mapping: Mapped | None = None,
        **settings: Any,
    ) -> Iterator[Added]:
        """As `add`, and again after each change of the files, until `stop` is set.

        Yields what each `add` did. A file that is being written is left until it has not changed
        for `quiet` seconds. `client`, `mapping` and `settings` are those of `add`.
        """
        paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
        show = settings.get("progress", True)
        with kept_open(client, show) as found:

            def add(is_ready: Callable[[File], bool]) -> Added:
                return self.add(
                    paths, model, is_ready=is_ready, client=found, mapping=mapping, **settings
                )

            yield from watch(add, paths, self.where, stop, quiet)

    def info(self) -> dict[str, Any]:
        """The place, the model and the settings of the library, and how much it holds."""
        return describe(self.tables())

    def errors(self) -> list[dict[str, Any]]:
        """The files that cannot be used: `path` and `error`. `add` tries them when they change."""
        return errors(self.tables())

    def verify(self) -> Verified:
        """Compares videos, moments and files, and says what is wrong."""
        return verify(self.tables())

    def prune(self, folder: str | Path | None = None) -> list[str]:
        """Removes the videos that are marked as missing. Returns their paths.

        With `folder`, it removes those below it whose files are gone, marked or not.
        """
        return prune(self.tables(), None if folder is None else str(local_path(folder)))

    def compact(self) -> None:
        """Joins the files of the tables, and removes what killed runs have left."""
        tables = self.tables()
        remove_orphans(tables)
        for table in (tables.videos, tables.moments):
            compact(table, tables.where, KEEP_AT_LEAST)

    def export(self, output: str | Path, *, overwrite: bool = False) -> int:
        """Writes all moments to OUT.npz or OUT.parquet. Returns how many.

        The arrays are `embedding` (moments, width), and for each moment `video`, `path`, `start`
        and `end`.
        """
        output = user_path(output)
        check_export(output, overwrite)
        return export(self.tables(), output, overwrite)

    def _chosen(self, tables: Tables, model: Model | None, settings: Any) -> LibraryModel:
        """The library's model, after comparing what was asked for with the record."""
        given = {name: value for name, value in settings.items() if value is not None}
        if model is None and not given and self._model is not None:
            return self._model
        return recorded_model(self.where, tables.record, model, **given)
