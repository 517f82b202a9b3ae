"""`videoprism-mlx show`: a video's features as colours."""

import argparse
from pathlib import Path

from videoprism_mlx.cli import shared
from videoprism_mlx.errors import InputError

# Frames of a picture, and of a film's second.
PICTURE_FRAMES = 16
FILM_FPS = 8.0


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "show",
        help="draw a video's features as colours, beside its frames",
        description="Draws the features of the video encoder. Patches that are similar to the "
        "model have similar colours in all frames. A .png shows frames spread over the video, an "
        ".mp4 the whole video.",
        epilog="examples:\n"
        "  videoprism-mlx show clip.mp4 -o features.png\n"
        "  videoprism-mlx show clip.mp4 -o features.mp4 --start 10 --end 20",
    )
    parser.add_argument("video", metavar="VIDEO", help="a video file, or a folder of images")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="OUT.png or OUT.mp4",
    )
    shared.add_model(parser)
    parser.add_argument(
        "--frames",
        dest="count",
        type=int,
        metavar="N",
        help=f"frames of a .png (default: {PICTURE_FRAMES})",
    )
    parser.add_argument(
        "--fps",
        type=float,
        metavar="RATE",
        help=f"frames a second of an .mp4 (default: {FILM_FPS:g})",
    )
    shared.add_span(parser)
    shared.add_reading(parser)
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    is_film = shared.require_picture(options.output, options.video, ".png", ".mp4") == ".mp4"
    if options.fps is not None and not is_film:
        raise InputError("--fps is only for an .mp4; leave it out, or give --frames instead")
    if options.count is not None and is_film:
        raise InputError("--frames is only for a .png; leave it out, or give --fps instead")
    shared.require_span(options)

    from PIL import Image

    from videoprism_mlx.features.maps import map_features
    from videoprism_mlx.files.atomic import new_file
    from videoprism_mlx.pictures import draw_features, feature_colours, write_feature_video
    from videoprism_mlx.progress import bar
    from videoprism_mlx.video.sampling import check_count

    fps = shared.given(options.fps, FILM_FPS)
    check_count(options.count)
    model, processor, _ = shared.load(options)
    maps = map_features(
        model,
        processor,
        options.video,
        shared.given(options.count, PICTURE_FRAMES),
        fps if is_film else None,
        steady=True,
        start=options.start,
        end=options.end,
        partial=options.partial,
    )
    colours = feature_colours(maps.features)
    if is_film:
        frames = bar(list(maps.frames), "writing", "frame")
        with frames, new_file(options.output, replace=True) as unfinished:
            write_feature_video(unfinished, frames, colours, maps.times, fps, maps.names)
    else:
        title = Path(options.video).name
        sheet = draw_features(maps.frames, colours, maps.times.tolist(), title, maps.names)
        with new_file(options.output, replace=True) as unfinished:
            Image.fromarray(sheet).save(unfinished, "png")
    return shared.report_picture(options, frames=len(maps.frames))
