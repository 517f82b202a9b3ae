"""The cache folder on this machine, and paths that a user gives."""

import os
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path

from videoprism_mlx.errors import InputError

NAME = "videoprism_mlx"


def cache_directory() -> Path:
    """The folder for cached models, tokenizers and features.

    The environment variable VIDEOPRISM_MLX_CACHE sets it. Otherwise, a cache in ~/.cache is used if
    it exists, because earlier versions put it there on every system. A new cache goes to the
    system's folder for caches: ~/Library/Caches on a Mac, ~/.cache on Linux.
    """
    if moved := os.environ.get("VIDEOPRISM_MLX_CACHE"):
        return user_path(moved)
    earlier = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / NAME
    if earlier.is_dir():
        return earlier
    from platformdirs import user_cache_path  # Imported here: most scripts do not need it.

    return user_cache_path(NAME, appauthor=False)


def data_directory() -> Path:
    """The system's folder for data that programs keep: ~/Library/Application Support on a Mac."""
    from platformdirs import user_data_path  # Imported here: most scripts do not need it.

    return user_data_path(NAME, appauthor=False)


def require_path(path: str | Path) -> None:
    """Raises InputError if no file can have this path."""
    if "\0" in str(path):
        raise InputError(f"{str(path)!r} is not a valid path: it contains a null character")


def user_path(path: str | Path) -> Path:
    """The path with ~ replaced. Raises InputError if it names an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{str(path)!r} cannot be used as a path: {error}") from None


def real_path(path: str | Path) -> str:
    """The absolute path without symbolic links, spelled as the disk spells it.

    A Mac's disk finds a name in capitals or small letters, and however its accents are encoded.
    """
    real = os.path.realpath(path)
    if sys.platform != "darwin":
        return real
    spelled = os.sep
    for name in real.split(os.sep)[1:]:
        spelled = os.path.join(spelled, own_spelling(spelled, name))
    return spelled


def is_inside(path: str, folder: str) -> bool:
    """Whether an absolute path is this folder, or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def own_spelling(folder: str, name: str) -> str:
    """A name in a folder, spelled as in the list of that folder."""
    try:
        names = os.listdir(folder)
    except OSError:  # It may be entered, but not listed.
        return name
    alike = [] if name in names else [one for one in names if _folded(one) == _folded(name)]
    path = os.path.join(folder, name)
    for one in alike:
        with suppress(OSError):
            if os.path.samefile(os.path.join(folder, one), path):
                return one
    return name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
