"""`videoprism-mlx train`: a module for each thing that is trained."""

import argparse

from videoprism_mlx.cli.train import classifier, retrieval


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    parser = commands.add_parser(
        "train",
        help="a classifier or a video-text model, on your own videos",
        description="Trains on your own videos. A run that was stopped goes on where it was when "
        "it is started again.",
    )
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    for module in (classifier, retrieval):
        module.add(kinds)
