"""What several commands share: their options, and reporting videos that cannot be used."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.errors import InputError

if TYPE_CHECKING:
    from videoprism_mlx.training.recipe import Recipe

DEFAULT_MODEL = "videoprism_lvt_public_v1_base"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model, in which type."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|DIR",
        help="a released model's name, a model directory or a Hub id (default: %(default)s)",
    )
    parser.add_argument("--dtype", help="float32, bfloat16 or float16; by default as stored")
    parser.add_argument(
        "--adapters", type=Path, metavar="DIR", help="adapters to add to the model's weights"
    )


def add_frames(parser: argparse.ArgumentParser) -> None:
    """How many frames make a clip."""
    parser.add_argument(
        "--frames",
        dest="num_frames",
        type=int,
        metavar="N",
        help="frames of a clip; by default the model's",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """How videos become frames."""
    parser.add_argument("--size", type=int, help="pixels of a frame's side; by default the model's")
    parser.add_argument(
        "--resize",
        choices=("stretch", "crop"),
        help="stretch frames to the square (default), or crop their centre",
    )
    parser.add_argument(
        "--resample",
        choices=("area", "lanczos"),
        help="average areas (default), or give the very pixels of the official demos, slower",
    )
    parser.add_argument(
        "--partial", action="store_true", help="use what can be decoded of a damaged video"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Results as JSON."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_recipe(
    parser: argparse.ArgumentParser,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    decay: str = "constant",
    clip: float | None = None,
) -> None:
    """The options of a `Recipe`, with these defaults."""
    group = parser.add_argument_group("training")

    def add(flag: str, default: Any, help: str, type: Any = int, metavar: str = "N") -> None:
        group.add_argument(flag, type=type, default=default, metavar=metavar, help=help)

    add("--epochs", epochs, "epochs at most (default: %(default)s)")
    add("--batch-size", batch_size, "examples in a step (default: %(default)s)")
    rate_help = "learning rate of Adam (default: %(default)s)"
    add("--learning-rate", learning_rate, rate_help, float, "RATE")
    decay_help = "decoupled weight decay, of matrices only (default: %(default)s)"
    add("--weight-decay", weight_decay, decay_help, float, "SHARE")
    add("--warmup", 0, "steps in which the learning rate rises from 0 (default: %(default)s)")
    group.add_argument(
        "--decay",
        choices=("constant", "cosine"),
        default=decay,
        help="how the learning rate goes on after the warm-up (default: %(default)s)",
    )
    add("--clip", clip, "largest norm of a gradient (default: %(default)s)", float, "NORM")
    add("--patience", None, "stop after N epochs in a row without an improvement")
    add("--seed", 0, "the same seed gives the same result (default: %(default)s)")


def add_run(parser: argparse.ArgumentParser) -> None:
    """What a training run keeps, and whether it goes on without bad videos."""
    parser.add_argument(
        "--save-every",
        type=int,
        metavar="N",
        help="keep the state every N steps, as well as after each epoch",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="where what was read or encoded is kept"
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


def given(value: Any, default: Any) -> Any:
    """What an option says, be it 0, or else the default."""
    return default if value is None else value


def load(options: argparse.Namespace) -> tuple[Any, Any, Path]:
    """The model, its processor with the options' settings, and the directory of both."""
    import dataclasses

    from videoprism_mlx.features.processor import processor_for, with_settings_of

    model, directory = load_model(options)
    settings = {
        name: getattr(options, name)
        for name in ("num_frames", "size", "resize", "resample", "template")
        if getattr(options, name, None) is not None
    }
    processor = processor_for(model, directory)
    if options.adapters is not None:  # They may have been trained on other clips.
        processor = with_settings_of(options.adapters, processor)
    processor = dataclasses.replace(processor, **settings)
    patch = model.video_encoder.patch_size
    if processor.size % patch:
        raise InputError(f"--size is {processor.size}; expected a multiple of {patch}")
    return model, processor, directory


def load_model(options: argparse.Namespace) -> tuple[Any, Path]:
    """The model, its adapters fused, and the directory that it was read from."""
    from videoprism_mlx.weights.adapters import fuse_adapters, load_adapters
    from videoprism_mlx.weights.loading import finished, load_with_directory

    if options.adapters is None:
        return load_with_directory(options.model, options.dtype)
    model, directory = load_with_directory(options.model)  # Rounded once, when it is whole.
    fuse_adapters(load_adapters(model, options.adapters))
    return finished(model, options.dtype), directory


def require_words(texts: Sequence[str]) -> None:
    """That no text is empty."""
    for text in texts:
        if not text.strip():
            raise InputError("one of the texts is empty")


def print_json(result: Any) -> None:
    """Prints a result on one line of stdout."""
    print(json.dumps(result, ensure_ascii=False))


def complain(video: object, error: Exception) -> None:
    """One line about a video that cannot be used."""
    about = str(error)
    about = about if str(video) in about else f"{video}: {about}"
    print(f"skipped: {' '.join(about.split())}", file=sys.stderr)
