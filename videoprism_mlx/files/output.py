"""Which folders a command may write to: new ones, empty ones, and those it made earlier."""

import os
from collections.abc import Collection, Container
from pathlib import Path

from videoprism_mlx.errors import OutputError
from videoprism_mlx.files.places import require_path


def require_own(
    folder: Path, what: str, marks: Collection[str], own: Container[str] | None = None
) -> None:
    """Raises OutputError unless `folder` is new, empty, or was made by the same command earlier.

    The command made it if one of the names `marks` is in it. Every other name must then be in
    `own`; None allows any name. `what` says what the command writes, for instance "a demo". Hidden
    names do not count.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; expected a new folder, or one that holds {what}")
    names = visible(folder)
    strange = [name for name in names if name not in marks]
    if any(name in marks for name in names):
        strange = [name for name in strange if own is not None and name not in own]
    if strange:
        raise OutputError(
            f"{folder} holds something other than {what}, such as {strange[0]}; "
            "name a new or empty folder"
        )


def require_writable(target: Path, is_file: bool = False) -> None:
    """Raises OutputError unless a new file or folder can be made at `target`, or written to.

    With `is_file`, it must not be a folder. The check is for before a long computation.
    """
    require_path(target)
    if is_file and target.is_dir():
        raise OutputError(f"{target} is a folder; expected the name of a file to write")
    absolute = Path(os.path.abspath(target))
    places = absolute.parents if is_file or not absolute.is_dir() else (absolute,)
    folder = next(place for place in places if os.path.lexists(place))
    if not folder.is_dir():
        raise OutputError(f"{target} cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{target} cannot be written: there is no permission to write to {folder}; "
            "name another output"
        )


def visible(folder: Path) -> list[str]:
    """The sorted names in a folder, without hidden ones. Empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
