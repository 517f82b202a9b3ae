"""Which folders a command may write to: new ones, empty ones, and those it made earlier."""

from collections.abc import Collection, Container
from pathlib import Path

from videoprism_mlx.errors import OutputError


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


def visible(folder: Path) -> list[str]:
    """The sorted names in a folder, without hidden ones. Empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
