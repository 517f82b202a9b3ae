"""Which library a command uses."""

import argparse


def add_library(parser: argparse.ArgumentParser) -> None:
    """Adds the option for the library."""
    parser.add_argument(
        "--library",
        metavar="DIR",
        help="folder of the library, or s3://BUCKET/PATH (default: one among your data; "
        "`videoprism-mlx library info` says where)",
    )
