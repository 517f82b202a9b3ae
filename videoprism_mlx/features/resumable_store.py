"""Features of many videos on disk. A run that is killed loses nothing, and the next continues."""

import dataclasses
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import (
    FeatureFileError,
    InputError,
    MissingLibraryError,
    OutputError,
    excerpt,
)
from videoprism_mlx.features.embedding.spool import WindowSpool, joined
from videoprism_mlx.features.formats import (
    FORMATS,
    lazy_features,
    read_features,
    read_record,
    write_features,
)
from videoprism_mlx.features.formats.parquet import require_parquet
from videoprism_mlx.features.formats.rows import TEXTS, Rows
from videoprism_mlx.features.pipeline import Array
from videoprism_mlx.features.windows import Window
from videoprism_mlx.files.atomic import (
    LONGEST_NAME,
    is_partial,
    new_file,
    short_name,
)
from videoprism_mlx.files.identity import FileIdentity
from videoprism_mlx.files.lock import LOCK_FILE, locked
from videoprism_mlx.files.output import visible
from videoprism_mlx.files.reading import read_json_object
from videoprism_mlx.files.record import RECORD_FILE, Record, as_json, differences
from videoprism_mlx.video.find import images_in

# Endings of files that nobody means as the name of a folder.
OTHER_FORMATS = (
    *("npy", "csv", "tsv", "txt", "json", "ndjson", "xlsx", "pkl", "pickle", "pt", "pth", "bin"),
    *("h5", "hdf5", "mat", "feather", "arrow", "orc", "avro", "zarr", "db", "sqlite", "lance"),
    *("gz", "zip", "tar", "tgz", "zst"),
)


