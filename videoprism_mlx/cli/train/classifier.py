"""`videoprism-mlx train classifier`: your own classes, on a frozen encoder."""

import argparse
from pathlib import Path
from typing import Any

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.program.tables import class_lines, metric_lines
from videoprism_mlx.cli.train.common import (
    add_options,
    add_recipe,
    arguments_of,
    explained_when_stopped,
    recipe,
    report_skipped,
)
from videoprism_mlx.errors import InputError

DEFAULT_MODEL = "videoprism_public_v1_base"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "classifier",
        help="a classifier of your own classes, on the features of a frozen model",
        description="Trains a classifier's pooler and projection on labelled videos, and writes a "
        "model directory for `classify --model`. The features of the frozen encoder are computed "
        "once and kept, so that an epoch takes little time. If a run was stopped, the same command "
        "continues it.",
        epilog="examples:\n"
        "  videoprism-mlx train classifier --data train --val val -o my-classifier\n"
        "  videoprism-mlx train classifier --data train.json --labels labels.txt -o out",
    )
    data = (
        'a JSON list of {"file": …, "label_idx": 3} or {"files": […], "label_idx": [0, 2]}, with '
        "paths relative to its folder; a CSV with columns video and label; or a folder with a "
        "folder of videos for each class"
    )
    add_options(parser, data, DEFAULT_MODEL)
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="the names of the classes, one on each line"
    )
    shared.add_dtype(parser, "type of the encoder (default: as its weights are stored)")
    group = parser.add_argument_group("augmentation")
    group.add_argument(
        "--views",
        type=int,
        default=1,
        metavar="N",
        help="views of each training video: the video as it is, and N - 1 random crops and spans; "
        "an epoch uses one of them (default: %(default)s)",
    )
    group.add_argument(
        "--crop",
        type=float,
        metavar="SHARE",
        help="a random view shows at least this share of a frame's side (default: 0.75)",
    )
    group.add_argument(
        "--span",
        type=float,
        metavar="SHARE",
        help="a random view shows a span of at least this share of the frames (default: 0.75)",
    )
    add_recipe(parser, epochs=50, batch_size=4, learning_rate=1e-4)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.errors import printable
    from videoprism_mlx.training.classifier import train_classifier

    shares = {name: getattr(options, name) for name in ("crop", "span")}
    shares = {name: share for name, share in shares.items() if share is not None}
    for name in shares if options.views == 1 else ():
        raise InputError(f"--{name} is only for random views; ask for some with --views 2 or more")
    with explained_when_stopped(options):
        trained = train_classifier(
            shared.with_revision(options.model, options),
            options.data,
            options.output,
            options.val,
            labels=options.labels,
            recipe=recipe(options),
            views=options.views,
            **arguments_of(options),
            **shares,
        )
    if options.json:
        shared.print_json({"output": str(trained.directory), **trained.metrics})
    else:
        print_metrics(trained.metrics)
        print(f"{printable(trained.directory)}: epoch {trained.metrics['epoch']} is the best")
    return report_skipped(trained.skipped)


def print_metrics(metrics: dict[str, Any]) -> None:
    """Prints a row for each class, and the metrics of all classes."""
    from videoprism_mlx.evaluation.metrics import TITLES

    measured = {name: metrics[name] for name in TITLES if name in metrics}
    measured["loss"] = metrics.get("val_loss", metrics["loss"])
    print("\n".join([*class_lines(metrics["classes"]), *metric_lines(measured)]))
