"""The commands of a library of videos, a module for each."""

import argparse

from videoprism_mlx.cli.library import index, manage, search, serve


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    for module in (index, search, serve, manage):
        module.add(commands)