class FeatureStore:
    """Features by video: in a folder with a file for each video, or in one file for all.

    `finish` writes the one file. Until then, a folder of parts beside it holds a file for each
    video, where a later run finds them. `record` says how the features are made. No features are
    added to an output whose record differs.
    """

    is_ordered = False

    def __init__(self, output: Path, record: Record, file_format: str | None = None):
        self.output = output
        self.record = dict(record)
        self.format, self.is_one_file = check_format(output, file_format)
        self._folder = output.parent / f".{output.name}.parts" if self.is_one_file else output
        self._part_format = "safetensors" if self.is_one_file else self.format
        self._is_complete = False

    @contextmanager
    def opened(self, overwrite: bool = False) -> Iterator["FeatureStore"]:
        """Checks an earlier output, and locks the output against other runs.

        With `overwrite`, it removes an earlier output instead.

        Raises OutputError if another run is writing to it, or if its record differs.
        """
        is_new = not self._folder.exists()
        had_lock = (self._folder / LOCK_FILE).exists()
        is_own = False
        with locked(self._folder, self.output):
            try:
                if overwrite:
                    self._remove()
                self._check_record()
                is_own = True
                yield self
            finally:
                nothing_stored = self._folder.exists() and next(self._parts(), None) is None
                if nothing_stored and (is_new or self.is_one_file):
                    self._clear(is_own)
                elif not (is_own or had_lock):  # It was refused. Nothing is left in it.
                    (self._folder / LOCK_FILE).unlink(missing_ok=True)

    def _check_record(self) -> None:
        """Raises OutputError unless the output is new or has the same record.

        Writes the record into a new output.
        """
        if self.is_one_file and self.output.exists():
            self._require_alike(read_record(self.output), self.output)
        path = self._folder / RECORD_FILE
        if path.exists():
            self._require_alike(self._stored_record(), self.output)
        elif visible(self._folder):
            raise foreign(self._folder, self.output)
        else:
            self._write_record()

    def _stored_record(self) -> dict[str, Any]:
        """The record in the folder. Raises FeatureFileError if it is damaged."""
        try:
            return read_json_object(self._folder / RECORD_FILE, FeatureFileError)
        except FeatureFileError as error:
            raise FeatureFileError(f"{error}; name another output") from None

    def _write_record(self) -> None:
        """Writes the record into the folder."""
        with new_file(self._folder / RECORD_FILE, replace=True) as partial:
            partial.write_text(as_json(self.record) + "\n", encoding="utf-8")

    def _remove(self) -> None:
        """Removes the features of earlier runs, whatever their settings, and nothing else.

        Raises an error, before it removes anything, if the folder is not one of features.
        """
        is_ours = (self._folder / RECORD_FILE).exists() and "features" in self._stored_record()
        if not is_ours and visible(self._folder):
            raise foreign(self._folder, self.output)
        for kind in FORMATS:
            for path in sorted(self._folder.rglob(f"*.{kind}")):
                with suppress(FeatureFileError, MissingLibraryError):
                    read_record(path)
                    path.unlink()
        if self.is_one_file:
            self.output.unlink(missing_ok=True)
        self._write_record()

    def _require_alike(self, found: Record, where: Path) -> None:
        if TEXTS in found:
            raise OutputError(
                f"{where} holds embeddings of texts, and not features of videos; name another "
                "output, or begin anew with --overwrite (overwrite=True)"
            )
        if changed := differences(found, self.record):
            raise OutputError(
                f"{where} was made with other settings: {excerpt('; '.join(changed), 300)}. "
                "Name another output, or begin anew with --overwrite (overwrite=True)"
            )

    def missing(self, videos: Mapping[str, Path]) -> list[str]:
        """The names of the videos that are not stored yet, or have changed since then."""
        if self.is_one_file and self.output.exists():
            stored = {video["name"]: video for video in read_record(self.output)["videos"]}
            self._is_complete = all(
                is_same(stored.get(name), name, path) for name, path in videos.items()
            )
            if self._is_complete:
                return []
            self._unpack()
        return [name for name, path in videos.items() if not self._has(name, path)]

    def _has(self, name: str, path: Path) -> bool:
        part = self._part(name)
        return part.is_file() and is_same(read_record(part)["videos"][0], name, path)

    def _part(self, name: str) -> Path:
        folder, last = os.path.split(name)
        return self._folder / folder / f"{short_name(last, LONGEST_NAME)}.{self._part_format}"

    def _parts(self) -> Iterator[Path]:
        """The files of the videos, without unfinished ones that a killed run left."""
        found = sorted(self._folder.rglob(f"*.{self._part_format}"))
        return (path for path in found if not is_partial(path))

    def _unpack(self) -> None:
        """Writes the parts of the one file, except for those that are there already."""
        arrays = read_features(self.output)
        first = 0
        videos = read_record(self.output)["videos"]
        rows_of_all = sum(video.get("windows", 1) for video in videos)
        if any(len(array) != rows_of_all for array in arrays.values()):
            raise FeatureFileError(
                f"{self.output} is damaged: its features have other numbers of rows than the "
                f"{rows_of_all} that its record names; name another output, or remove it"
            )
        for video in videos:
            last = first + video.get("windows", 1)
            if not self._part(video["name"]).is_file():
                rows = {key: Rows.of(array[first:last]) for key, array in arrays.items()}
                self._write(video, rows)
            first = last

    def add(self, video: Record, features: Mapping[str, Array]) -> None:
        """Stores the features of a video.

        `video` is its `video_record` from before it was read, as it may change while it is read.
        """
        rows = {key: Rows.of(array[None]) for key, array in features.items()}
        self._write(video, rows)

    def add_windows(self, video: Record, windows: Iterable[Window]) -> None:
        """Stores the features of a video's windows, one at a time in memory."""
        with self.spool() as spool:
            for window in windows:
                spool.append(window)
            self.add_spooled(video, [spool])

    def spool(self) -> WindowSpool:
        """A place for features of windows, which `add_spooled` stores. The caller closes it."""
        return WindowSpool(self._folder)

    def add_spooled(self, video: Record, parts: Sequence[WindowSpool]) -> None:
        """Stores the features of all windows of a video, which are in these parts, in order."""
        self._write({**video, "windows": parts[-1].count}, joined(parts))

    def _write(self, video: Record, rows: Mapping[str, Rows]) -> None:
        record = {**self.record, "videos": [video]}
        with new_file(self._part(video["name"]), replace=True) as partial:
            write_features(partial, self._part_format, rows, record)

    def finish(self, names: Sequence[str]) -> None:
        """Writes the one file: first the videos `names`, in that order, then all others."""
        if not self.is_one_file:
            return
        parts = {read_record(part)["videos"][0]["name"]: part for part in self._parts()}
        if parts and not self._is_complete:
            ordered = [parts[name] for name in dict.fromkeys([*names, *parts]) if name in parts]
            videos = [read_record(part)["videos"][0] for part in ordered]
            lazily = [lazy_features(part) for part in ordered]
            arrays = {name: Rows.joined([part[name] for part in lazily]) for name in lazily[0]}
            with new_file(self.output, replace=True) as partial:
                write_features(partial, self.format, arrays, {**self.record, "videos": videos})
        self._clear()

    def _clear(self, is_own: bool = True) -> None:
        """Removes what a store has put into the folder, and the folder if nothing else is there.

        Unless the folder `is_own`, that is only the lock.
        """
        for name in (LOCK_FILE, RECORD_FILE) if is_own else (LOCK_FILE,):
            (self._folder / name).unlink(missing_ok=True)
        for path in self._folder.rglob("*") if is_own else ():
            if path.is_file() and (is_partial(path) or path.suffix == f".{self._part_format}"):
                path.unlink()
        for place, _, _ in os.walk(self._folder, topdown=False):
            with suppress(OSError):  # It is not empty.
                os.rmdir(place)


