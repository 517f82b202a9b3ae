"""`videoprism-mlx evaluate`: published protocols on one's own copy of a dataset."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared, text

if TYPE_CHECKING:
    from videoprism_mlx.weights.identity import ModelIdentity

LABELLED = (
    "a CSV with columns video and label (names, or numbers from 0 on); a JSON list of "
    '{"file": …, "label_idx": 3} or, with several labels, "label_idx": [0, 2]; '
    "or a folder with a folder of videos for each class"
)

# What measurements are called in a table.
TITLES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "map": "mean average precision",
}


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a model on a dataset, as published numbers are",
        description="Measures a model on your own copy of a dataset. Embeddings are kept, so that "
        "a run that was stopped goes on where it was when it is started again.",
    )
    kinds = parser.add_subparsers(required=True, metavar="WHAT")

    parser = kinds.add_parser(
        "retrieval",
        help="finding videos by captions, and captions by videos",
        description="Recall at 1, 5 and 10, median and mean rank: from text to video each text "
        "ranks all videos; from video to text the best of a video's texts counts.",
    )
    add_data(parser, "a CSV with columns video and caption, or a JSON list of such objects")
    parser.add_argument(
        "--captions",
        choices=("each", "joined", "first"),
        default="each",
        help="of a video with several: each is a text of its own (default); joined to one, as in "
        "the retrieval of paragraphs; or the first alone",
    )
    parser.add_argument(
        "--template", help="the prompt, with {} for the caption; by default the model's"
    )
    add_common(parser)
    parser.set_defaults(run=run_retrieval)

    parser = kinds.add_parser(
        "zero-shot",
        help="classes found by their names",
        description="Top-1, top-5 and mean class accuracy of a video-text model that is told the "
        "names of the classes; mean average precision where videos have several.",
    )
    add_data(parser, LABELLED)
    add_labels(parser)
    text.add_texts(
        parser,
        "--template",
        required=False,
        help="prompts, with {} for the name; of several the mean embedding counts "
        "(default: the model's, or a video of {}.)",
    )
    add_common(parser)
    parser.set_defaults(run=run_zero_shot)

    parser = kinds.add_parser(
        "classifier",
        help="a trained classifier",
        description="Top-1, top-5 and mean class accuracy of a classifier, or mean average "
        "precision where videos have several labels.",
    )
    add_data(parser, LABELLED)
    add_labels(parser)
    add_common(parser)
    parser.set_defaults(run=run_classifier)


def add_data(parser: argparse.ArgumentParser, what: str) -> None:
    """The dataset."""
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help=what)


def add_labels(parser: argparse.ArgumentParser) -> None:
    """What classes are called."""
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="the names of the classes, a line each, in the order of their numbers",
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """What all of them take."""
    shared.add_model(parser)
    shared.add_frames(parser)
    shared.add_reading(parser)
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out videos that cannot be used, which otherwise are an error",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where embeddings are kept")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the result as JSON as well"
    )
    shared.add_json(parser)


def run_retrieval(options: argparse.Namespace) -> int:
    from videoprism_mlx.datasets.captions import read_captions
    from videoprism_mlx.evaluation.protocols import evaluate_retrieval
    from videoprism_mlx.weights.identity import ModelIdentity

    pairs = read_captions(options.data)
    model, processor, directory = shared.load(options)
    result = evaluate_retrieval(model, processor, pairs, options.captions, **common(options))
    identity = ModelIdentity(model, directory, options.model, options.adapters)
    return report(options, identity, result, retrieval_table(result))


def run_zero_shot(options: argparse.Namespace) -> int:
    from videoprism_mlx.datasets.labels import read_labels, read_names
    from videoprism_mlx.evaluation.protocols import evaluate_zero_shot
    from videoprism_mlx.weights.identity import ModelIdentity

    has_templates = options.texts is not None or options.texts_file is not None
    templates = text.read_texts(options) if has_templates else None
    labelled = read_labels(options.data, options.labels and read_names(options.labels))
    model, processor, directory = shared.load(options)
    result = evaluate_zero_shot(model, processor, labelled, templates, **common(options))
    identity = ModelIdentity(model, directory, options.model, options.adapters)
    return report(options, identity, result, class_table(result))


def run_classifier(options: argparse.Namespace) -> int:
    from videoprism_mlx.datasets.labels import read_labels, read_names
    from videoprism_mlx.evaluation.protocols import evaluate_classifier, require_classifier
    from videoprism_mlx.weights.identity import ModelIdentity
    from videoprism_mlx.weights.labels import load_labels

    model, processor, directory = shared.load(options)
    require_classifier(model)
    if options.labels is None:
        names = load_labels(directory, model.num_classes).names
    else:
        names = read_names(options.labels)
    labelled = read_labels(options.data, names)
    result = evaluate_classifier(model, processor, labelled, names, **common(options))
    identity = ModelIdentity(model, directory, options.model, options.adapters)
    return report(options, identity, result, class_table(result))


def common(options: argparse.Namespace) -> dict[str, Any]:
    """What all of them are told."""
    return dict(partial=options.partial, skip_bad=options.skip_bad, cache=options.cache)


def report(
    options: argparse.Namespace,
    identity: "ModelIdentity",
    result: dict[str, Any],
    table: Sequence[str],
) -> int:
    """Prints and writes a result with what it takes to come by it again; 1 if videos are missing.

    `table` is what it looks like in words.
    """
    from videoprism_mlx.files.atomic import new_file
    from videoprism_mlx.files.identity import sha256

    settings = result["settings"]
    settings["model"] |= identity.record("name", "weights", "adapters")
    settings["data"] = {
        "path": str(options.data),
        "sha256": sha256(options.data) if options.data.is_file() else None,
    }
    if options.output is not None:
        with new_file(options.output, replace=True) as partial:
            written = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
            partial.write_text(written, encoding="utf-8")
    if options.json:
        shared.print_json(result)
    else:
        print("\n".join(table))
    skipped = len(result["skipped"])
    without = f", {skipped} skipped" if skipped else ""
    print(
        f"{result['measured']} of {result['videos']} videos are measured{without}", file=sys.stderr
    )
    return 1 if skipped else 0


def retrieval_table(result: dict[str, Any]) -> list[str]:
    """A line for each direction, under one that says what is in it."""
    from videoprism_mlx.evaluation.protocols import RECALL_RANKS

    recalls = [f"recall@{most}" for most in RECALL_RANKS]
    lines = [f"{'':14}" + "".join(f"{f'R@{n}':>8}" for n in RECALL_RANKS) + "  median    mean rank"]
    for way in ("text_to_video", "video_to_text"):
        measured = {
            name: result["metrics"][f"{way}/{name}"]
            for name in (*recalls, "median_rank", "mean_rank")
        }
        shares = "".join(f"{measured[name]:8.1%}" for name in recalls)
        lines.append(
            f"{way.replace('_', ' '):14}{shares}"
            f"{measured['median_rank']:8.1f}{measured['mean_rank']:13.1f}"
        )
    lines.append(f"{result['measured']} videos, {result['texts']} texts")
    if result["texts_cut"]:
        lines[-1] += f", {result['texts_cut']} of them longer than the model reads, and cut"
    return lines


def class_table(result: dict[str, Any]) -> list[str]:
    """A line for each class, and then one for each measurement."""
    rows = result["classes"]
    kind = next(key for key in rows[0] if key not in ("name", "examples"))
    width = max(len("class"), *(len(row["name"]) for row in rows))
    lines = [f"{'class':{width}}  videos  {kind.replace('_', ' ')}"]
    for row in rows:
        value = "-" if row[kind] is None else f"{row[kind]:.1%}"
        lines.append(f"{row['name']:{width}}  {row['examples']:6}  {value:>{len(kind)}}")
    lines.append("")
    lines += [f"{TITLES[name]:24}{value:.1%}" for name, value in result["metrics"].items()]
    return lines
