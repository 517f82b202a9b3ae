"""`videoprism-mlx show` and `timeline`: what the model sees, as pictures."""

import argparse
import math
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.shared import given
from videoprism_mlx.errors import InputError

if TYPE_CHECKING:
    import mlx.nn as nn
    import numpy as np

    from videoprism_mlx.features.processor import Processor

# Frames of a picture, and of a film's second.
PICTURE_FRAMES = 16
FILM_FPS = 8.0

# How a timeline samples a video unless told otherwise: two seconds a window, one to the next.
TIMELINE_FPS, TIMELINE_STRIDE = 8.0, 8

# A longer film would not fit in memory.
MOST_FRAMES = 1024

PEAKS = 3
FRAME_HEIGHT = 288


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds both commands."""
    parser = commands.add_parser(
        "show",
        help="a video's features as colours, beside its frames",
        description="Draws the encoder's features: what is alike to the model has the same "
        "colour, the same in all frames. A .png shows frames spread over the video, "
        "an .mp4 the video.",
    )
    parser.add_argument("video", metavar="VIDEO", help="a video file, or a folder of images")
    parser.add_argument("-o", "--output", type=Path, required=True, help="OUT.png or OUT.mp4")
    shared.add_model(parser)
    parser.add_argument(
        "--frames",
        dest="count",
        type=int,
        metavar="N",
        help=f"of a .png (default: {PICTURE_FRAMES})",
    )
    parser.add_argument("--fps", type=float, help=f"of an .mp4 (default: {FILM_FPS:g})")
    add_common(parser)
    parser.set_defaults(run=run_show)

    parser = commands.add_parser(
        "timeline",
        help="where in a long video a text is seen",
        description="Draws how alike each text is to the video, window by window, with the "
        "moments where it is most.",
    )
    parser.add_argument("video", metavar="VIDEO", help="a video file, or a folder of images")
    parser.add_argument("--text", nargs="+", action="extend", required=True, metavar="TEXT")
    parser.add_argument("-o", "--output", type=Path, required=True, help="OUT.png")
    parser.add_argument("--template", help="the prompt, with {} for the text (default: the text)")
    shared.add_model(parser)
    parser.add_argument("--window", type=int, help="frames of a window; by default the model's")
    parser.add_argument(
        "--stride", type=int, default=TIMELINE_STRIDE, help="frames to the next (%(default)s)"
    )
    parser.add_argument(
        "--fps", type=float, default=TIMELINE_FPS, help="frames a second (%(default)g)"
    )
    add_common(parser)
    parser.set_defaults(run=run_timeline)


def add_common(parser: argparse.ArgumentParser) -> None:
    """What both commands take."""
    parser.add_argument("--start", type=float, help="seconds into the video")
    parser.add_argument("--end", type=float, help="seconds into the video")
    shared.add_reading(parser)
    shared.add_json(parser)


def run_show(options: argparse.Namespace) -> int:
    is_film = require_ending(options.output, ".png", ".mp4") == ".mp4"
    if options.fps is not None and not is_film:
        raise InputError("--fps is about an .mp4; leave it out, or say --frames")
    if options.count is not None and is_film:
        raise InputError("--frames is about a .png; leave it out, or say --fps")

    require_another_file(options)

    from PIL import Image

    from videoprism_mlx.files.atomic import new_file
    from videoprism_mlx.pictures.sheets import draw_features, feature_colours, write_feature_video

    frames_wanted = None if is_film else given(options.count, PICTURE_FRAMES)
    fps = given(options.fps, FILM_FPS) if is_film else None
    model, processor, _ = shared.load(options)
    clip, frames, times = read_both(options, processor, frames_wanted, fps)
    colours = feature_colours(features_by_place(model, processor, clip))
    if is_film:
        with new_file(options.output, replace=True) as unfinished, TemporaryDirectory() as folder:
            film = Path(folder) / "film.mp4"  # OpenCV goes by the ending.
            write_feature_video(film, frames, colours, times, fps)
            shutil.copyfile(film, unfinished)
    else:
        sheet = draw_features(frames, colours, times, Path(options.video).name)
        with new_file(options.output, replace=True) as unfinished:
            Image.fromarray(sheet).save(unfinished, "png")
    return report(options, frames=len(frames))


def read_both(
    options: argparse.Namespace, processor: "Processor", num_frames: int | None, fps: float | None
) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Frames as the model takes them (T, S, S, 3), as they are seen (T, H, W, 3), and when."""
    import numpy as np

    from videoprism_mlx.video.resize import resized, thumbnail
    from videoprism_mlx.video.sampling import sample

    def prepare(image: np.ndarray, aspect: float) -> tuple[np.ndarray, np.ndarray]:
        taken = resized(image, **processor.sizing(), aspect=aspect)
        return taken, thumbnail(image, FRAME_HEIGHT, aspect)

    span = dict(start=options.start, end=options.end, fps=fps, partial=options.partial)
    most = num_frames or MOST_FRAMES + 1
    pairs, times = sample(options.video, prepare, most if fps else num_frames, **span)
    if fps and len(pairs) > MOST_FRAMES:
        raise InputError(
            f"that is more than {MOST_FRAMES} frames, {times[-1]:.0f} s; "
            "narrow it with --start, --end or a lower --fps"
        )
    clip, frames = (np.stack(one) for one in zip(*pairs, strict=True))
    return clip, frames, times


