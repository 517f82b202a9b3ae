"""`videoprism-mlx train`: a module for each kind of training."""

import argparse

from videoprism_mlx.cli.train import classifier, retrieval


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    parser = commands.add_parser(
        "train",
        help="train a classifier or a video-text model on your own videos",
        description="Trains on your own videos. If a run was stopped, the same command continues "
        "it.",
        epilog="example:\n"
        "  videoprism-mlx train classifier --data train --val val -o my-classifier",
    )
    kinds = parser.add_subparsers(metavar="WHAT", title="commands")
    for module in (classifier, retrieval):
        module.add(kinds)
