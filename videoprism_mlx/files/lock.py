"""A lock on a folder: only one process at a time writes to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from videoprism_mlx.errors import OutputError

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: Path, output: Path) -> Iterator[None]:
    """Makes `folder` and holds its lock. The system releases the lock if the process is killed.

    Raises OutputError if another process holds the lock, which is then writing to `output`.
    """
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    while not lock.is_locked:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except (FileExistsError, FileNotFoundError):
            if folder.exists() and not folder.is_dir():
                raise
            continue  # Another process has just removed the folder.
        except Timeout:
            if not (folder / LOCK_FILE).exists():  # Its last user removed it, and is done.
                continue
            raise OutputError(
                f"another run is writing to {output}; wait for it, or name another output"
            ) from None
        except NotImplementedError as error:
            raise OutputError(
                f"the file system of {folder} has no locks ({error}); name another output"
            ) from None
        if not (folder / LOCK_FILE).exists():  # It was removed after it was opened.
            lock.release()
    try:
        yield
    finally:
        lock.release()
