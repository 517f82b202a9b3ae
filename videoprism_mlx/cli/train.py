"""`videoprism-mlx train`: training on your own videos, a classifier or a video-text model."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videoprism_mlx.cli import shared
from videoprism_mlx.errors import InputError

CLASSIFIER_MODEL = "videoprism_public_v1_base"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    parser = commands.add_parser(
        "train",
        help="train a classifier or a video-text model on your own videos",
        description="Trains on your own videos. A run that was stopped is continued when the same "
        "command is given again.",
    )
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    parser = kinds.add_parser(
        "classifier",
        help="a classifier of your own classes, on the features of a frozen model",
        description="Trains a classifier's pooler and projection on labelled videos, and writes a "
        "model directory for `classify --model`. The features of the frozen encoder are computed "
        "once and kept, so that an epoch takes little time. A run that was stopped is continued "
        "when the same command is given again.",
    )
    data = (
        'a JSON list of {"file": …, "label_idx": 3} or {"files": […], "label_idx": [0, 2]}, with '
        "paths relative to its folder; or a folder with a folder of videos for each class"
    )
    add_common(parser, data, CLASSIFIER_MODEL)
    add_classifier(parser)
    parser = kinds.add_parser(
        "retrieval",
        help="a video-text model on videos and captions",
        description="Fine-tunes a video-text model on pairs of video and caption, and writes a "
        "model directory or, with --rank, adapters. A run that was stopped is continued when the "
        "same command is given again.",
    )
    data = "a CSV with columns video and caption, or a JSON list of such objects"
    add_common(parser, data, shared.DEFAULT_MODEL)
    add_retrieval(parser)


def add_common(parser: argparse.ArgumentParser, data: str, model: str) -> None:
    """The options of both, with a description of the data and the default model."""
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help=data)
    parser.add_argument(
        "--val", type=Path, metavar="PATH", help="the same, to validate on after each epoch"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the directory to write"
    )
    parser.add_argument(
        "--model",
        default=model,
        metavar="NAME|DIR",
        help="the model to start from: a released model's name, a model directory or a Hub id "
        "(default: %(default)s)",
    )
    shared.add_frames(parser)
    shared.add_reading(parser)
    shared.add_run(parser)
    shared.add_json(parser)


def add_classifier(parser: argparse.ArgumentParser) -> None:
    """The options that only a classifier has."""
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="the names of the classes, one on each line"
    )
    parser.add_argument("--dtype", help="type of the encoder; by default as it is stored")
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
    shared.add_recipe(parser, epochs=50, batch_size=4, learning_rate=1e-4)
    parser.set_defaults(run=run_classifier)


def add_retrieval(parser: argparse.ArgumentParser) -> None:
    """The options that only a video-text model has."""
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
    parser.set_defaults(run=run_retrieval)


def run_classifier(options: argparse.Namespace) -> int:
    from videoprism_mlx.training.classifier import train_classifier

    shares = {name: getattr(options, name) for name in ("crop", "span")}
    shares = {name: share for name, share in shares.items() if share is not None}
    for name in shares if options.views == 1 else ():
        raise InputError(f"--{name} is about random views; say with --views how many there are")
    with explained_when_stopped():
        trained = train_classifier(
            options.model,
            options.data,
            options.output,
            options.val,
            labels=options.labels,
            recipe=shared.recipe(options),
            views=options.views,
            **common(options),
            **shares,
        )
    if options.json:
        shared.print_json({"output": str(trained.directory), **trained.metrics})
    else:
        print_metrics(trained.metrics)
        print(f"{trained.directory}: epoch {trained.metrics['epoch']} is the best")
    return report_skipped(trained.skipped)


def run_retrieval(options: argparse.Namespace) -> int:
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
            **common(options),
        )
    if options.json:
        result = {"output": str(trained.directory), **trained.metrics, "skipped": trained.skipped}
        shared.print_json(result)
    else:
        for name, value in trained.metrics.items():
            print(f"{name:24}{value:.4g}")
    print(f"what was trained is in {trained.directory}", file=sys.stderr)
    return report_skipped(trained.skipped)


def common(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of both."""
    reading = ("num_frames", "size", "resize", "resample", "partial", "dtype")
    keeping = ("save_every", "skip_bad", "cache")
    return {name: getattr(options, name) for name in (*reading, *keeping)}


@contextmanager
def explained_when_stopped() -> Iterator[None]:
    """Says after Ctrl-C how the run is continued."""
    try:
        yield
    except KeyboardInterrupt:
        print("what is done is kept; the same command goes on from here", file=sys.stderr)
        raise


def report_skipped(skipped: list[str]) -> int:
    """Says how many videos were left out. The exit code: 1 if there are any."""
    if skipped:
        print(f"{len(skipped)} videos were left out", file=sys.stderr)
    return 1 if skipped else 0


def print_metrics(metrics: dict[str, Any]) -> None:
    """Prints a row for each class, and the metrics of all classes."""
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
