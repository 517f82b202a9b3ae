"""A lock on a folder: only one process at a time writes to it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from videoprism_mlx.errors import OutputError
from videoprism_mlx.files.places import require_path

LOCK_FILE = ".lock"

# How often to try while other processes remove the folder.
ATTEMPTS = 100


class Claim:
    """A lock on something that has a name: of all processes, one holds the file's lock.

    The file is there as long as the claim is held, or until after its process was killed.
    """

    def __init__(self, path: Path, descriptor: int):
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> "Claim | None":
        """The claim that this file, which is made, stands for; None if another holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(ATTEMPTS):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(path, descriptor):
                    return cls(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError as error:
                os.close(descriptor)
                raise OutputError(
                    f"the file system of {path.parent} does not support locks ({error}); name "
                    "another output"
                ) from None
            os.close(descriptor)  # Whoever held it has just removed the file.
        return None

    def release(self) -> None:
        """Gives it back, and removes the file."""
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one at this path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


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
