"""`videoprism-mlx similarity`: how well texts describe videos."""

import argparse
from functools import partial

from videoprism_mlx.cli import shared
from videoprism_mlx.errors import InputError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "similarity",
        help="print how similar videos and texts are",
        description="Prints the cosine of each video with each text, best first, and the softmax "
        "over the texts, as in the official demo.",
        epilog="examples:\n"
        '  videoprism-mlx similarity clip.mp4 --text "playing drums" "a concert"\n'
        "  videoprism-mlx similarity clips --text-file prompts.txt --json",
    )
    shared.add_paths(parser, "*")
    parser.add_argument(
        "--video",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="the same, as an option",
    )
    shared.add_texts(parser, "--text", help="sentences to compare the videos with")
    shared.add_comparing(parser, "0.01")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.errors import printable
    from videoprism_mlx.features.compare import check_comparing, compare
    from videoprism_mlx.video.find import find_videos
    from videoprism_mlx.video.source import require_one

    paths = [*options.paths, *options.video]
    if not paths:
        raise InputError("there are no videos; name files or folders before --text")
    texts = shared.read_texts(options)
    videos = find_videos(paths, lengthen=True)
    require_one(videos.values())
    needs = partial(check_comparing, texts=texts, temperature=options.temperature)
    model, processor, _ = shared.load_prompting(options, needs)
    results = compare(
        model, processor, videos.values(), texts, options.temperature, partial=options.partial
    )
    code = 0
    for name, result in shared.each_video(videos, results):
        if result.error is not None:
            code = 1
        elif options.json:
            rows = {"cosine": result.cosines, "probability": result.probabilities}
            lists = {key: row.tolist() for key, row in rows.items()}
            shared.print_json({"video": name, "texts": texts, **lists})
        else:
            print(f"{printable(name)}\n  cosine  softmax  text")
            for i in result.probabilities.argsort(kind="stable")[::-1]:
                text = printable(texts[i])
                print(f"  {result.cosines[i]:6.3f}  {result.probabilities[i]:7.1%}  {text}")
    return code
