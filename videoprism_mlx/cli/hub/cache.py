"""`videoprism-mlx cache`: what is kept on this machine, and removing what is not needed."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared

if TYPE_CHECKING:
    from videoprism_mlx.hub.cache import Kept


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "cache",
        help="list what is kept on this machine, and remove what is not needed",
        description="Lists what is kept so that it need not be downloaded or computed again, and "
        "how large it is: converted models, models and adapters from the Hub, tokenizers, and "
        "computed features. With --prune, it removes what nothing needs any more: what killed runs "
        "have left, official checkpoints whose converted model is here, converted models of "
        "Transformers that have changed since or are gone, and notes about files that are gone. "
        "Without --prune, it says what that would be. Libraries and outputs are not looked at.",
        epilog="examples:\n  videoprism-mlx cache\n  videoprism-mlx cache --prune",
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove what the command lists as not needed"
    )
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.files.places import cache_directory
    from videoprism_mlx.hub.cache import cache_contents, prune_cache
    from videoprism_mlx.progress import note

    contents = cache_contents()
    unneeded = [kept for kept in contents if kept.why is not None]
    if options.json:
        removed = prune_cache(contents) if options.prune else []
        rows = {"kept": without(contents, removed), "removed": removed}
        listed = {name: [as_row(kept) for kept in each] for name, each in rows.items()}
        shared.print_json({"cache": str(cache_directory()), **listed})
        return 0
    if options.prune:
        if unneeded:
            print_table(unneeded, "to remove")
        removed = prune_cache(contents)
        note(f"{megabytes(removed)} removed" if removed else "there is nothing to remove")
        return 0
    print_table(without(contents, unneeded), "kept")
    if unneeded:
        print()
        print_table(unneeded, "not needed any more")
        note(f"`videoprism-mlx cache --prune` removes what is not needed: {megabytes(unneeded)}")
    note(f"cache: {cache_directory()}")
    return 0


def without(contents: Sequence["Kept"], others: Sequence["Kept"]) -> list["Kept"]:
    """Those that are not among the others."""
    return [kept for kept in contents if kept not in others]


def as_row(kept: "Kept") -> dict[str, Any]:
    """Something that is kept, for JSON."""
    return kept._asdict() | {"path": str(kept.path)}


def megabytes(contents: Sequence["Kept"]) -> str:
    """The size of all together."""
    return size(sum(kept.bytes for kept in contents))


def size(count: int) -> str:
    """A number of bytes, in MB."""
    return f"{count / 1e6:,.1f} MB"


def print_table(contents: Sequence["Kept"], title: str) -> None:
    """Prints a line for each: its size, its name, and what it is."""
    from videoprism_mlx.cli.program.tables import fitted, padded, width
    from videoprism_mlx.errors import printable
    from videoprism_mlx.hub.cache import TITLES

    rows = [
        (size(kept.bytes), printable(kept.name), kept.why or TITLES[kept.kind]) for kept in contents
    ]
    columns = max([len(title), *(width(name) for _, name, _ in rows)])
    sizes = max([4, *(len(each) for each, _, _ in rows)])
    print(fitted(f"{'size':>{sizes}}  {title}"))
    for each, name, what in rows:
        print(fitted(f"{each:>{sizes}}  {padded(name, columns)}  {what}".rstrip()))
    print(fitted(f"{megabytes(contents):>{sizes}}  in all"))
