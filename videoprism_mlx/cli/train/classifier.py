"""`videoprism-mlx train classifier`: your own classes, on a frozen encoder."""

import argparse
import sys
from pathlib import Path
from typing import Any

from videoprism_mlx.cli import shared
from videoprism_mlx.errors import InputError

DEFAULT_MODEL = "videoprism_public_v1_base"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "classifier",
        help="a classifier of your own classes, on the features of a frozen model",
        description="Trains a classifier's pooler and projection on labelled videos, and writes a "
        "model directory that `classify --model` takes. The frozen encoder's features are made "
        "once and kept, so that an epoch costs little. A run that was stopped goes on where it "
        "was when it is started again.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help='a JSON list of {"file": …, "label_idx": 3} or {"files": […], "label_idx": [0, 2]}, '
        "paths being from its folder; or a folder with a folder of videos for each class",
    )
    parser.add_argument("--val", type=Path, metavar="PATH", help="the same, to choose the best by")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="the names of the classes, a line each"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the directory to write"
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|DIR",
        help="what to start from: a name, a model directory or a Hub id (default: %(default)s)",
    )
    parser.add_argument("--dtype", help="of the encoder; by default as it is stored")
    shared.add_frames(parser)
    shared.add_reading(parser)
    shared.add_run(parser)
    group = parser.add_argument_group("augmentation")
    group.add_argument(
        "--views",
        type=int,
        default=1,
        metavar="N",
        help="versions of each training video, all but one of them changed at random; "
        "an epoch takes one of them (default: %(default)s)",
    )
    group.add_argument(
        "--crop",
        type=float,
        metavar="SHARE",
        help="of a frame's side that a changed version shows at least (default: 0.75)",
    )
    group.add_argument(
        "--span",
        type=float,
        metavar="SHARE",
        help="of the frames that a changed version is taken from at least (default: 0.75)",
    )
    shared.add_recipe(parser, epochs=50, batch_size=4, learning_rate=1e-4)
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.training.classifier import train_classifier

    shares = {name: getattr(options, name) for name in ("crop", "span")}
    shares = {name: share for name, share in shares.items() if share is not None}
    for name in shares if options.views == 1 else ():
        raise InputError(f"--{name} is about further versions; say with --views how many there are")
    names = ("num_frames", "size", "resize", "resample", "partial", "dtype")
    try:
        trained = train_classifier(
            options.model,
            options.data,
            options.output,
            options.val,
            labels=options.labels,
            recipe=shared.recipe(options),
            views=options.views,
            save_every=options.save_every,
            skip_bad=options.skip_bad,
            cache=options.cache,
            **{name: getattr(options, name) for name in names},
            **shares,
        )
    except KeyboardInterrupt:
        print("what is done is kept; the same command goes on from here", file=sys.stderr)
        raise
    if options.json:
        shared.print_json({"output": str(trained.directory), **trained.metrics})
    else:
        print_metrics(trained.metrics)
        print(f"{trained.directory}: epoch {trained.metrics['epoch']} is the best")
    if trained.skipped:
        print(f"{len(trained.skipped)} videos were left out", file=sys.stderr)
    return 1 if trained.skipped else 0


def print_metrics(metrics: dict[str, Any]) -> None:
    """Prints a row for each class, and the metrics of all."""
    rows = metrics["classes"]
    if rows:
        kind = "accuracy" if "accuracy" in rows[0] else "average_precision"
        width = max(5, *(len(row["name"]) for row in rows))
        print(f"{'class':{width}}  examples  {kind.replace('_', ' ')}")
        for row in rows:
            value = "-" if row[kind] is None else f"{row[kind]:.1%}"
            print(f"{row['name']:{width}}  {row['examples']:8}  {value:>{len(kind)}}")
    for name in ("top1", "top5", "map", "mean_class_accuracy"):
        if name in metrics:
            print(f"{name.replace('_', ' '):20}{metrics[name]:7.1%}")
    print(f"{'loss':20}{metrics.get('val_loss', metrics['loss']):7.4f}")