def features_by_place(
    model: "nn.Module", processor: "Processor", clip: "np.ndarray"
) -> "np.ndarray":
    """The features (T, rows, columns, D) of frames (T, S, S, 3), a window at a time."""
    import numpy as np

    from videoprism_mlx.features.encode import encode_windows

    count, window = len(clip), min(len(clip), processor.num_frames)
    features = None
    for each in encode_windows(model, clip, window, processor=processor, features=["tokens"]):
        tokens = each.features["tokens"]
        if features is None:
            side = math.isqrt(len(tokens) // window)
            features = np.empty((count, side, side, tokens.shape[-1]), tokens.dtype)
        first = min(each.number * window, count - window)
        features[first : first + window] = tokens.reshape(window, side, side, -1)
    return features


def run_timeline(options: argparse.Namespace) -> int:
    require_ending(options.output, ".png")
    require_another_file(options)
    shared.require_words(options.text)

    import numpy as np
    from tqdm import tqdm

    from videoprism_mlx.features.encode import encode_windows
    from videoprism_mlx.features.text import embed_texts
    from videoprism_mlx.files.atomic import new_file
    from videoprism_mlx.pictures.sheets import draw_timeline, find_peaks

    model, processor, _ = shared.load(options)
    texts = embed_texts(model, processor, options.text)
    starts, ends, scores = [], [], []
    with tqdm(unit="window", disable=None) as bar:
        for window in encode_windows(
            model,
            options.video,
            given(options.window, processor.num_frames),
            options.stride,
            options.fps,
            processor=processor,
            features=["embedding"],
            start=options.start,
            end=options.end,
            partial=options.partial,
        ):
            bar.total = window.count
            bar.update()
            starts.append(window.start)
            ends.append(window.end)
            scores.append(texts @ window.features["embedding"])
    scores = np.array(scores)

    moments = [
        (query, (starts[i] + ends[i]) / 2, float(scores[i, query]))
        for query in range(len(options.text))
        for i in find_peaks(scores[:, query], starts, ends, PEAKS)
    ]
    thumbnails = [(*moment, frame_at(options, moment[1])) for moment in moments]
    with new_file(options.output, replace=True) as unfinished:
        draw_timeline(
            unfinished, starts, ends, scores, options.text, thumbnails, Path(options.video).name
        )
    peaks = [
        {"text": options.text[query], "seconds": seconds, "cosine": score}
        for query, seconds, score in moments
    ]
    return report(options, windows=len(starts), peaks=peaks)


def report(options: argparse.Namespace, **result: object) -> int:
    """Says where the picture is, and in JSON what it shows."""
    if options.json:
        shared.print_json({"output": str(options.output), **result})
    else:
        print(options.output)
    return 0


def frame_at(options: argparse.Namespace, seconds: float) -> "np.ndarray":
    """The frame that is shown at an instant, (H, W, 3), 0-255."""
    from videoprism_mlx.video.resize import thumbnail
    from videoprism_mlx.video.sampling import sample

    prepare = partial(thumbnail, height=FRAME_HEIGHT)
    [frame], _ = sample(options.video, prepare, 1, start=seconds, fps=1, partial=options.partial)
    return frame


def require_another_file(options: argparse.Namespace) -> None:
    """That the picture does not take the video's place."""
    with suppress(FileNotFoundError):
        if options.output.samefile(options.video):
            raise InputError(f"{options.output} is the video itself; name another output")


def require_ending(output: Path, *endings: str) -> str:
    """The ending of an output's name, one of those."""
    ending = output.suffix.lower()
    if ending not in endings:
        raise InputError(f"{output} does not say what to draw; call it *{' or *'.join(endings)}")
    return ending
