"""The `videoprism-mlx` command: parsing and printing, a module for each group of commands.

Modules import what they run inside `run`, so that `--help` comes at once.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from videoprism_mlx.cli import convert, demo, embed, evaluate, fuse, info, pictures, text, train
from videoprism_mlx.errors import EXPECTED

BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    0 if all went well, 1 if some of the videos could not be used or a model departs, 2 for bad
    input. Results go to stdout, everything else to stderr.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("videoprism_mlx").setLevel(logging.INFO)
    parser = argparse.ArgumentParser(prog="videoprism-mlx", description="VideoPrism in MLX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (demo, embed, text, train, evaluate, info, pictures, fuse, convert):
        module.add(commands)
    options = parser.parse_args(arguments)
    try:
        code = options.run(options)
        if sys.stdout:  # It may have been closed.
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # Whoever read the results has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except EXPECTED as error:
        print(f"videoprism-mlx: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("videoprism-mlx: stopped", file=sys.stderr)
        return INTERRUPTED
