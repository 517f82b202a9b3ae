"""`videoprism-mlx timeline`: when a long video shows what a text says."""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared
from videoprism_mlx.errors import InputError

if TYPE_CHECKING:
    from videoprism_mlx.features.processor import Processor
    from videoprism_mlx.features.timeline import Peak, Timeline

# The default sampling, as in features/timeline.py, which imports MLX.
FPS, STRIDE = 8.0, 8

# The largest number of peaks of a text that get a frame in the picture, and that are printed; and
# the height of the frames.
PICTURED, PRINTED = 3, 10
FRAME_HEIGHT = 288


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "timeline",
        help="find when a long video shows what a text says, and draw it",
        description="Compares each text with the video, window by window, and prints the peaks: "
        "from when to when, and the highest cosine. A peak is a run of windows whose scores are at "
        "least halfway from the median of that text's scores to their maximum. With -o, it draws "
        "the scores with frames from the best peaks, or writes the peaks to a file.",
        epilog="examples:\n"
        '  videoprism-mlx timeline match.mp4 --text "a goal is scored" -o timeline.png\n'
        '  videoprism-mlx timeline match.mp4 --text "a goal" "a corner kick" -o peaks.csv',
    )
    parser.add_argument("video", metavar="VIDEO", help="a video file, or a folder of images")
    parser.add_argument(
        "--text",
        nargs="+",
        action="extend",
        required=True,
        metavar="TEXT",
        help="what to look for; each text gets a curve",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="OUT.png for a picture, OUT.csv or OUT.json for the list of peaks",
    )
    parser.add_argument("--template", help="the prompt, with {} for the text (default: the text)")
    shared.add_model(parser)
    parser.add_argument(
        "--window", type=int, metavar="N", help="frames of a window (default: the model's number)"
    )
    parser.add_argument(
        "--stride",
        type=int,
        metavar="N",
        help=f"frames from window to window (default: {STRIDE}, or the window if it is smaller)",
    )
    parser.add_argument(
        "--fps",
        type=float,
        default=FPS,
        metavar="RATE",
        help="frames to sample a second (default: %(default)g)",
    )
    shared.add_span(parser)
    shared.add_reading(parser)
    group = parser.add_mutually_exclusive_group()
    shared.add_json(group)
    group.add_argument("--csv", action="store_true", help="print the peaks as CSV")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    check(options)

    from videoprism_mlx import progress
    from videoprism_mlx.errors import printable
    from videoprism_mlx.features.timeline import (
        check_scoring,
        find_peaks,
        score_windows,
        usual_windows,
    )
    from videoprism_mlx.video.ffmpeg.reader import DEFAULT_FPS
    from videoprism_mlx.video.source import images_of

    needs = partial(
        check_scoring,
        texts=options.text,
        window=options.window,
        stride=options.stride,
        fps=options.fps,
    )
    model, processor, _ = shared.load(options, needs)
    if images_of(options.video):
        progress.note(f"images have no times: they are taken as {DEFAULT_FPS:g} frames a second")
    sampling = (*usual_windows(processor, options.window, options.stride), options.fps)
    span: dict[str, Any] = dict(start=options.start, end=options.end, partial=options.partial)
    timeline = score_windows(model, processor, options.video, options.text, *sampling, **span)
    peaks = find_peaks(timeline, options.text)
    rows = [
        {
            "text": peak.text,
            "from": peak.start,
            "to": peak.end,
            "score": peak.score,
            # The names that earlier versions gave to the middle and the score.
            "seconds": peak.seconds,
            "cosine": peak.score,
        }
        for peak in peaks
    ]
    if options.output is not None:
        if options.output.suffix.lower() == ".png":
            draw(options, processor, timeline, peaks)
        else:
            write(options.output, rows)
    if options.json:
        where = {} if options.output is None else {"output": str(options.output)}
        shared.print_json({**where, "windows": len(timeline.starts), "peaks": rows})
    elif options.csv:
        sys.stdout.write(as_csv(rows))
    else:
        print_peaks(options.text, peaks)
        if options.output is not None:
            print(printable(options.output))
    return 0


def check(options: argparse.Namespace) -> None:
    """Raises an error for what would fail later."""
    shared.require_words(options.text)
    shared.require_span(options)
    if len(set(options.text)) < len(options.text):
        raise InputError("one of the texts is there twice; leave one of them out")
    if options.output is None:
        from videoprism_mlx.video.source import existing

        existing(options.video)
        return
    ending = shared.require_picture(options.output, options.video, ".png", ".csv", ".json")
    if ending == ".png":
        from videoprism_mlx.pictures.drawing import require_matplotlib

        require_matplotlib("drawing a timeline")


def draw(
    options: argparse.Namespace,
    processor: "Processor",
    timeline: "Timeline",
    peaks: "Sequence[Peak]",
) -> None:
    """Writes the picture."""
    from videoprism_mlx import progress
    from videoprism_mlx.features.timeline import frame_at
    from videoprism_mlx.files.atomic import new_file
    from videoprism_mlx.pictures import draw_timeline

    best = [
        (number, peak)
        for number, text in enumerate(options.text)
        for peak in [peak for peak in peaks if peak.text == text][:PICTURED]
    ]
    how = (FRAME_HEIGHT, options.partial, processor.decoding)
    thumbnails = [
        (number, peak.seconds, peak.score, frame_at(options.video, peak.seconds, *how))
        for number, peak in progress.bar(best, "frames", "frame")
    ]
    title = Path(options.video).name
    with new_file(options.output, replace=True) as unfinished:
        draw_timeline(unfinished, *timeline, options.text, thumbnails, title)


def write(output: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the peaks to a .csv or .json file."""
    from videoprism_mlx.files.atomic import new_file
    from videoprism_mlx.files.record import as_json

    is_csv = output.suffix.lower() == ".csv"
    text = as_csv(rows) if is_csv else as_json(rows, ascii=False) + "\n"
    with new_file(output, replace=True) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The peaks as CSV: a header, and a line for each."""
    text = io.StringIO()
    names = ("text", "from", "to", "score")
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def print_peaks(texts: Sequence[str], peaks: "Sequence[Peak]") -> None:
    """Prints the best peaks of each text."""
    from videoprism_mlx.errors import printable
    from videoprism_mlx.pictures.drawing import clock

    for text in texts:
        found = [peak for peak in peaks if peak.text == text]
        print(f"{printable(text)}\n{'from':>12}{'to':>12}  score")
        for peak in found[:PRINTED]:
            print(f"{clock(peak.start, 1):>12}{clock(peak.end, 1):>12}  {peak.score:5.3f}")
        if len(found) > PRINTED:
            print(f"  and {len(found) - PRINTED} more, which --csv and --json print as well")
