"""A lock on a folder: only one process at a time writes to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from videoprism_mlx.errors import OutputError
from videoprism_mlx.files.places import require_path

LOCK_FILE = ".lock"

# How often to try while other processes remove the folder.
ATTEMPTS = 100


@contextmanager
def locked(folder: Path, output: Path) -> Iterator[None]:
    """Makes `folder` and holds its lock. The system releases the lock if the process is killed.

    Raises OutputError if another process holds the lock, which is then writing to `output`.
    """
    require_path(folder)
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        for attempt in range(ATTEMPTS):
            if _acquired(lock, folder, is_last=attempt == ATTEMPTS - 1):
                break
    except Timeout:
        raise OutputError(
            f"another run is writing to {output}; wait for it, or name another output"
        ) from None
    except NotImplementedError as error:
        raise OutputError(
            f"the file system of {folder} does not support locks ({error}); name another output"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _acquired(lock: FileLock, folder: Path, is_last: bool) -> bool:
    """Whether the lock is held now. If another process has removed the folder, it is not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        if is_last or (folder / LOCK_FILE).exists():
            raise
        return False
    except (FileExistsError, FileNotFoundError):  # The folder came or went just now.
        if is_last or folder.is_file():
            raise
        return False
    if not (folder / LOCK_FILE).exists() and not is_last:  # It was removed after it was opened.
        lock.release()
        return False
    return True
