"""What several commands share: their options, loading the model, and printing."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from videoprism_mlx.cli.program.completion import DTYPES, dtypes, models
from videoprism_mlx.errors import InputError

if TYPE_CHECKING:
    from videoprism_mlx.features.compare import Classified, Compared
    from videoprism_mlx.features.processor import Needs, Processor
    from videoprism_mlx.video.ffmpeg.decoding import Decoding

DEFAULT_MODEL = "videoprism_lvt_public_v1_base"

Result = TypeVar("Result", bound="Compared | Classified")


def add_model(
    parser: argparse.ArgumentParser, required: bool = False, adapters_required: bool = False
) -> None:
    """Adds the options for the model and its type."""
    base = "the model that they were trained on"
    default = f"{DEFAULT_MODEL} or, with --adapters, {base}"
    if adapters_required:
        default = base.replace("they", "the adapters")
    option: Any = parser.add_argument(
        "--model",
        required=required,
        metavar="NAME|DIR",
        help="a model's name (`videoprism-mlx info` lists them), a model directory or a Hub id"
        + ("" if required else f" (default: {default})"),
    )
    option.completer = models
    add_revision(parser)
    add_dtype(parser, "type to compute in (default: as the weights are stored)")
    parser.add_argument(
        "--adapters",
        required=adapters_required,
        metavar="DIR|ID",
        help="adapters to add to the model's weights: a directory or a Hub id (ID@REVISION)",
    )


def add_revision(parser: argparse.ArgumentParser) -> None:
    """Adds the option for the revision of the model."""
    parser.add_argument(
        "--revision",
        metavar="NAME",
        help="a branch, tag or commit of the model on the Hub; ID@NAME says the same",
    )


def add_dtype(parser: argparse.ArgumentParser, help: str, default: str | None = None) -> None:
    """Adds the option for the type of parameters and activations. `parse_dtype` checks it."""
    metavar = f"{{{','.join(DTYPES)}}}"
    option: Any = parser.add_argument("--dtype", metavar=metavar, default=default, help=help)
    option.completer = dtypes


def add_overwrite(parser: argparse.ArgumentParser, help: str) -> None:
    """Adds the option to begin anew where there is an output."""
    parser.add_argument("--overwrite", action="store_true", help=help)


def add_paths(parser: argparse.ArgumentParser, nargs: str = "+", more: str = "") -> None:
    """Adds the videos of a command that takes many."""
    parser.add_argument(
        "paths",
        nargs=nargs,
        metavar="PATH",
        help=f"video files, folders (with subfolders) and glob patterns{more}",
    )


def add_frames(parser: argparse.ArgumentParser) -> None:
    """Adds the option for the number of frames of a clip."""
    parser.add_argument(
        "--frames",
        dest="num_frames",
        type=int,
        metavar="N",
        help="frames of a clip; by default the model's number",
    )


def add_span(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the part of a video to use."""
    parser.add_argument(
        "--start", type=float, metavar="SECONDS", help="where to begin (default: the beginning)"
    )
    parser.add_argument(
        "--end", type=float, metavar="SECONDS", help="where to end (default: the end)"
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Adds the options for reading and resizing videos."""
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="width and height of a frame; by default the model's",
    )
    parser.add_argument(
        "--resize",
        choices=("stretch", "crop"),
        help="stretch frames to a square (default), or crop a square from the centre",
    )
    parser.add_argument(
        "--resample",
        choices=("area", "lanczos"),
        help="area (default) averages pixels; lanczos is slower, and gives the exact pixels of the "
        "official demos",
    )
    parser.add_argument(
        "--partial", action="store_true", help="use the frames of a damaged video that can be read"
    )
    add_stream(parser)
    parser.add_argument(
        "--tone-map", action="store_true", help="bring HDR colours to those of ordinary screens"
    )
    parser.add_argument(
        "--hardware",
        choices=("off", "auto"),
        default="off",
        help="auto: decode with the machine's own decoder, on a Mac (default: %(default)s)",
    )


def add_stream(parser: argparse.ArgumentParser) -> None:
    """Adds the option for the stream of video files."""
    parser.add_argument(
        "--stream",
        type=int,
        metavar="N",
        help="number of the video stream in a file; by default the one that players show",
    )


def add_json(parser: argparse._ActionsContainer) -> None:
    """Adds the option for results as JSON."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_texts(
    parser: argparse.ArgumentParser, option: str, required: bool = True, help: str | None = None
) -> None:
    """Adds the options for texts, on the command line or in a file."""
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument(option, dest="texts", nargs="+", action="extend", metavar="TEXT", help=help)
    group.add_argument(
        f"{option}-file",
        dest="texts_file",
        type=Path,
        metavar="FILE",
        help="a file with one text on each line, instead",
    )


