"""`videoprism-mlx fuse`: a model and its adapters to one model directory."""

import argparse
from pathlib import Path

from videoprism_mlx.cli import shared
from videoprism_mlx.errors import InputError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "fuse",
        help="a model and its adapters to one model directory",
        description="Adds adapters to the weights of the model that they were trained on, and "
        "writes the result as a model directory.",
    )
    shared.add_model(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the directory to write")
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from mlx.utils import tree_flatten

    from videoprism_mlx.features.processor import load_with_adapters
    from videoprism_mlx.files.atomic import require_new_directory
    from videoprism_mlx.files.identity import sha256
    from videoprism_mlx.tokenizers import TOKENIZER_FILE
    from videoprism_mlx.weights.adapters import ADAPTERS_FILE
    from videoprism_mlx.weights.directory import (
        LABELS_FILE,
        PROCESSOR_FILE,
        WEIGHTS_FILE,
        write_directory,
    )

    if options.adapters is None:
        raise InputError("say with --adapters which directory the adapters are in")
    require_new_directory(options.output)
    model, directory = load_with_adapters(options.model, options.dtype, adapters=options.adapters)
    source = {
        "base": options.model,
        "base_weights": sha256(directory / WEIGHTS_FILE),
        "adapters": sha256(options.adapters / ADAPTERS_FILE),
    }
    own = options.adapters / PROCESSOR_FILE
    processor = own if own.is_file() else directory / PROCESSOR_FILE
    beside = [directory / TOKENIZER_FILE, processor, directory / LABELS_FILE]
    arrays = dict(tree_flatten(model.parameters()))  # type: ignore[no-untyped-call]  # MLX's own.
    copied = [file for file in beside if file.is_file()]
    write_directory(options.output, model.config, arrays, source, copied=copied)
    if options.json:
        shared.print_json({"output": str(options.output), "model": model.config["model"], **source})
    else:
        print(f"{options.output}: {options.model} with the adapters of {options.adapters}")
    return 0
