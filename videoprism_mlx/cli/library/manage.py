"""`videoprism-mlx library`: what is in a library, and keeping it in order."""

import argparse

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.library.place import add_library


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "library",
        help="what is in the library of videos; check, clean up and export it",
        description="Looks after the library that `videoprism-mlx index` makes.",
        epilog="example:\n  videoprism-mlx library info",
    )
    kinds = parser.add_subparsers(metavar="WHAT", title="commands")
    info = kinds.add_parser("info", help="the model, the videos, and how large the library is")
    add_library(info)
    shared.add_json(info)
    info.set_defaults(run=run_info)


def run_info(options: argparse.Namespace) -> int:
    """Prints what is in a library."""
    return 0
