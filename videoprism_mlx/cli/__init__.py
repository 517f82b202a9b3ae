"""The `videoprism-mlx` command: parsing and printing, a module for each command.

A module imports what its command runs inside `run`, so that `--help` is fast.
"""

import io
import logging
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from videoprism_mlx.cli import (
    check,
    classify,
    convert,
    demo,
    embed,
    evaluate,
    fuse,
    hub,
    info,
    library,
    show,
    similarity,
    timeline,
    train,
)
from videoprism_mlx.cli.program import completion, messages, ranks
from videoprism_mlx.cli.program.parser import Parser, build
from videoprism_mlx.errors import EXPECTED, ElsewhereError, in_words, printable, printable_lines

COMMANDS = (
    demo,
    embed,
    library,
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
    hub,
)

logger = logging.getLogger(__name__)

BUG, BAD_INPUT, INTERRUPTED, BROKEN_PIPE, TERMINATED = 1, 2, 130, 141, 143

# What ends a command as Ctrl-C does: `kill`, and a terminal that is closed.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(KeyboardInterrupt):
    """One of SIGNALS was sent to the command."""


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
        with stopped_by_signals(), ranks.taking_part(options) as is_first:
            code: int = options.run(options)
        if sys.stdout:  # None if the command was started without a stdout.
            sys.stdout.flush()
        logger.debug("done in %.1f s", time.perf_counter() - started)
        return code if is_first else 0
    except BrokenPipeError:  # The program that reads stdout, such as `head`, has ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except ElsewhereError:
        return BAD_INPUT
    except EXPECTED as error:
        logger.debug("the error comes from here:", exc_info=True)
        print(printable(f"videoprism-mlx: {in_words(error)}"), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as stop:
        print("videoprism-mlx: stopped", file=sys.stderr)
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except Exception:
        print_bug()
        return BUG


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Makes SIGNALS raise Terminated, so that nothing unfinished is left. The next one kills.

    A signal that is ignored, as `nohup` does it, stays ignored.
    """

    def stop(number: int, frame: object) -> None:
        for one in changed:
            signal.signal(one, signal.SIG_DFL)
        raise Terminated

    is_main = threading.current_thread() is threading.main_thread()
    changed = [one for one in SIGNALS if is_main and signal.getsignal(one) is signal.SIG_DFL]
    for one in changed:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one in changed:
            signal.signal(one, signal.SIG_DFL)


def print_bug() -> None:
    """Prints the traceback of the current exception, and how to report it."""
    import platform
    import traceback

    from videoprism_mlx.files.record import own_version

    print(printable_lines(traceback.format_exc()), end="", file=sys.stderr)
    print(
        f"This is a bug in videoprism_mlx {own_version()} (Python {platform.python_version()}, "
        f"{platform.platform()}). Please report it with the lines above, the command, and what "
        "`videoprism-mlx info MODEL` prints.",
        file=sys.stderr,
    )
