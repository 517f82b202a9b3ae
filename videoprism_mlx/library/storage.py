"""How a library is stored in LanceDB: connecting, writing beside others, and what goes wrong.

Processes write to a library at the same time. If two change the same rows, LanceDB refuses one of
the writes, and that process tries again.
"""

import functools
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import LibraryError, VideoPrismError, excerpt
from videoprism_mlx.files.atomic import ADVICE, DISK_FULL
from videoprism_mlx.files.lock import Claim
from videoprism_mlx.runtime.libraries import import_later, require_library

# The folder of a local library for locks: of videos that are being encoded, and of other work.
LOCKS = "locks"

# How often a row is written that other processes write at the same time.
WRITE_ATTEMPTS = 8

# What LanceDB says then.
CONFLICTS = ("conflict", "retryable", "too many concurrent", "incompatible transaction")

# The lock of whoever makes a table. How long others wait for it, and how often they look: seconds.
MAKING, PATIENCE, MOMENT = "making.lock", 30.0, 0.02

# How many bytes of indices, and of what describes files, a process keeps in memory at most.
INDEX_CACHE, METADATA_CACHE = 256 << 20, 128 << 20

# How many bytes stay free on the disk.
ROOM = 2**26

# What LanceDB says of a full disk. It gives no number of the error.
FULL = re.compile(r"no space left|disk quota|file too large|os error (28|122|69|27)\b", re.I)

# What it says of a disk or folder that may not be written to.
DENIED = re.compile(r"permission denied|read-only file system|os error (13|30)\b", re.I)

# What damaged files make LanceDB raise.
PANICS = ("PanicException", "RustPanic")


def connect(place: str) -> Any:
    """LanceDB on a folder, or on a bucket (s3://...)."""
    import_later("lance_namespace_urllib3_client")  # Half of LanceDB's imports, and never used.
    require_library("lancedb", "a library of videos")
    import lancedb

    return lancedb.connect(place, session=session())


@functools.cache
def session() -> Any:
    """What all connections of this process share: what they keep in memory."""
    import lancedb

    return lancedb.Session(INDEX_CACHE, METADATA_CACHE)


def new_or_open(database: Any, name: str, schema: Any) -> Any:
    """A new table or, if there is one, that one."""
    place = str(database.uri)
    with suppress(ValueError):  # It is not there, or another process is just making it.
        return database.open_table(name)
    with making(place):
        if name in names_of(database):
            try:
                return database.open_table(name)
            except ValueError:  # Whoever made it may have been killed just then.
                if may_have_rows(place, name):
                    raise
        try:
            table = database.create_table(name, schema=schema)
        except ValueError:  # In a bucket, another process may have just made it.
            if name not in names_of(database):
                raise
            return database.open_table(name)
        keep_earlier(table)
        return table


def names_of(database: Any) -> list[str]:
    """The names of the tables that are there, or are being made."""
    return list(database.list_tables().tables)


def may_have_rows(place: str, name: str) -> bool:
    """Whether a table that cannot be opened may have rows, and is damaged."""
    return is_remote(place) or (Path(place) / f"{name}.lance" / "data").is_dir()


@contextmanager
def making(place: str) -> Iterator[None]:
    """Only one process at a time makes a table in a folder. In a bucket nothing prevents it."""
    path, until, claim = Path(place) / LOCKS / MAKING, time.monotonic() + PATIENCE, None
    while not is_remote(place) and (claim := Claim.take(path)) is None:
        if time.monotonic() > until:
            raise LibraryError(
                f"the library {place}: another process has been making its tables for "
                f"{PATIENCE:.0f} s; if there is none, remove {path}"
            )
        time.sleep(MOMENT)
    try:
        yield
    finally:
        if claim is not None:
            claim.release()


def keep_earlier(table: Any) -> None:
    """If another process has made a table at the same time, its rows and its record stay.

    LanceDB then replaces that table by this one, as its next version.
    """
    if (made := table.version) == 1:
        return
    own = table.schema.metadata
    table.checkout(made - 1)
    if table.schema.metadata != own:
        table.restore()
        return
    rows = table.to_arrow()
    table.checkout_latest()
    if rows.num_rows:
        table.add(rows)


def is_remote(place: str) -> bool:
    """Whether a library is in a bucket, not in a folder."""
    return "://" in place


def again_after_conflicts(table: Any, write: Callable[[], object]) -> None:
    """Writes to a table. If another process wrote to the same rows just then, it tries again."""
    for attempt in range(WRITE_ATTEMPTS):
        try:
            write()
            return
        except (RuntimeError, OSError) as error:
            if not is_conflict(error) or attempt == WRITE_ATTEMPTS - 1:
                raise
        time.sleep(random.uniform(0, 0.02 * 2**attempt))
        table.checkout_latest()


def require_room(where: str, size: int) -> None:
    """Raises LibraryError if a disk has no room for `size` bytes, and for the table's own files.

    LanceDB itself may notice a full disk too late, and leave a table that cannot be read.
    """
    if is_remote(where):
        return
    free = shutil.disk_usage(where).free
    if free < size + ROOM:
        raise LibraryError(
            f"the library {where}: the disk is full ({free / 1e6:,.0f} MB are free, and "
            f"{(size + ROOM) / 1e6:,.0f} MB are needed): {ADVICE}, and run it again"
        )


def is_conflict(error: Exception) -> bool:
    """Whether this is LanceDB's error about another process that wrote at the same time."""
    text = str(error).lower()
    return any(word in text for word in CONFLICTS)


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Raises LibraryError, of one line, where LanceDB fails."""
    import pyarrow as pa

    try:
        yield
    except VideoPrismError:
        raise
    except (RuntimeError, OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise LibraryError(explained(where, error)) from error
    except BaseException as error:
        if type(error).__name__ not in PANICS:
            raise
        raise LibraryError(explained(where, error)) from error


def explained(where: str, error: BaseException) -> str:
    """One line about a failure of LanceDB, and what to do about it."""
    text = str(error)
    if (isinstance(error, OSError) and error.errno in DISK_FULL) or FULL.search(text):
        advice = f"the disk is full ({excerpt(text)}): {ADVICE}, and run it again"
    elif DENIED.search(text):
        advice = "there is no permission to write to it, or to read it"
    elif isinstance(error, OSError) and error.errno is not None:
        advice = excerpt(text, 200)
    else:
        advice = (
            f"it cannot be read or written, or is damaged ({excerpt(text, 200)}); "
            "`videoprism-mlx library verify` checks it"
        )
    return f"the library {where}: {advice}"
