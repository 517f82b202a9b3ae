"""Keeping a library up to date while files appear, change and vanish."""

import glob
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from videoprism_mlx.library.indexing.add import Added
from videoprism_mlx.library.indexing.scan import File
from videoprism_mlx.runtime.libraries import require_library
from videoprism_mlx.video.find import local_path
from videoprism_mlx.video.source import existing

# How many seconds a file has not changed when it counts as written.
QUIET = 2.0

# After how many seconds all files are looked at, as network drives report no changes.
LATEST = 60.0


class Stillness:
    """Whether files are no longer being written."""

    def __init__(self, quiet: float):
        self.quiet = quiet
        self._seen: dict[str, tuple[int, int, float]] = {}

    def __call__(self, file: File) -> bool:
        """Whether a file has been as it is now for long enough."""
        now, before = time.monotonic(), self._seen.get(file.key)
        if before is None or before[:2] != (file.size, file.modified):
            self._seen[file.key] = (file.size, file.modified, now)
            is_still = before is None and time.time() - file.modified / 1e9 > self.quiet
        else:
            is_still = now - before[2] >= self.quiet
        if is_still:
            self._seen.pop(file.key, None)
        return is_still


def folder_of(path: str | Path) -> Path:
    """The folder in which a file, folder or glob pattern is watched."""
    folder = local_path(path)
    while glob.has_magic(str(folder)) and not folder.exists():
        folder = folder.parent
    folder = existing(folder)
    return folder if folder.is_dir() else folder.parent


def watch(
    add: Callable[[Callable[[File], bool]], Added],
    paths: Sequence[str | Path],
    own: str,
    stop: threading.Event | None = None,
    quiet: float = QUIET,
) -> Iterator[Added]:
    """Calls `add` now and after each change of the files, until `stop` is set. Yields what it did.

    Changes below `own`, the library itself, do not count. Files that are being written wait.
    """
    require_library("watchfiles", "index --watch")
    import watchfiles

    folders = {folder_of(path) for path in paths}
    is_still = Stillness(quiet)
    own = os.path.realpath(own)

    def is_of_interest(_: object, path: str) -> bool:
        return not f"{path}/".startswith(f"{own}/")

    stop = threading.Event() if stop is None else stop
    changes = watchfiles.watch(
        *folders,
        watch_filter=is_of_interest,
        debounce=500,
        rust_timeout=max(100, int(quiet * 500)),
        yield_on_timeout=True,
        stop_event=stop,
    )
    added = add(is_still)
    yield added
    latest = time.monotonic()
    for changed in changes:
        if changed or added.waiting or time.monotonic() - latest > LATEST:
            added = add(is_still)
            latest = time.monotonic()
            yield added
