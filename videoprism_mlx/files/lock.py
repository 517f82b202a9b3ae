"""One process at a time writes to a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from videoprism_mlx.errors import OutputError

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: Path, output: Path) -> Iterator[None]:
    """Makes `folder` and holds its lock, which the system releases when the process ends.

    OutputError if another run holds it: that run is writing to `output`.
    """
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    while not lock.is_locked:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            if not (folder / LOCK_FILE).exists():  # Whoever held it ended, and removed the folder.
                continue
            raise OutputError(
                f"another run is writing to {output}; wait for it, or name another output"
            ) from None
        except FileNotFoundError:  # The same, a moment earlier.
            continue
    try:
        yield
    finally:
        lock.release()
