"""How much the program says on stderr: `-v` and `-q`."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from videoprism_mlx import progress
from videoprism_mlx.errors import printable, printable_lines

QUIET, VERBOSE = "quiet", "verbose"
LEVELS = {QUIET: logging.WARNING, VERBOSE: logging.DEBUG}

# Its warnings are about words that a small model does not know: -q hides them.
ABOUT_WORDS = "videoprism_mlx.tokenizers"

logger = logging.getLogger(__name__)


class Printable(logging.Formatter):
    """Messages whose names can neither break a line nor send commands to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The message. What is put into it is on one line; it may have several by itself."""
        shown = logging.makeLogRecord(record.__dict__)
        if isinstance(record.args, tuple):
            shown.args = tuple(
                one if isinstance(one, (int, float)) else printable(one) for one in record.args
            )
        return printable_lines(super().format(shown))


class ToStderr(logging.Handler):
    """Prints messages to stderr, above progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message."""
        if "tqdm" in sys.modules:
            progress.write(self.format(record))
        elif sys.stderr is not None:
            print(self.format(record), file=sys.stderr)


def add_loudness(parser: argparse.ArgumentParser) -> None:
    """Adds -v and -q, which may stand before and after the name of a command.

    A command that has a -q of its own, such as `convert`, gets --quiet only.
    """
    group = parser.add_mutually_exclusive_group()
    for short, long, help in (
        ("-v", VERBOSE, "print also how a model is loaded, how long it takes, and where an error "
         "comes from"),
        ("-q", QUIET, "print no progress: results, warnings and errors only"),
    ):  # fmt: skip
        names = [short, f"--{long}"]
        group.add_argument(
            *(name for name in names if name not in parser._option_string_actions),
            dest="loudness",
            action="store_const",
            const=long,
            default=argparse.SUPPRESS,
            help=help,
        )


@contextmanager
def set_up(options: argparse.Namespace) -> Iterator[None]:
    """Prints messages and progress in the block as -v and -q say."""
    loudness = getattr(options, "loudness", None)
    root, own = logging.getLogger(), logging.getLogger("videoprism_mlx")
    handler = None if root.handlers else ToStderr()
    if handler is not None:
        handler.setFormatter(Printable("%(message)s"))
        root.addHandler(handler)
    words = logging.getLogger(ABOUT_WORDS)
    before = own.level, words.level
    own.setLevel(LEVELS.get(str(loudness), logging.INFO))
    words.setLevel(logging.ERROR if loudness == QUIET else logging.NOTSET)
    logging.getLogger("huggingface_hub").propagate = False  # It prints its messages by itself.
    if loudness == QUIET or not (sys.stderr and sys.stderr.isatty()):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with progress.hidden(loudness == QUIET):
            yield
    finally:
        own.setLevel(before[0])
        words.setLevel(before[1])
        if handler is not None:
            root.removeHandler(handler)
