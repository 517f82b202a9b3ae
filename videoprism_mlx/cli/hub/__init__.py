"""The commands for the Hugging Face Hub and for what is kept on this machine."""

import argparse

from videoprism_mlx.cli.hub import cache, upload


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    for module in (upload, cache):
        module.add(commands)
