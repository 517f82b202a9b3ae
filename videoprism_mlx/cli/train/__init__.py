"""`videoprism-mlx train`: a module for each thing that is trained."""

import argparse

from videoprism_mlx.cli.train import classifier, retrieval


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    parser = commands.add_parser(
        "train",
        help="train a classifier or a video-text model on your own videos",
        description="Trains on your own videos. A run that was stopped is continued when the same "
        "command is given again.",
    )
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    for module in (classifier, retrieval):
        module.add(kinds)
