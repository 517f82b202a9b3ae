"""`videoprism-mlx library duplicates`: videos that are copies of one another."""

import argparse

from videoprism_mlx.cli import shared


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--in", dest="folder", metavar="FOLDER", help="below this folder alone")
    shared.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the groups of copies: how sure they are, and each file, the best to keep first."""
    from videoprism_mlx.errors import printable
    from videoprism_mlx.library.filters import Where
    from videoprism_mlx.library.library import Library
    from videoprism_mlx.pictures.drawing import clock

    groups = Library(options.library).duplicates(Where(options.folder))
    if options.json:
        shared.print_json([group.as_json() for group in groups])
        return 0
    for group in groups:
        print(f"{group.sure:.0%} sure")
        for one in group.videos:
            size = f"{one.width} x {one.height}"
            about = f"{clock(one.duration):>8} {size:>11} {one.size / 1e6:8.1f} MB"
            print(printable(f"{about}  {one.path}"))
    if not groups:
        print("no video is a copy of another")
    return 0
