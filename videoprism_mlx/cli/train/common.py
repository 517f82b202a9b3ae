"""What the training commands share: their options, and what they print."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.program.completion import models
from videoprism_mlx.cli.program.parser import add_alias

if TYPE_CHECKING:
    from videoprism_mlx.training.recipe import Recipe

# As in training/recipe.py, which imports MLX.
LR_SCHEDULES = ("constant", "cosine")


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
    option: Any = parser.add_argument(
        "--model",
        default=model,
        metavar="NAME|DIR",
        help="the model to start from: a model's name (`videoprism-mlx info` lists them), a model "
        "directory or a Hub id (default: %(default)s)",
    )
    option.completer = models
    shared.add_revision(parser)
    shared.add_frames(parser)
    shared.add_reading(parser)
    shared.add_overwrite(parser, "remove an earlier run and begin anew; by default it is continued")
    add_run(parser)
    shared.add_json(parser)


def add_recipe(
    parser: argparse.ArgumentParser,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    lr_schedule: str = "constant",
    max_grad_norm: float | None = None,
    patience: bool = True,
) -> None:
    """Adds the options of a `Recipe`, with these defaults. `patience` says whether it has that."""
    group = parser.add_argument_group("training")

    def add(flag: str, default: Any, help: str, type: Any = int, metavar: str = "N") -> None:
        group.add_argument(flag, type=type, default=default, metavar=metavar, help=help)

    add("--epochs", epochs, "largest number of epochs (default: %(default)s)")
    add("--batch-size", batch_size, "examples in a step (default: %(default)s)")
    rate_help = "learning rate of Adam (default: %(default)s)"
    add("--learning-rate", learning_rate, rate_help, float, "RATE")
    decay_help = "decoupled weight decay, of matrices only (default: %(default)s)"
    add("--weight-decay", weight_decay, decay_help, float, "SHARE")
    add("--warmup", 0, "steps in which the learning rate rises from 0 (default: %(default)s)")
    group.add_argument(
        "--lr-schedule",
        choices=LR_SCHEDULES,
        default=lr_schedule,
        help="learning rate after the warm-up: constant, or a cosine to 0 (default: %(default)s)",
    )
    add_alias(group, "--decay", "--lr-schedule", choices=LR_SCHEDULES)
    limit = "no limit" if max_grad_norm is None else "%(default)s"
    norm_help = f"scale gradients of a larger norm down to this one (default: {limit})"
    add("--max-grad-norm", max_grad_norm, norm_help, float, "NORM")
    add_alias(group, "--clip", "--max-grad-norm", type=float)
    if patience:
        add("--patience", None, "stop after N epochs in a row without an improvement")
    else:
        parser.set_defaults(patience=None)
    add("--seed", 0, "the same seed gives the same result (default: %(default)s)")


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds the options for what a training run keeps, and for bad videos."""
    parser.add_argument(
        "--save-every",
        type=int,
        metavar="N",
        help="keep the state every N steps, as well as after each epoch",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder for frames and features that later runs use again",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out videos that cannot be used; otherwise they are an error",
    )


def recipe(options: argparse.Namespace) -> "Recipe":
    """The recipe that the options describe."""
    import dataclasses

    from videoprism_mlx.training.recipe import Recipe

    names = [field.name for field in dataclasses.fields(Recipe)]
    return Recipe(**{name: getattr(options, name) for name in names})


def arguments_of(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments that both trainings take."""
    reading = ("num_frames", "size", "resize", "resample", "partial", "dtype")
    keeping = ("save_every", "skip_bad", "cache", "overwrite")
    arguments = {name: getattr(options, name) for name in (*reading, *keeping)}
    return {**arguments, "decoding": shared.decoding(options)}


@contextmanager
def explained_when_stopped(options: argparse.Namespace) -> Iterator[None]:
    """Prints after Ctrl-C how to continue the run."""
    from videoprism_mlx.ranks.joining import current

    try:
        yield
    except KeyboardInterrupt:
        if current().is_first and not current().is_ending:
            shared.say_how_to_continue("the progress is kept", options)
        raise


def report_skipped(skipped: list[str]) -> int:
    """Prints how many videos were left out. Returns the exit code: 1 if there are any."""
    from videoprism_mlx.errors import counted
    from videoprism_mlx.progress import note

    if skipped:
        was = "was" if len(skipped) == 1 else "were"
        note(f"{counted(len(skipped), 'video')} {was} left out")
    return 1 if skipped else 0
