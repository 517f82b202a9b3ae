"""`videoprism-mlx train retrieval`: a video-text model, on videos and captions."""

import argparse
import sys

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.train.common import (
    add_options,
    arguments_of,
    explained_when_stopped,
    report_skipped,
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "retrieval",
        help="a video-text model on videos and captions",
        description="Fine-tunes a video-text model on pairs of video and caption, and writes a "
        "model directory or, with --rank, adapters. If a run was stopped, the same command "
        "continues it.",
    )
    data = "a CSV with columns video and caption, or a JSON list of such objects"
    add_options(parser, data, shared.DEFAULT_MODEL)
    parser.add_argument(
        "--at-once",
        type=int,
        default=8,
        metavar="N",
        help="pairs in memory at a time, whatever the batch size (default: %(default)s)",
    )
    parser.add_argument(
        "--towers",
        nargs="+",
        default=["video", "text"],
        choices=("video", "text"),
        help="the towers to train (default: both)",
    )
    parser.add_argument("--rank", type=int, help="train adapters (LoRA) of this rank instead")
    parser.add_argument("--alpha", type=float, help="alpha of the adapters (default: the rank)")
    parser.add_argument("--layers", type=int, help="adapters for the last N layers of each stack")
    parser.add_argument(
        "--dtype",
        default="float32",
        help="type that the model computes in: float32 (default) or bfloat16",
    )
    parser.add_argument(
        "--recompute", action="store_true", help="compute layers twice, to use less memory"
    )
    shared.add_recipe(
        parser,
        epochs=10,
        batch_size=64,
        learning_rate=1e-5,
        weight_decay=0.01,
        decay="cosine",
        clip=1.0,
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.files.printable import printable
    from videoprism_mlx.training.retrieval import Tuning, train_retrieval

    tuning = Tuning(
        tuple(options.towers),
        options.rank,
        options.alpha,
        options.layers,
        options.at_once,
        recompute=options.recompute,
    )
    with explained_when_stopped():
        trained = train_retrieval(
            options.model,
            options.data,
            options.output,
            options.val,
            recipe=shared.recipe(options),
            tuning=tuning,
            **arguments_of(options),
        )
    if options.json:
        result = {"output": str(trained.directory), **trained.metrics, "skipped": trained.skipped}
        shared.print_json(result)
    else:
        for name, value in trained.metrics.items():
            print(f"{name:24}{value:.4g}")
    print(f"what was trained is in {printable(trained.directory)}", file=sys.stderr)
    return report_skipped(trained.skipped)
