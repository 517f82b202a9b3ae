"""Writes files and directories so that they appear complete or not at all."""

import errno
import hashlib
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from videoprism_mlx.errors import AlreadyExistsError, in_words
from videoprism_mlx.files.places import require_path

# The disk is full, a quota is used up, or the file is larger than a limit allows.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# What to do about it.
ADVICE = "make room or write elsewhere"

# File systems allow names of 255 bytes. A name this long leaves room for a prefix and a suffix.
LONGEST_NAME = 140
LONGEST_SUFFIX = 16

# In the name of every temporary file, between the target's name and what tells processes apart.
PARTIAL = ".partial-"

# The end of the name of a directory that is being replaced.
BEFORE = "-before"


@contextmanager
def new_directory(target: str | Path) -> Iterator[Path]:
    """Yields an empty temporary directory, which is renamed to `target` at the end of the block.

    If the block raises, the temporary directory is removed and nothing appears. Raises
    AlreadyExistsError if something exists at `target`, except for an empty directory.
    """
    require_new_directory(Path(target))
    if os.path.islink(target):  # To an empty directory, which is replaced.
        target = os.path.realpath(target)
    with _partial(target) as (partial, target):
        partial.mkdir()
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                flush(path)
        try:
            os.rename(partial, target)  # This can replace an empty directory, but nothing else.
        except OSError:
            require_new_directory(target)
            raise


@contextmanager
def replaced_directory(target: str | Path) -> Iterator[Path]:
    """Yields the path of a directory to make, which at the end of the block replaces `target`.

    If the block raises, `target` stays as it was. It need not exist. A link to a directory stays.
    """
    if os.path.islink(target):
        target = os.path.realpath(target)
    with _partial(target) as (partial, target):
        yield partial
        aside = partial.with_name(f"{partial.name}{BEFORE}")
        try:
            if target.exists():
                os.rename(target, aside)
            os.rename(partial, target)
        except BaseException:
            _put_back(aside, target)
            raise
        _remove(aside)


@contextmanager
def new_file(target: str | Path, replace: bool = False) -> Iterator[Path]:
    """Yields a temporary path to write to, which is renamed to `target` at the end of the block.

    The temporary path has the same suffix as `target`. If the block raises, the temporary file is
    removed and `target` stays as it was. Raises AlreadyExistsError if something exists at `target`,
    unless `replace` is set and it is a file.
    """
    if not replace or (os.path.exists(target) and not os.path.isfile(target)):
        require_new_file(Path(target))
    with _partial(target) as (partial, target):
        yield partial
        flush(partial)
        if not replace:
            require_new_file(target)
        os.replace(partial, target)


@contextmanager
def _partial(target: str | Path) -> Iterator[tuple[Path, Path]]:
    """Yields a temporary path beside `target`, and `target` as an absolute path.

    Temporary files for the same target that killed processes have left are removed first. What
    was to be replaced is put back if nothing has taken its place.
    """
    require_path(target)
    target = Path(os.path.abspath(target))
    new_parents = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{short_name(target.name, LONGEST_NAME)}{PARTIAL}{socket.gethostname()}-"
    for left in target.parent.iterdir():
        if left.name.startswith(prefix) and not _is_running(left.name.removeprefix(prefix)):
            if left.name.endswith(BEFORE):
                _put_back(left, target)
            _remove(left)
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= LONGEST_SUFFIX else ""
    partial = target.parent / f"{prefix}{os.getpid()}-{uuid.uuid4().hex[:8]}{suffix}"
    try:
        with explained_if_full(target):
            yield partial, target
    finally:
        _remove(partial)
        for parent in new_parents:
            with suppress(OSError):  # It is not empty, or another process has removed it.
                parent.rmdir()


@contextmanager
def explained_if_full(target: Path) -> Iterator[None]:
    """Adds to an OSError about a full disk how much is free there and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        free = f"; {shutil.disk_usage(target.parent).free / 1e6:,.0f} MB are free on the disk: "
        # The error may be of a file inside a new directory, and have been explained for that.
        reason = in_words(OSError(error.errno, error.strerror))
        if reason.endswith(ADVICE):
            reason = reason.rpartition(";")[0]
        raise OSError(error.errno, f"{reason}{free}{ADVICE}", str(target)) from None


def short_name(name: str, most: int) -> str:
    """The name of a file. If it has more than `most` bytes, it is cut and gets a checksum."""
    encoded = os.fsencode(name)
    if len(encoded) <= most:
        return name
    checksum = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[: most - 17].decode(errors='ignore')}-{checksum}"


def is_partial(path: Path) -> bool:
    """Whether this is a temporary file or directory, perhaps one that a killed process left."""
    return path.name.startswith(".") and PARTIAL in path.name


def is_left(path: Path) -> bool:
    """Whether this is a temporary file or directory of a process here that runs no more."""
    name = path.name.partition(f"{PARTIAL}{socket.gethostname()}-")
    return is_partial(path) and bool(name[1]) and not _is_running(name[2])


def require_new_file(target: Path, or_overwrite: bool = False) -> None:
    """Raises AlreadyExistsError if something exists at `target`.

    With `or_overwrite`, the error says that it can be replaced with --overwrite.
    """
    if os.path.lexists(target):
        how = "replace it with --overwrite (overwrite=True)" if or_overwrite else "remove it first"
        raise AlreadyExistsError(
            errno.EEXIST, f"already exists; name another output or {how}", str(target)
        )


def require_new_directory(target: Path, or_overwrite: bool = False) -> None:
    """As `require_new_file`, but the target may be an empty directory."""
    if not target.is_dir() or any(target.iterdir()):
        require_new_file(target, or_overwrite)


def _is_running(ending: str) -> bool:
    """Whether the process that made a temporary name still runs. Its id starts the ending."""
    pid = ending.partition("-")[0]
    try:
        os.kill(int(pid), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def flush(file: Path) -> None:
    """Makes sure that the content of a file is on the disk."""
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())


def _put_back(aside: Path, target: Path) -> None:
    """Renames what was moved aside to `target` again, unless something is there."""
    if aside.exists() and not os.path.lexists(target):
        os.rename(aside, target)


def _remove(path: Path) -> None:
    """Removes a file or a directory, if there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