def foreign(folder: Path, output: Path) -> OutputError:
    """The error for a folder of features, or of parts of the file `output`, with other files."""
    other = visible(folder)[0]
    if folder != output:
        return OutputError(
            f"{output} cannot be written: the folder {folder} beside it, for unfinished features, "
            f"holds files other than features, such as {other}; move them elsewhere, or name "
            "another output"
        )
    return OutputError(
        f"{folder} holds files other than features, such as {other}; name a new or empty folder"
    )


def check_format(output: Path, file_format: str | None = None) -> tuple[str, bool]:
    """The format of the features in `output`, and whether that is one file.

    Raises InputError if the name or the given format does not fit, and MissingLibraryError if the
    format needs a library that is not installed.
    """
    suffix = output.suffix.removeprefix(".")
    is_one_file = suffix in FORMATS
    listed = ", ".join(f"*.{each}" for each in FORMATS)
    if is_one_file and file_format not in (None, suffix):
        raise InputError(
            f"{output} does not have the ending of the format {file_format}; "
            f"call it *.{file_format}"
        )
    if suffix.lower() in (*FORMATS, *OTHER_FORMATS) and not is_one_file and not output.is_dir():
        raise InputError(
            f"features are not written to .{suffix} files; expected {listed} for one file, or a "
            "folder without such an ending for a file for each video"
        )
    chosen = suffix if is_one_file else file_format or "npz"
    if chosen not in FORMATS:
        raise InputError(f"the format is {file_format!r}; expected one of {', '.join(FORMATS)}")
    if output.exists() and output.is_dir() == is_one_file:
        raise OutputError(
            f"{output} is a {'folder' if is_one_file else 'file'}; expected a new or "
            f"earlier output: a folder, or a file called {listed}"
        )
    if chosen == "parquet":
        require_parquet()
    return chosen, is_one_file


def require_format(folder: Path, file_format: str) -> None:
    """Raises OutputError if a folder holds features in another format than this one."""
    if not (folder / RECORD_FILE).is_file():
        return
    for other in FORMATS:
        files = (path for path in folder.rglob(f"*.{other}") if not is_partial(path))
        if other != file_format and any(files):
            raise OutputError(
                f"{folder} holds features in .{other} files, and this run would add .{file_format} "
                f"files; give --format {other} (format={other!r}), name another output, or begin "
                "anew with --overwrite (overwrite=True)"
            )


def require_vectors(features: Collection[str], file_format: str) -> None:
    """Raises InputError unless each feature is one vector, as these formats hold them."""
    lines = "JSON lines" if file_format == "jsonl" else "rows of a .parquet file"
    for name in ("tokens", "frames"):
        if name in features:
            raise InputError(
                f"{lines} hold one vector for each video, not {name}; write an .npz instead"
            )


def video_record(name: str, path: Path) -> dict[str, Any]:
    """A video's name, and the identity of its file, or of its images, in its present version."""
    identity = FileIdentity.of(path)
    if path.is_dir():
        images = [FileIdentity.of(image) for image in images_in(path)]
        identity = FileIdentity(
            identity.path,
            sum(image.bytes for image in images),
            max(each.modified for each in (identity, *images)),
        )
    return {"name": name, **dataclasses.asdict(identity)}


def is_same(stored: Record | None, name: str, path: Path) -> bool:
    """Whether the stored features are of this version of the video.

    A missing video counts as unchanged. Raises InputError if another video has the same name.
    """
    if stored is None:
        return False
    try:
        now = video_record(name, path)
    except OSError:
        return True
    if all(stored.get(key) == now[key] for key in ("name", "bytes", "modified")):
        return True
    if stored["path"] != now["path"] and os.path.exists(stored["path"]):
        raise InputError(
            f"the output holds {stored['path']} under the name {name}, and {path} would have the "
            "same name; give the folder that holds both, or name another output"
        )
    return False
