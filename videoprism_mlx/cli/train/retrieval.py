"""`videoprism-mlx train retrieval`: tuning a video-text model on videos and captions."""

import argparse
import sys
from pathlib import Path

from videoprism_mlx.cli import shared


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "retrieval",
        help="a video-text model on videos and captions",
        description="Tunes a video-text model on pairs of video and caption. What it writes is a "
        "model directory or, with --rank, adapters. A run that was stopped goes on where it was "
        "when it is started again.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FILE",
        help="a CSV with columns video and caption, or a JSON list of such objects",
    )
    parser.add_argument("--val", type=Path, metavar="FILE", help="likewise, to choose the best by")
    parser.add_argument("--model", default=shared.DEFAULT_MODEL, metavar="NAME|DIR")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    shared.add_recipe(
        parser,
        epochs=10,
        batch_size=64,
        learning_rate=1e-5,
        weight_decay=0.01,
        decay="cosine",
        clip=1.0,
    )
    parser.add_argument(
        "--at-once",
        type=int,
        default=8,
        metavar="N",
        help="pairs that are in memory at a time, whatever the batch (default: %(default)s)",
    )
    parser.add_argument(
        "--towers",
        nargs="+",
        default=["video", "text"],
        choices=("video", "text"),
        help="what is trained (default: both)",
    )
    parser.add_argument("--rank", type=int, help="train adapters of this rank (LoRA) instead")
    parser.add_argument("--alpha", type=float, help="of the adapters (default: the rank)")
    parser.add_argument("--layers", type=int, help="adapters for the last N layers of each stack")
    parser.add_argument(
        "--dtype", default="float32", help="float32 (default) or bfloat16, to compute in"
    )
    parser.add_argument(
        "--recompute", action="store_true", help="compute layers twice, to use less memory"
    )
    shared.add_frames(parser)
    shared.add_run(parser)
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.training.retrieval import Tuning, train_retrieval

    try:
        tuned = train_retrieval(
            options.model,
            options.data,
            options.output,
            options.val,
            recipe=shared.recipe(options),
            tuning=Tuning(
                tuple(options.towers),
                options.rank,
                options.alpha,
                options.layers,
                options.at_once,
                options.dtype,
                options.recompute,
            ),
            frames=options.num_frames,
            save_every=options.save_every,
            skip_bad=options.skip_bad,
            cache=options.cache,
        )
    except KeyboardInterrupt:
        print("what is done is kept; the same command goes on from here", file=sys.stderr)
        raise
    if options.json:
        result = {"output": str(tuned.directory), **tuned.metrics, "skipped": tuned.skipped}
        shared.print_json(result)
    else:
        for name, value in tuned.metrics.items():
            print(f"{name:24}{value:.4g}")
    print(f"what was trained is in {tuned.directory}", file=sys.stderr)
    if tuned.skipped:
        print(f"{len(tuned.skipped)} videos were left out", file=sys.stderr)
    return 1 if tuned.skipped else 0
