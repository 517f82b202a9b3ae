"""`videoprism-mlx evaluate`: published protocols on your own copy of a dataset."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.program.tables import (
    class_lines,
    direction_lines,
    metric_lines,
    probe_lines,
    published_lines,
)
from videoprism_mlx.cli.train.common import add_recipe, recipe
from videoprism_mlx.evaluation.figures import with_protocol

if TYPE_CHECKING:
    from videoprism_mlx.features.processor import Needs

LABELLED = (
    "a CSV with columns video and label (names, or numbers from 0 on); a JSON list of "
    '{"file": …, "label_idx": 3} or, with several labels, "label_idx": [0, 2]; '
    "or a folder with a folder of videos for each class"
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a model on a dataset, with the protocols of published numbers",
        description="Measures a model on your own copy of a dataset. Embeddings are kept. If a run "
        "was stopped, the same command continues it.",
        epilog="example:\n  videoprism-mlx evaluate retrieval --data captions.csv",
    )
    kinds = parser.add_subparsers(metavar="WHAT", title="commands")

    for add_kind in (add_retrieval, add_zero_shot, add_classifier, add_probe):
        add_kind(kinds)


def add_retrieval(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command for retrieval."""
    parser = kinds.add_parser(
        "retrieval",
        help="how well videos are found by captions, and captions by videos",
        description="Measures recall at 1, 5 and 10, median and mean rank. From text to video, "
        "each text ranks all videos. From video to text, the best of a video's texts counts.",
        epilog="example:\n  videoprism-mlx evaluate retrieval --data captions.csv -o result.json",
    )
    add_data(parser, "a CSV with columns video and caption, or a JSON list of such objects")
    parser.add_argument(
        "--captions",
        choices=("each", "joined", "first"),
        default="each",
        help="if a video has several captions: each is a text (default), all are joined to one "
        "text (paragraph retrieval), or only the first is used",
    )
    parser.add_argument(
        "--template", help="the prompt, with {} for the caption; by default the model's"
    )
    add_dataset(parser, "retrieval")
    add_common(parser, run_retrieval)


