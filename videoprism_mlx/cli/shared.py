"""What several commands share: their options, and reporting videos that cannot be used."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def given(value: Any, default: Any) -> Any:
    """What an option says, be it 0, or else the default."""
    return default if value is None else value


def load(options: argparse.Namespace) -> tuple[Any, Any, Path]:
    """The model, its processor with the options' settings, and the directory of both."""
    import dataclasses

    from videoprism_mlx.loading import load_with_directory, video_encoder
    from videoprism_mlx.processor import processor_for

    model, directory = load_with_directory(options.model, options.dtype)
    settings = {
        name: getattr(options, name)
        for name in ("num_frames", "size", "resize", "resample", "template")
        if getattr(options, name, None) is not None
    }
    processor = dataclasses.replace(processor_for(model, directory), **settings)
    patch = video_encoder(model, "the model").patch_size
    if processor.size % patch:
        raise ValueError(f"--size is {processor.size}; expected a multiple of {patch}")
    return model, processor, directory


def require_words(texts: Sequence[str]) -> None:
    """That no text is empty."""
    for text in texts:
        if not text.strip():
            raise ValueError("one of the texts is empty")


def print_json(result: Any) -> None:
    """Prints a result on one line of stdout."""
    print(json.dumps(result, ensure_ascii=False))


def complain(video: object, error: Exception) -> None:
    """One line about a video that cannot be used."""
    about = str(error)
    about = about if str(video) in about else f"{video}: {about}"
    print(f"skipped: {' '.join(about.split())}", file=sys.stderr)
