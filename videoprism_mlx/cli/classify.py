"""`videoprism-mlx classify`: which of some labels a video shows."""

import argparse
from functools import partial

from videoprism_mlx.cli import shared
from videoprism_mlx.errors import InputError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "classify",
        help="print which of the given labels a video shows",
        description="Prints the likeliest labels of each video. A video-text model compares the "
        "video with the prompts of the labels. A classifier has labels of its own; if it was "
        "trained on videos with several labels, each label has a probability of its own.",
        epilog="examples:\n"
        '  videoprism-mlx classify clips --labels "playing drums" sitting "a concert"\n'
        "  videoprism-mlx classify clip.mp4 --model my-classifier",
    )
    shared.add_paths(parser)
    shared.add_texts(
        parser,
        "--labels",
        required=False,
        help="what the videos may show (default: a classifier's labels)",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        default=5,
        metavar="N",
        help="number of labels to print (default: %(default)s)",
    )
    shared.add_comparing(parser, "0.01; for a classifier 1")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.errors import printable
    from videoprism_mlx.features.compare import check_classifying, classify
    from videoprism_mlx.video.find import find_videos
    from videoprism_mlx.video.source import require_one

    if options.top_k < 1:
        raise InputError(f"--top-k is {options.top_k}; expected 1 or more")
    videos = find_videos(options.paths, lengthen=True)
    has_labels = options.texts is not None or options.texts_file is not None
    labels = shared.read_texts(options) if has_labels else None
    require_one(videos.values())
    needs = partial(
        check_classifying, labels=labels, top_k=options.top_k, temperature=options.temperature
    )
    model, processor, directory = shared.load_prompting(options, needs)
    results = classify(
        model,
        processor,
        videos.values(),
        labels,
        options.top_k,
        options.temperature,
        directory=directory,
        partial=options.partial,
    )
    code = 0
    for name, result in shared.each_video(videos, results):
        if result.error is not None:
            code = 1
        elif options.json:
            top = [{"label": label, "probability": chance} for label, chance in result.labels]
            shared.print_json({"video": name, "labels": top})
        else:
            print(printable(name))
            for label, chance in result.labels:
                print(f"  {chance:6.1%}  {printable(label)}")
    return code