def add_zero_shot(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command for zero-shot classification."""
    parser = kinds.add_parser(
        "zero-shot",
        help="how well a video-text model finds classes by their names",
        description="Measures top-1, top-5 and mean class accuracy of a video-text model that is "
        "given the names of the classes; mean average precision if videos have several labels.",
        epilog="example:\n  videoprism-mlx evaluate zero-shot --data classes.csv",
    )
    add_data(parser, LABELLED)
    add_labels(parser)
    shared.add_texts(
        parser,
        "--template",
        required=False,
        help="prompts, with {} for the name; the embeddings of several prompts are averaged "
        "(default: the model's prompt, or: a video of {}.)",
    )
    add_dataset(parser, "zero-shot")
    add_common(parser, run_zero_shot)


def add_classifier(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command for trained classifiers."""
    parser = kinds.add_parser(
        "classifier",
        help="the accuracy of a trained classifier",
        description="Measures top-1, top-5 and mean class accuracy of a classifier, or mean "
        "average precision if videos have several labels.",
        epilog="example:\n"
        "  videoprism-mlx evaluate classifier --data classes.csv --model my-classifier",
    )
    add_data(parser, LABELLED)
    add_labels(parser)
    add_dataset(parser, "probe")
    add_common(parser, run_classifier, needs_model=True)


def add_probe(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command that trains probes."""
    parser = kinds.add_parser(
        "probe",
        help="how well a frozen encoder tells classes apart, by the size of the training set",
        description="Trains probes on a frozen encoder, each an attention pooler and a projection, "
        "on parts of the data, and measures them on other videos: mean and standard deviation over "
        "several seeds. The encoder's features are computed once and kept, and so are finished "
        "probes.",
        epilog="example:\n"
        "  videoprism-mlx evaluate probe --model DIR --data train.json --val val.json",
    )
    add_data(parser, f"the videos to train on: {LABELLED}")
    parser.add_argument(
        "--val", type=Path, required=True, metavar="PATH", help="the videos to measure on, likewise"
    )
    add_labels(parser)
    parser.add_argument(
        "--sizes",
        type=size,
        nargs="+",
        default=[16, 64, "all"],
        metavar="N|all",
        help="numbers of videos to train on (default: 16 64 all)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        metavar="N",
        help="probes of each size, which start from --seed and the N - 1 numbers after it "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE.png",
        help="also draw the metrics over the number of videos to train on; needs matplotlib",
    )
    add_dataset(parser, "probe")
    add_recipe(parser, epochs=50, batch_size=4, learning_rate=1e-4, patience=False)
    add_common(parser, run_probe, needs_model=True)


def size(text: str) -> int | str:
    """A number of videos, or "all"."""
    return text if text == "all" else int(text)


def add_data(parser: argparse.ArgumentParser, what: str) -> None:
    """The dataset."""
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help=what)


def add_labels(parser: argparse.ArgumentParser) -> None:
    """The names of the classes."""
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="the names of the classes, one on each line, in the order of their numbers",
    )


def add_dataset(parser: argparse.ArgumentParser, protocol: str) -> None:
    """The option for published figures."""
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="which dataset this is, to print what was published for a released model, and how "
        f"the protocols differ: {', '.join(with_protocol(protocol))}",
    )


def add_common(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    needs_model: bool = False,
) -> None:
    """The options of all protocols, and the function that runs this one."""
    shared.add_model(parser, needs_model)
    shared.add_frames(parser)
    shared.add_reading(parser)
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out videos that cannot be used; otherwise they are an error",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder for embeddings that later runs use again"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="also write the result to this JSON file"
    )
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run_retrieval(options: argparse.Namespace) -> int:
    from videoprism_mlx.datasets.captions import read_captions
    from videoprism_mlx.evaluation.protocols import evaluate_retrieval
    from videoprism_mlx.features.text import require_tokenizer

    require_outputs(options)
    pairs = read_captions(options.data)
    needs = with_figures(options, "retrieval", require_tokenizer)
    model, processor, directory = shared.load(options, needs)
    how = common(options, model, directory)
    result = evaluate_retrieval(model, processor, pairs, options.captions, **how)
    return report(options, result, retrieval_table(result))


def run_zero_shot(options: argparse.Namespace) -> int:
    from videoprism_mlx.datasets.labels import read_labels, read_names
    from videoprism_mlx.evaluation.protocols import check_zero_shot, evaluate_zero_shot

    require_outputs(options)
    has_templates = options.texts is not None or options.texts_file is not None
    templates = shared.read_texts(options) if has_templates else None
    labelled = read_labels(options.data, options.labels and read_names(options.labels))
    needs = partial(check_zero_shot, labelled=labelled, templates=templates)
    checked = with_figures(options, "zero-shot", needs)
    model, processor, directory = shared.load(options, checked)
    how = common(options, model, directory)
    result = evaluate_zero_shot(model, processor, labelled, templates, **how)
    return report(options, result, class_table(result))


def run_classifier(options: argparse.Namespace) -> int:
    from videoprism_mlx.datasets.labels import read_labels, read_names
    from videoprism_mlx.evaluation.protocols import (
        check_classes,
        evaluate_classifier,
        require_classifier,
    )
    from videoprism_mlx.features.compare import labels_of

    require_outputs(options)
    given = options.labels and read_names(options.labels)
    names: tuple[str, ...] = ()
    labelled: Any = None

    def needs(model: Any, processor: Any) -> None:
        nonlocal names, labelled
        require_classifier(model)
        names = given or labels_of(model, model.directory).names
        labelled = read_labels(options.data, names)
        check_classes(model, labelled, names)

    checked = with_figures(options, "classifier", needs)
    model, processor, directory = shared.load(options, checked)
    how = common(options, model, directory)
    result = evaluate_classifier(model, processor, labelled, names, **how)
    return report(options, result, class_table(result))


def run_probe(options: argparse.Namespace) -> int:
    from videoprism_mlx.errors import counted
    from videoprism_mlx.ranks.joining import current
    from videoprism_mlx.training.classes import read_lists
    from videoprism_mlx.training.probe import check_probe, check_sizes, evaluate_probe

    require_outputs(options)
    if options.picture is not None and current().is_first:
        require_drawing(options.picture)
    trained_by = recipe(options)
    check_probe(options.sizes, options.seeds, trained_by)
    lists = read_lists(options.data, options.val, options.labels)
    check_sizes(options.sizes, len(lists.training.videos))
    needs = with_figures(options, "probe", lambda model, _: model.video_encoder)
    model, processor, directory = shared.load(options, needs)
    how = {"sizes": options.sizes, "seeds": options.seeds, **common(options, model, directory)}
    data = how.pop("data")
    result = evaluate_probe(
        model, processor, data, options.val, lists=lists, recipe=trained_by, **how
    )
    if options.picture is not None and current().is_first:
        draw(options.picture, result)
    measured = counted(result["validation_videos"], "video")
    seeds = "" if options.seeds == 1 else f", mean ± standard deviation of {options.seeds} seeds"
    return report(options, result, [*probe_lines(result["sizes"]), f"on {measured}{seeds}"])


def require_drawing(picture: Path) -> None:
    """Raises an error unless a PNG can be drawn there."""
    from videoprism_mlx.errors import InputError
    from videoprism_mlx.files.output import require_writable
    from videoprism_mlx.pictures.drawing import require_matplotlib

    if picture.suffix.lower() != ".png":
        raise InputError(f"{picture} does not end in .png; name another picture")
    require_writable(picture, is_file=True)
    require_matplotlib("drawing probes")


def draw(picture: Path, result: dict[str, Any]) -> None:
    """Draws probes, and what was published of such ones."""
    from videoprism_mlx.evaluation.metrics import TITLES
    from videoprism_mlx.pictures.probes import write_probes

    figures = result.get("published", {}).get("figures", ())
    published = {figure["metric"]: figure["published"] for figure in figures}
    write_probes(picture, result["sizes"], TITLES, published)


def with_figures(options: argparse.Namespace, protocol: str, needs: "Needs") -> "Needs":
    """As `needs`, which also raises InputError if --dataset is given and nothing was published."""
    from videoprism_mlx.evaluation.published import figures_of

    def check(model: Any, processor: Any) -> None:
        needs(model, processor)
        if options.dataset is not None:
            figures_of(model, protocol, options.dataset, options.adapters)

    return check


def require_outputs(options: argparse.Namespace) -> None:
    """Raises OutputError unless the result and the cache can be written."""
    from videoprism_mlx.files.output import require_writable
    from videoprism_mlx.ranks.joining import current

    if options.output is not None and current().is_first:
        require_writable(options.output, is_file=True)
    if options.cache is not None:
        require_writable(options.cache)


def common(options: argparse.Namespace, model: Any, directory: Path) -> dict[str, Any]:
    """The arguments that all protocols take."""
    from videoprism_mlx.weights.identity import ModelIdentity

    return dict(
        partial=options.partial,
        skip_bad=options.skip_bad,
        cache=options.cache,
        identity=ModelIdentity(
            model, directory, str(shared.chosen_model(options)), options.adapters
        ),
        data=options.data,
        dataset=options.dataset,
        output=options.output,
    )


def report(options: argparse.Namespace, result: dict[str, Any], table: Sequence[str]) -> int:
    """Prints a result, as JSON or as a table. The exit code: 1 if videos were skipped."""
    from videoprism_mlx.errors import are, counted, printable
    from videoprism_mlx.progress import note

    if options.json:
        shared.print_json(result)
    else:
        lines = [*table]
        if "published" in result:
            lines += ["", *published_lines(result["published"])]
        print("\n".join(map(printable, lines)))
    skipped = len(result["skipped"])
    without = f", {skipped} skipped" if skipped else ""
    measured, total = result["measured"], result["videos"]
    done = "used" if result["protocol"] == "probe" else "measured"
    note(f"{measured} of {counted(total, 'video')} {are(measured, total)} {done}{without}")
    return 1 if skipped else 0


def retrieval_table(result: dict[str, Any]) -> list[str]:
    """A table with a line for each direction, and how much was measured."""
    from videoprism_mlx.errors import counted

    lines = direction_lines(result["metrics"])
    videos, texts = counted(result["measured"], "video"), counted(result["texts"], "text")
    lines.append(f"{videos}, {texts}")
    if result["texts_cut"]:
        lines[-1] += f", {result['texts_cut']} of them longer than the model reads, and cut"
    return lines


def class_table(result: dict[str, Any]) -> list[str]:
    """A table with a line for each class, and then one for each metric."""
    return [*class_lines(result["classes"]), "", *metric_lines(result["metrics"])]
