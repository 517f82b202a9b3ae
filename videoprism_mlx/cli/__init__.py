"""The `videoprism-mlx` command: parsing and printing, a module for each command.

A module imports what its command runs inside `run`, so that `--help` is fast.
"""

import io
import logging
import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence

from videoprism_mlx.cli import (
    check,
    classify,
    convert,
    demo,
    embed,
    evaluate,
    fuse,
    info,
    show,
    similarity,
    timeline,
    train,
)
from videoprism_mlx.cli.program import completion, messages
from videoprism_mlx.cli.program.parser import Parser, build
from videoprism_mlx.errors import EXPECTED

COMMANDS = (
    demo,
    embed,
    similarity,
    classify,
    train,
    evaluate,
    info,
    check,
    show,
    timeline,
    fuse,
    convert,
)

logger = logging.getLogger(__name__)

BUG, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    0 if all went well; 1 if videos were skipped, a model differs from the original, or there is a
    bug; 2 for bad input. Results go to stdout, everything else to stderr.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # File names may contain bytes that are not UTF-8. They are printed as \udcff.
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = build_parser()
    completion.complete(parser)
    options = parser.parse_args(arguments)
    with messages.set_up(options):
        return run(options)


def build_parser() -> Parser:
    """The parser of all commands."""
    return build(COMMANDS)


def run(options: Namespace) -> int:
    """Runs the command that the options name, and returns its exit code."""
    started = time.perf_counter()
    try:
        code: int = options.run(options)
        if sys.stdout:  # None if the command was started without a stdout.
            sys.stdout.flush()
        logger.debug("done in %.1f s", time.perf_counter() - started)
        return code
    except BrokenPipeError:  # The program that reads stdout, such as `head`, has ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except EXPECTED as error:
        logger.debug("the error comes from here:", exc_info=True)
        print(f"videoprism-mlx: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("videoprism-mlx: stopped", file=sys.stderr)
        return INTERRUPTED
    except Exception:
        print_bug()
        return BUG


def print_bug() -> None:
    """Prints the traceback of the current exception, and how to report it."""
    import platform
    import traceback

    from videoprism_mlx.files.record import own_version

    traceback.print_exc()
    print(
        f"This is a bug in videoprism_mlx {own_version()} (Python {platform.python_version()}, "
        f"{platform.platform()}). Please report it with the lines above, the command, and what "
        "`videoprism-mlx info MODEL` prints.",
        file=sys.stderr,
    )
