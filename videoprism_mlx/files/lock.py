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

    The file is there as long as the claim is held. If its process is killed, it stays; `was_left`
    says that the file was there.
    """

    def __init__(self, path: Path, descriptor: int, was_left: bool):
        self.path, self.was_left = path, was_left
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> "Claim | None":
        """The claim that this file, which is made, stands for; None if another holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(ATTEMPTS):
            was_left = path.exists()
            flags = os.O_RDWR | os.O_CLOEXEC | (0 if was_left else os.O_CREAT | os.O_EXCL)
            try:
                descriptor = os.open(path, flags, 0o666)
            except (FileExistsError, FileNotFoundError):  # It came or went just now.
                continue
            if not _is_free(path, descriptor):
                os.close(descriptor)
                return None
            if _is_at(path, descriptor):
                return cls(path, descriptor, was_left)
            os.close(descriptor)  # Whoever held it has just removed the file.
        return None

    @staticmethod
    def is_held(path: Path) -> bool:
        """Whether some process holds the claim. A file that is there stays."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _is_free(path, descriptor)
        finally:
            os.close(descriptor)

    def release(self, is_done: bool = True) -> None:
        """Gives it back, and removes the file if the work `is_done`, or was not begun."""
        if is_done:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _is_free(path: Path, descriptor: int) -> bool:
    """Locks an open file. Whether nobody else had."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise OutputError(
            f"the file system of {path.parent} does not support locks ({error}); name another "
            "output"
        ) from None
    return True


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
