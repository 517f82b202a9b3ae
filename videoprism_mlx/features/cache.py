"""Arrays of videos, kept on disk: one memory-mapped file for each video."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from videoprism_mlx import progress
from videoprism_mlx.errors import EXPECTED, FeatureFileError, InputError, are, counted, in_words
from videoprism_mlx.features.encode import one_line
from videoprism_mlx.features.pipeline import Array, read_ahead
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.identity import FileIdentity
from videoprism_mlx.files.npy import map_array
from videoprism_mlx.files.record import RECORD_FILE
from videoprism_mlx.ranks.files import complete, have
from videoprism_mlx.ranks.group import Group
from videoprism_mlx.ranks.joining import current
from videoprism_mlx.video.find import images_in
from videoprism_mlx.video.source import Files


class ArrayCache:
    """One array for each video, all made in the way that `record` describes.

    The folder's name depends on the record, and a file's name on the path, size and time of change
    of the video. An array that was made in another way, or of another version of the video, is
    therefore not found.
    """

    def __init__(self, root: Path, record: Mapping[str, Any]):
        self.record = json.dumps(record, indent=2, sort_keys=True) + "\n"
        self.folder = root / hashlib.sha256(self.record.encode()).hexdigest()[:16]
        if not (self.folder / RECORD_FILE).exists():
            with new_file(self.folder / RECORD_FILE, replace=True) as partial:
                partial.write_text(self.record, encoding="utf-8")

    def path(self, files: Files) -> Path:
        """The file for the array of this version of a video. Raises OSError if it is missing."""
        if isinstance(files, Path):
            files = tuple(images_in(files)) if files.is_dir() else (files,)
        identity = [dataclasses.astuple(FileIdentity.of(file)) for file in files]
        name = hashlib.sha256(json.dumps(identity).encode(errors="surrogateescape")).hexdigest()
        return self.folder / name[:2] / f"{name[:32]}.npy"

    def load(self, path: Path) -> Array:
        """The array at `path`, memory-mapped."""
        return map_array(path, FeatureFileError, "remove it, and it will be made again")

    def store(self, path: Path, array: Array) -> None:
        """Writes an array to `path`."""
        # Opened for writing only, NumPy would write past Python, and not say why it cannot.
        with new_file(path, replace=True) as partial, open(partial, "w+b") as file:
            np.save(file, array)


def fill(
    cache: ArrayCache,
    videos: Sequence[Files],
    read: Callable[[Files], Any],
    finish: Callable[[Any], Array] = np.asarray,
    what: str = "reading",
    size: int | None = None,
    ahead: int = 8,
) -> tuple[list[Path | None], list[str]]:
    """Makes the arrays that are missing. Returns the path of each, and a line for each bad video.

    Threads call `read` for up to `ahead` videos before `finish` makes arrays of the results. The
    path of a bad video is None; its line is also printed to stderr. With `size`, the bytes of one
    array, the disk space that all will take is printed first.

    Of several ranks, each makes its share of the arrays, and gets the others. The first rank says
    which version of a video there is, and tries again what another could not read.
    """
    group = current()
    paths, bad = paths_of(cache, videos, group)
    numbers: dict[Path, int] = {}  # A video that is listed twice is here once.
    for number, path in enumerate(paths):
        if path is not None:
            numbers.setdefault(path, number)
    there = have(group, list(numbers))
    missing = [path for place, path in enumerate(numbers) if not there[:, place].any()]
    if missing and size is not None:
        print_room(cache.folder, what, len(missing), len(videos), size)

    def make(chosen: Sequence[Path]) -> dict[Path, Exception]:
        named = {path: videos[numbers[path]] for path in chosen}
        return make_arrays(cache, named, read, finish, what, ahead)

    failed = make(group.part(missing))
    if missing and group.size > 1:
        progress.note(
            f"{what}: {group.name(group.rank)} has made its share; it waits for the others"
        )
    failed |= make(left_by_others(group, missing, failed))
    bad |= {number: failed[path] for number, path in enumerate(paths) if path in failed}
    lines = {number: unusable(videos[number], error) for number, error in sorted(bad.items())}
    if group.is_first:
        for line in lines.values():
            progress.write(line)
    said = group.broadcast(list(lines.items()))
    for number, _ in said:
        paths[number] = None
    complete(group, list(dict.fromkeys(path for path in paths if path is not None)), cache.load)
    return paths, [line for _, line in said]


def make_arrays(
    cache: ArrayCache,
    videos: Mapping[Path, Files],
    read: Callable[[Files], Any],
    finish: Callable[[Any], Array],
    what: str,
    ahead: int,
) -> dict[Path, Exception]:
    """Makes the array of each video at its path. Returns the errors of those that are bad."""

    def attempt(path: Path) -> Any:
        try:
            return read(videos[path])
        except EXPECTED as error:
            return error

    failed: dict[Path, Exception] = {}
    with (
        progress.bar(
            what=what, unit="video", total=len(videos), show=bool(videos), leave=True
        ) as bar,
        read_ahead(attempt, videos, readers=None, ahead=ahead) as clips,
    ):
        for path, clip in clips:
            try:
                array = clip if isinstance(clip, Exception) else finish(clip)
            except EXPECTED as error:
                array = error
            if isinstance(array, Exception):
                failed[path] = array
            else:
                cache.store(path, array)
            bar.update()
    return failed


def left_by_others(
    group: Group, missing: Sequence[Path], failed: Mapping[Path, Exception]
) -> list[Path]:
    """At the first rank, the videos that other ranks could not read; and a note about them."""
    places = {path: place for place, path in enumerate(missing)}
    why = next(map(in_words, failed.values()), "")
    found = group.collect(([places[path] for path in failed], why))
    left = []
    for rank, (numbers, why) in enumerate(found[1:], 1):
        if group.is_first and numbers:
            progress.note(f"{group.name(rank)} cannot read {counted(len(numbers), 'video')}: {why}")
            left += [missing[number] for number in numbers]
    return left


def paths_of(
    cache: ArrayCache, videos: Sequence[Files], group: Group
) -> tuple[list[Path | None], dict[int, Exception]]:
    """The path of each array, None for a video that is missing, and its error by its number.

    Of several ranks, the first one looks at the videos.
    """
    names: list[str | None] = []
    bad: dict[int, Exception] = {}
    for number, files in enumerate(videos if group.is_first else ()):
        try:
            names.append(str(cache.path(files).relative_to(cache.folder)))
        except EXPECTED as error:
            bad[number] = error
            names.append(None)
    return [None if name is None else cache.folder / name for name in group.broadcast(names)], bad


def print_room(folder: Path, what: str, missing: int, total: int, size: int) -> None:
    """Prints how many bytes the missing arrays, of `size` bytes each, will take on the disk."""
    free = shutil.disk_usage(folder).free
    progress.note(
        f"{what}: {missing} of {counted(total, 'video')} {are(missing, total)} new, and will take "
        f"{missing * size / 1e6:,.1f} MB in {folder}, where {free / 1e6:,.0f} MB are free"
    )


def require_usable(lines: Sequence[str], total: int, skip_bad: bool) -> None:
    """Raises InputError if there are bad videos, unless they may be skipped and others remain.

    `lines` has a line for each bad video, of `total` videos.
    """
    if lines and (not skip_bad or len(lines) == total):
        raise InputError(
            f"{len(lines)} of {counted(total, 'video')} cannot be used, as listed above; "
            "repair or remove them"
            f"{'' if skip_bad else ', or leave them out with --skip-bad (skip_bad=True)'}"
        )


def unusable(files: Files, error: Exception) -> str:
    """One line about a video that cannot be used."""
    return "cannot be used: " + one_line(files if isinstance(files, Path) else files[0], error)
