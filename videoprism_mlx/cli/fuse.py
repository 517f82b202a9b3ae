"""`videoprism-mlx fuse`: a model and its adapters to one model directory."""

import argparse
from pathlib import Path

from videoprism_mlx.cli import shared


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "fuse",
        help="write a model and its adapters as one model directory",
        description="Adds adapters to the weights of the model that they were trained on, and "
        "writes the result as a model directory.",
        epilog="example:\n  videoprism-mlx fuse --adapters my-adapters -o my-model",
    )
    shared.add_model(parser, adapters_required=True)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the directory to write"
    )
    shared.add_overwrite(parser, "replace an earlier model directory; by default it is an error")
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.errors import printable
    from videoprism_mlx.weights.directory import read_config
    from videoprism_mlx.weights.fuse import fuse_to_directory

    source = fuse_to_directory(
        options.model,
        options.adapters,
        options.output,
        options.dtype,
        options.revision,
        options.overwrite,
    )
    if options.json:
        model = read_config(options.output)["model"]
        shared.print_json({"output": str(options.output), "model": model, **source})
    else:
        done = f"{options.output}: {source['base']} with the adapters of {options.adapters}"
        print(printable(done))
    return 0