def add_comparing(parser: argparse.ArgumentParser, temperature: str) -> None:
    """Adds the options of `similarity` and `classify`. `temperature` describes its default."""
    parser.add_argument(
        "--template", help="the prompt, with {} for the text (default: a video of {}.)"
    )
    parser.add_argument(
        "--temperature", type=float, help=f"temperature of the softmax (default: {temperature})"
    )
    add_model(parser)
    add_frames(parser)
    add_reading(parser)
    add_json(parser)


def read_texts(options: argparse.Namespace) -> list[str]:
    """The texts of the command line or the file. Raises InputError if one is empty."""
    texts: list[str] = options.texts
    if options.texts_file is not None:
        return read_lines(options.texts_file)
    require_words(texts, "the option ending in -file takes a file with one text on each line")
    return texts


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without empty ones. Raises InputError if there are none."""
    from videoprism_mlx.files.reading import read_text

    texts = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if not texts:
        raise InputError(f"{path} holds no text; expected one on each line")
    return texts


def require_words(texts: Sequence[str], advice: str = "give the text itself") -> None:
    """Raises InputError if a text is empty, or is the name of a file, a pipe or a device.

    What is in the current folder may be called as a label is, if its name has no ending.
    """
    for text in texts:
        if not text.strip():
            raise InputError("one of the texts is empty; leave it out, or give it words")
        path = Path(text)
        is_path = path.is_absolute() or len(path.parts) > 1 or path.suffix or not path.is_file()
        if os.path.exists(text) and not path.is_dir() and is_path:
            raise InputError(f"{text} is a file, and would be taken as a text; {advice}")


def require_picture(output: Path, video: str, *endings: str) -> str:
    """The ending of a picture of a video. Raises an error if it is not one of these.

    It also raises an error if the video is missing or the picture cannot be written.
    """
    ending = output.suffix.lower()
    if ending not in endings:
        *others, last = endings
        listed = f"{', '.join(others)} or {last}" if others else last
        raise InputError(f"{output} does not end in {listed}; name another output")

    from videoprism_mlx.files.output import require_writable
    from videoprism_mlx.video.source import existing

    path = existing(video)
    with suppress(FileNotFoundError, NotADirectoryError):
        if output.samefile(path):
            raise InputError(f"the output {output} is the video itself; name another output")
    require_writable(output, is_file=True)
    return ending


def require_span(options: argparse.Namespace) -> None:
    """Raises InputError unless --start, --end and --fps are possible."""
    from videoprism_mlx.video.sampling import check_fps, check_times

    check_times(options.start, options.end)
    check_fps(options.fps)


def given(value: Any, default: Any) -> Any:
    """The value of an option, or the default if the option was not given."""
    return default if value is None else value


def chosen_model(options: argparse.Namespace) -> str | Path:
    """The model that the options name: by default that of the adapters, or DEFAULT_MODEL.

    If the adapters are on the Hub, `options.adapters` is the local directory from then on.
    """
    from videoprism_mlx.features.processor import model_name
    from videoprism_mlx.weights.adapters import adapters_directory

    model = options.model
    if options.adapters is not None:
        options.adapters = adapters_directory(options.adapters)
        model = given(
            model, None if options.revision is None else model_name(None, options.adapters)
        )
    else:
        model = given(model, DEFAULT_MODEL)
    return model_name(with_revision(model, options), options.adapters)


def named_model(options: argparse.Namespace) -> Any:
    """The model that is named with --model, and its revision; None if none is named."""
    if options.model is None and options.revision is not None:
        raise InputError("--revision is for the model that --model names; give --model as well")
    return with_revision(options.model, options)


def with_revision(model: Any, options: argparse.Namespace) -> Any:
    """The name of a model with the revision that is given, as in "you/model@v1"."""
    from videoprism_mlx.files.places import user_path

    if options.revision is None or model is None:
        return model
    if user_path(model).is_dir() or "@" in str(model):
        is_named = "has a revision already" if "@" in str(model) else "is a local directory"
        raise InputError(f"--revision has no effect: {model} {is_named}; leave it out")
    return f"{model}@{options.revision}"


def load(
    options: argparse.Namespace, needs: "Needs | None" = None
) -> "tuple[Any, Processor, Path]":
    """The model, its processor with the options' settings, and the model's directory.

    `needs` raises an error, before anything is downloaded, if the model cannot do what is asked.
    """
    from videoprism_mlx.features.processor import load_with_settings

    names = ("num_frames", "size", "resize", "resample", "template")
    settings = {name: getattr(options, name, None) for name in names}
    settings["decoding"] = decoding(options)
    model = chosen_model(options)
    return load_with_settings(model, options.dtype, None, options.adapters, needs, **settings)


def decoding(options: argparse.Namespace) -> "Decoding":
    """How video files are decoded."""
    from videoprism_mlx.video.ffmpeg.decoding import Decoding

    return Decoding(options.stream, options.tone_map, options.hardware)


def load_prompting(options: argparse.Namespace, needs: "Needs") -> "tuple[Any, Processor, Path]":
    """As `load`. By default the prompt is that of the official demo."""
    from videoprism_mlx.features.processor import PROMPT, check_template

    options.template = given(options.template, PROMPT)
    check_template(options.template)
    return load(options, needs)


def each_video(
    videos: Mapping[str, Path], results: Iterable[Result]
) -> Iterator[tuple[str, Result]]:
    """The name and result of each video. Shows a bar, and prints a line for each skipped video."""
    from videoprism_mlx import progress
    from videoprism_mlx.features.encode import one_line

    with progress.bar(unit="video", total=len(videos)) as bar:
        for result, (name, path) in zip(results, videos.items(), strict=True):
            bar.update()
            bar.clear()  # The caller prints the result where the bar is.
            if result.error is not None:
                progress.write(f"skipped: {one_line(path, result.error)}")
            yield name, result
            if sys.stdout:
                sys.stdout.flush()
            bar.refresh()


def print_json(result: Any) -> None:
    """Prints a result on one line of stdout. Numbers that JSON lacks, such as NaN, are null."""
    from videoprism_mlx.errors import is_unsafe
    from videoprism_mlx.files.record import as_json

    line = as_json(result, None, ascii=False)
    try:
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # Then write the characters as JSON escapes.
        line = as_json(result, None)
    print("".join(f"\\u{ord(one):04x}" if is_unsafe(one) else one for one in line))


def report_picture(options: argparse.Namespace, **result: object) -> int:
    """Prints where the picture is and, in JSON, what it shows."""
    from videoprism_mlx.errors import printable

    if options.json:
        print_json({"output": str(options.output), **result})
    else:
        print(printable(options.output))
    return 0


def say_how_to_continue(kept: str, options: argparse.Namespace) -> None:
    """Prints after Ctrl-C what is kept, and how to continue."""
    how = "the same command without --overwrite" if options.overwrite else "the same command"
    print(f"{kept}; run {how} to continue", file=sys.stderr)


def open_page(address: str) -> None:
    """Opens a page in the browser, or prints its address if there is no browser."""
    import webbrowser

    from videoprism_mlx.progress import write

    if not webbrowser.open(address):
        write(f"there is no browser to open; the page is at {address}")
