"""`videoprism-mlx embed`: the features of many videos, into files."""

import argparse
import os
import sys

from videoprism_mlx.cli import shared
from videoprism_mlx.errors import InputError

STDOUT = "-"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "embed",
        help="write features of videos to one file, or to a file for each video",
        description="Writes the features of videos. If it is stopped, the same command "
        "continues. A video that cannot be read is named and skipped; the exit code is then 1.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="files, folders (with subfolders), glob patterns"
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
    parser.add_argument(
        "--features",
        help="some of tokens,frames,pooled,embedding; by default embedding, or pooled "
        "if the model has none",
    )
    shared.add_model(parser)
    shared.add_frames(parser)
    shared.add_reading(parser)
    group = parser.add_argument_group("windows of long videos")
    group.add_argument("--window", type=int, metavar="N", help="embed N frames at a time")
    group.add_argument(
        "--stride", type=int, metavar="N", help="frames from window to window (default: --window)"
    )
    group.add_argument("--fps", type=float, help="frames to sample a second (default: all)")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="videos to encode at once (default: 1)",
    )
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.features.embed import embed
    from videoprism_mlx.files.printable import printable

    is_printed = options.output == STDOUT
    stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - stdout may be None.
    if is_printed and (options.json or options.format not in (None, "jsonl")):
        raise InputError("-o - prints JSON lines, and nothing else; leave out --json and --format")
    settings = ("num_frames", "size", "resize", "resample", "partial", "window", "stride", "fps")
    try:
        embedded = embed(
            options.paths,
            stdout if is_printed else options.output,
            shared.chosen_model(options),
            features=options.features and options.features.split(","),
            format=options.format,
            batch_size=options.batch_size,
            dtype=options.dtype,
            adapters=options.adapters,
            decoding=shared.decoding(options),
            **{name: getattr(options, name) for name in settings},
        )
    except KeyboardInterrupt:
        if not is_printed:
            print("finished videos are kept; run the same command to continue", file=sys.stderr)
        raise

    done, skipped = len(embedded.videos), len(embedded.skipped)
    if options.json:
        result = {"output": options.output, "videos": done, "skipped": embedded.skipped}
        shared.print_json(result)
    where = "embedded" if is_printed or not done else f"in {options.output}"
    failed = f", {skipped} skipped" if skipped else ""
    said = printable(f"{done} of {done + skipped} videos are {where}{failed}")
    print(said, file=sys.stderr)
    return 1 if skipped else 0
