"""`videoprism-mlx timeline`: when a long video shows what a text says."""

import argparse
from functools import partial
from pathlib import Path

from videoprism_mlx.cli import shared

# The default sampling: a window of 16 frames lasts two seconds, and one starts every second.
FPS, STRIDE = 8.0, 8

# The largest number of moments that get a frame, for each text, and the height of the frames.
PEAKS = 3
FRAME_HEIGHT = 288


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "timeline",
        help="draw when a long video shows what a text says",
        description="Draws how well each text matches the video, window by window, with frames "
        "from the best moments.",
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
    parser.add_argument("-o", "--output", type=Path, required=True, help="OUT.png")
    parser.add_argument("--template", help="the prompt, with {} for the text (default: the text)")
    shared.add_model(parser)
    parser.add_argument(
        "--window", type=int, metavar="N", help="frames of a window; by default the model's"
    )
    parser.add_argument(
        "--stride",
        type=int,
        default=STRIDE,
        metavar="N",
        help="frames from window to window (default: %(default)s)",
    )
    parser.add_argument(
        "--fps", type=float, default=FPS, help="frames to sample a second (default: %(default)g)"
    )
    shared.add_span(parser)
    shared.add_reading(parser)
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    shared.require_picture(options.output, options.video, ".png")
    shared.require_words(options.text)
    shared.require_span(options)

    from videoprism_mlx.features.timeline import check_scoring, frame_at, score_windows
    from videoprism_mlx.files.atomic import new_file
    from videoprism_mlx.pictures import draw_timeline, find_peaks
    from videoprism_mlx.pictures.drawing import require_matplotlib

    require_matplotlib("drawing a timeline")
    needs = partial(
        check_scoring,
        texts=options.text,
        window=options.window,
        stride=options.stride,
        fps=options.fps,
    )
    model, processor, _ = shared.load(options, needs)
    starts, ends, scores = score_windows(
        model,
        processor,
        options.video,
        options.text,
        options.window,
        options.stride,
        options.fps,
        start=options.start,
        end=options.end,
        partial=options.partial,
    )
    moments = [
        (query, float(starts[i] + ends[i]) / 2, float(scores[i, query]))
        for query in range(len(options.text))
        for i in find_peaks(scores[:, query], starts, ends, PEAKS)
    ]
    thumbnails = [
        (
            *moment,
            frame_at(options.video, moment[1], FRAME_HEIGHT, options.partial, processor.decoding),
        )
        for moment in moments
    ]
    title = Path(options.video).name
    with new_file(options.output, replace=True) as unfinished:
        draw_timeline(unfinished, starts, ends, scores, options.text, thumbnails, title)
    peaks = [
        {"text": options.text[query], "seconds": seconds, "cosine": score}
        for query, seconds, score in moments
    ]
    return shared.report_picture(options, windows=len(starts), peaks=peaks)
