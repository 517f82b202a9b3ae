"""What the training commands share: their options, and what they print."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videoprism_mlx.cli import shared


def add_options(parser: argparse.ArgumentParser, data: str, model: str) -> None:
    """Adds the options of both commands. `data` describes the data, `model` is the default."""
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help=data)
    parser.add_argument(
        "--val",
        type=Path,
        metavar="PATH",
        help="data of the same form, to validate on after each epoch",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the directory to write"
    )
    parser.add_argument(
        "--model",
        default=model,
        metavar="NAME|DIR",
        help="the model to start from: a released model's name, a model directory or a Hub id "
        "(default: %(default)s)",
    )
    shared.add_frames(parser)
    shared.add_reading(parser)
    shared.add_run(parser)
    shared.add_json(parser)


def arguments_of(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments that both trainings take."""
    reading = ("num_frames", "size", "resize", "resample", "partial", "dtype")
    keeping = ("save_every", "skip_bad", "cache")
    arguments = {name: getattr(options, name) for name in (*reading, *keeping)}
    return {**arguments, "decoding": shared.decoding(options)}


@contextmanager
def explained_when_stopped() -> Iterator[None]:
    """Prints after Ctrl-C how to continue the run."""
    try:
        yield
    except KeyboardInterrupt:
        print("the progress is kept; run the same command to continue", file=sys.stderr)
        raise


def report_skipped(skipped: list[str]) -> int:
    """Prints how many videos were left out. Returns the exit code: 1 if there are any."""
    if skipped:
        print(f"{len(skipped)} videos were left out", file=sys.stderr)
    return 1 if skipped else 0
