"""`videoprism-mlx train retrieval`: a video-text model, on videos and captions."""

import argparse
from typing import Any

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.program.parser import add_alias
from videoprism_mlx.cli.program.tables import direction_lines, metric_lines
from videoprism_mlx.cli.train.common import (
    add_options,
    add_recipe,
    arguments_of,
    explained_when_stopped,
    recipe,
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
        epilog="examples:\n"
        "  videoprism-mlx train retrieval --data train.csv --val val.csv -o tuned\n"
        "  videoprism-mlx train retrieval --data train.csv -o my-adapters --rank 8",
    )
    data = "a CSV with columns video and caption, or a JSON list of such objects"
    add_options(parser, data, shared.DEFAULT_MODEL)
    add_tuning(parser)
    add_recipe(
        parser,
        epochs=10,
        batch_size=64,
        learning_rate=1e-5,
        weight_decay=0.01,
        lr_schedule="cosine",
        max_grad_norm=1.0,
    )
    parser.set_defaults(run=run)


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a `Tuning`."""
    parser.add_argument(
        "--micro-batch-size",
        type=int,
        default=8,
        metavar="N",
        help="pairs in memory at a time, whatever the batch size (default: %(default)s)",
    )
    add_alias(parser, "--at-once", "--micro-batch-size", type=int)
    parser.add_argument(
        "--towers",
        nargs="+",
        default=["video", "text"],
        choices=("video", "text"),
        help="the towers to train (default: both)",
    )
    parser.add_argument(
        "--rank",
        type=int,
        metavar="N",
        help="train adapters (LoRA) of this rank instead",
    )
    parser.add_argument(
        "--alpha",
        type=float,
        metavar="NUMBER",
        help="alpha of the adapters (default: the rank)",
    )
    parser.add_argument(
        "--layers",
        type=int,
        metavar="N",
        help="adapters for the last N layers of each stack only",
    )
    shared.add_dtype(parser, "type to compute in (default: %(default)s)", "float32")
    parser.add_argument(
        "--grad-checkpoint",
        action="store_true",
        help="compute layers twice, to use less memory; takes about a third more time",
    )
    add_alias(parser, "--recompute", "--grad-checkpoint", action="store_true")


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.errors import printable
    from videoprism_mlx.training.retrieval import Tuning, train_retrieval

    tuning = Tuning(
        tuple(options.towers),
        options.rank,
        options.alpha,
        options.layers,
        options.micro_batch_size,
        grad_checkpoint=options.grad_checkpoint,
    )
    with explained_when_stopped(options):
        trained = train_retrieval(
            shared.with_revision(options.model, options),
            options.data,
            options.output,
            options.val,
            recipe=recipe(options),
            tuning=tuning,
            **arguments_of(options),
        )
    if options.json:
        result = {"output": str(trained.directory), **trained.metrics, "skipped": trained.skipped}
        shared.print_json(result)
    else:
        print_metrics(trained.metrics)
        print(f"{printable(trained.directory)}: epoch {trained.metrics['epoch']} is the best")
    return report_skipped(trained.skipped)


def print_metrics(metrics: dict[str, Any]) -> None:
    """Prints the recalls and ranks, if there were videos to validate on, and the other metrics."""
    if any("/" in name for name in metrics):
        print("\n".join(direction_lines(metrics)))
    print("\n".join(metric_lines({name: metrics[name] for name in ("loss", "temperature")})))
