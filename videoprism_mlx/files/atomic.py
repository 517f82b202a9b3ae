"""Files and directories that appear whole or not at all."""

import errno
import hashlib
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# No room, no room within a quota, a limit on the size of files.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# Bytes of a name that leave room for what is put around it: file systems allow 255.
LONGEST_NAME = 140


@contextmanager
def new_directory(target: str | Path) -> Iterator[Path]:
    """A private directory that becomes `target` when the block ends well, and goes when not.

    A `target` that exists is left alone: FileExistsError.
    """
    require_new_directory(Path(target))
    with _partial(target) as (partial, target):
        partial.mkdir()
        yield partial
        for file in partial.iterdir():
            _flush(file)
        try:
            os.rename(partial, target)  # This replaces an empty directory and nothing else.
        except OSError:
            require_new_directory(target)
            raise


@contextmanager
def new_file(target: str | Path, replace: bool = False) -> Iterator[Path]:
    """A private path whose file becomes `target` when the block ends well, and goes when not.

    A `target` that exists is left alone, FileExistsError, unless it is to be replaced.
    """
    if not replace:
        require_new_file(Path(target))
    with _partial(target) as (partial, target):
        yield partial
        _flush(partial)
        if not replace:
            require_new_file(target)
        os.replace(partial, target)


@contextmanager
def _partial(target: str | Path) -> Iterator[tuple[Path, Path]]:
    """A path beside `target` to write to. What killed runs left there is removed first."""
    target = Path(os.path.abspath(target))
    new_parents = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{short_name(target.name, LONGEST_NAME)}.partial-{socket.gethostname()}-"
    for left in target.parent.iterdir():
        if left.name.startswith(prefix) and not _is_running(left.name.removeprefix(prefix)):
            _remove(left)
    partial = target.parent / f"{prefix}{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        with explained_if_full(target):
            yield partial, target
    finally:
        _remove(partial)
        for parent in new_parents:
            if not any(parent.iterdir()):
                parent.rmdir()


@contextmanager
def explained_if_full(target: Path) -> Iterator[None]:
    """Says of an error that comes of a full disk what can be done."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        left = shutil.disk_usage(target.parent).free
        reason = error.strerror or os.strerror(error.errno)
        raise OSError(
            error.errno,
            f"{reason}; {left / 1e6:,.0f} MB are free on the disk: make room or write elsewhere",
            str(target),
        ) from None


def short_name(name: str, most: int) -> str:
    """A file's name, cut and with a checksum in it if it has more than so many bytes."""
    encoded = os.fsencode(name)
    if len(encoded) <= most:
        return name
    checksum = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[: most - 17].decode(errors='ignore')}-{checksum}"


def require_new_file(target: Path) -> None:
    """That nothing is at `target`."""
    if os.path.lexists(target):
        raise FileExistsError(
            errno.EEXIST, "already exists; name another output or remove it first", str(target)
        )


def require_new_directory(target: Path) -> None:
    """That nothing is at `target`, or an empty directory."""
    if not target.is_dir() or any(target.iterdir()):
        require_new_file(target)


def _is_running(suffix: str) -> bool:
    """Whether the process that a partial path's name ends with is still there."""
    pid = suffix.partition("-")[0]
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def _flush(file: Path) -> None:
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
