"""`videoprism-mlx embed`: the features of many videos or texts, into files."""

import argparse
import os
import sys
from pathlib import Path
from typing import TextIO

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.program.machines import add_machines, machines
from videoprism_mlx.errors import InputError, are, counted, printable

STDOUT = "-"

# Options that have no effect on texts, by their names in the parsed options, with their defaults.
OF_VIDEOS = {
    "format": None, "features": None, "num_frames": None, "size": None, "resize": None,
    "resample": None, "partial": False, "stream": None, "tone_map": False, "hardware": "off",
    "start": None, "end": None, "window": None, "stride": None, "fps": None,
    "scheduler": None, "workers": None, "mapping": None, "send": False,
}  # fmt: skip


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "embed",
        help="write features of videos to one file, or to a file for each video",
        description="Writes the features of videos. If it is stopped, the same command "
        "continues. A video that cannot be read is named and skipped; the exit code is then 1. "
        "With --text, it writes the embeddings of texts instead.",
        epilog="examples:\n"
        "  videoprism-mlx embed clips -o features.npz\n"
        "  videoprism-mlx embed match.mp4 -o windows.npz --window 16 --stride 4 --fps 8\n"
        "  videoprism-mlx embed --text prompts.txt -o prompts.npz",
    )
    shared.add_paths(parser, "*")
    parser.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help="embed the texts in this file, one on each line, instead of videos",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        help="OUT.npz, OUT.safetensors, OUT.jsonl or OUT.parquet for one file; else a folder with "
        "a file for each video; - prints JSON lines",
    )
    parser.add_argument(
        "--format",
        choices=("npz", "safetensors", "jsonl", "parquet"),
        help="format of the files in a folder (default: npz)",
    )
    shared.add_overwrite(
        parser, "remove an earlier output and begin anew; by default its run is continued"
    )
    parser.add_argument(
        "--features",
        metavar="LIST",
        help="some of tokens,frames,pooled,embedding (default: embedding, or pooled if the model "
        "has none)",
    )
    parser.add_argument(
        "--template", help="with --text: the prompt, with {} for the text (default: the text)"
    )
    shared.add_model(parser)
    shared.add_frames(parser)
    shared.add_reading(parser)
    shared.add_span(parser)
    add_windows(parser)
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="videos to encode at once (default: 1), or texts (default: 64)",
    )
    add_machines(parser)
    shared.add_json(parser)
    parser.set_defaults(run=run)


def add_windows(parser: argparse.ArgumentParser) -> None:
    """Adds the options for windows."""
    group = parser.add_argument_group("windows of long videos")
    group.add_argument("--window", type=int, metavar="N", help="embed N frames at a time")
    group.add_argument(
        "--stride", type=int, metavar="N", help="frames from window to window (default: --window)"
    )
    group.add_argument(
        "--fps", type=float, metavar="RATE", help="frames to sample a second (default: all)"
    )


def run(options: argparse.Namespace) -> int:
    is_printed = options.output == STDOUT
    if is_printed and (options.json or options.format not in (None, "jsonl")):
        raise InputError("-o - prints JSON lines, and nothing else; leave out --json and --format")
    if bool(options.paths) == (options.text is not None):
        raise InputError(
            "expected videos to embed, or a file of texts with --text"
            + (", and not both" if options.paths else "")
        )
    stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - stdout may be None.
    output = stdout if is_printed else options.output
    return run_videos(options, output) if options.text is None else run_texts(options, output)


def run_videos(options: argparse.Namespace, output: str | TextIO) -> int:
    """Embeds videos."""
    from videoprism_mlx.features.embed import embed
    from videoprism_mlx.progress import note

    if options.template is not None:
        raise InputError("--template is for texts; give --text, or leave it out")
    settings = (
        *("num_frames", "size", "resize", "resample", "partial", "window", "stride", "fps"),
        *("start", "end", "dtype", "adapters", "format", "overwrite"),
    )
    model = shared.chosen_model(options)
    try:
        embedded = embed(
            options.paths,
            output,
            model,
            features=options.features and options.features.split(","),
            batch_size=shared.given(options.batch_size, 1),
            decoding=shared.decoding(options),
            **machines(options),
            **{name: getattr(options, name) for name in settings},
        )
    except KeyboardInterrupt:
        if isinstance(output, str):
            shared.say_how_to_continue("finished videos are kept", options)
        raise

    done, skipped = len(embedded.videos), len(embedded.skipped)
    if options.json:
        counts = {"videos": done, "total": done + skipped, "used": done}
        shared.print_json({"output": options.output, **counts, "skipped": embedded.skipped})
    where = f"in {output}" if isinstance(output, str) and done else "embedded"
    failed = f", {skipped} skipped" if skipped else ""
    total = done + skipped
    note(f"{done} of {counted(total, 'video')} {are(done, total)} {where}{failed}")
    return 1 if skipped else 0


def run_texts(options: argparse.Namespace, output: str | TextIO) -> int:
    """Embeds texts."""
    from videoprism_mlx.features.text.store import save_text_embeddings
    from videoprism_mlx.progress import note

    for name, default in OF_VIDEOS.items():
        if getattr(options, name) != default:
            option = {"num_frames": "frames", "mapping": "map"}.get(name, name.replace("_", "-"))
            raise InputError(f"--{option} has no effect on texts; leave it out")
    texts = shared.read_lines(options.text)
    model = shared.chosen_model(options)
    save_text_embeddings(
        texts,
        output,
        model,
        batch_size=shared.given(options.batch_size, 64),
        **{name: getattr(options, name) for name in ("template", "dtype", "adapters", "overwrite")},
    )
    if options.json:
        shared.print_json({"output": options.output, "texts": len(texts)})
    where = f"in {output}" if isinstance(output, str) else "embedded"
    note(printable(f"{counted(len(texts), 'text')} {are(len(texts))} {where}"))
    return 0
