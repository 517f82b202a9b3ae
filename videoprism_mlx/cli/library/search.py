"""`videoprism-mlx search`: the moments of a library that fit words, pictures and clips."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.library.place import add_library
from videoprism_mlx.cli.program.completion import models
from videoprism_mlx.cli.program.tables import cut, padded, width
from videoprism_mlx.errors import InputError, OutputError

if TYPE_CHECKING:
    from videoprism_mlx.library.filters import Where
    from videoprism_mlx.library.moment import Moment
    from videoprism_mlx.library.searcher import Searcher

# How wide a line is where stdout is no terminal, and how narrow the column of names may get.
COLUMNS, NARROWEST = 80, 12


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "search",
        help="find the moments of your videos that fit words, a picture or a clip",
        description="Prints the videos of a library that fit the query best, each with its best "
        "moment: the score (the cosine with the query), from when to when, and the name. If the "
        "first word is a folder, what is new in it is indexed, and it alone is searched. "
        "A query is text, or a video or picture, or several of these with + and - between them, as "
        "words of their own. A part counts twice with 2: before it. A part is a file if it begins "
        "with ./, ../, / or ~/, or if its name ends as that of a video or picture does; "
        "clip.mp4@12.5-16 uses the span from 12.5 to 16 s. All else is text.",
        epilog="examples:\n"
        '  videoprism-mlx search "a dog catches a frisbee"\n'
        "  videoprism-mlx search ~/Movies a dog on the beach\n"
        '  videoprism-mlx search "2:surfing" + ./wave.mp4@3-7 - beach\n'
        "  videoprism-mlx search ./photo.jpg -k 3 --open",
    )
    parser.add_argument(
        "query", nargs="+", metavar="WORD", help="the query, after a folder if the folder is first"
    )
    add_library(parser)
    option: Any = parser.add_argument(
        "--model",
        metavar="NAME|DIR",
        help=f"for a folder and a new library: its model (default: {shared.DEFAULT_MODEL})",
    )
    option.completer = models
    shared.add_revision(parser)
    parser.add_argument(
        "-k", type=int, default=10, metavar="N", help="results to print (default: %(default)s)"
    )
    parser.add_argument(
        "--moments", action="store_true", help="all moments, not just the best of each video"
    )
    add_filters(parser)
    group = parser.add_mutually_exclusive_group()
    shared.add_json(group)
    group.add_argument(
        "--paths", action="store_true", help="print the paths alone, for other programs"
    )
    parser.add_argument(
        "-0", dest="null", action="store_true", help="paths end in a null character, for xargs -0"
    )
    parser.add_argument(
        "--preview",
        action="store_true",
        help="show a picture of each moment, in a terminal that can: iTerm2, kitty, WezTerm, sixel",
    )
    parser.add_argument(
        "--open", action="store_true", help="open the first result in a player, at its time"
    )
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="write the moments as clips into this folder"
    )
    parser.set_defaults(run=run)


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which videos to search."""
    group = parser.add_argument_group("which videos")
    group.add_argument("--in", dest="folder", metavar="FOLDER", help="below this folder")
    for name, what in (("after", "recorded on or after"), ("before", "recorded before")):
        group.add_argument(f"--{name}", metavar="DATE", help=f"{what} a date, such as 2024-05-31")
    for name, bound in (("longer", "at least"), ("shorter", "at most")):
        group.add_argument(
            f"--{name}", type=float, metavar="SECONDS", help=f"that last {bound} so long"
        )


def run(options: argparse.Namespace) -> int:
    folder, query = folder_first(options)
    where = filters(options, folder)
    check(options, query)

    from videoprism_mlx.library.searcher import Searcher

    searcher = Searcher(options.library) if folder is None else indexed(options, folder)
    found = searcher.search(query, options.k, where, options.moments)
    if options.json:
        shared.print_json([each.as_json() for each in found])
    elif options.paths or options.null:
        print_paths(found, "\0" if options.null else "\n")
    else:
        show(searcher, found, options.preview)
    if options.open and found:
        from videoprism_mlx.cli.library.opening import open_at

        open_at(found[0].path, found[0].start)
    return 0 if options.export is None else write_clips(found, options.export)


def folder_first(options: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The folder to index and search, if the first word is one; and the query."""
    first, *rest = options.query
    is_folder = os.path.isdir(os.path.expanduser(first))
    if not rest and is_folder:
        alone(first)
    if rest and first.endswith("/") and not is_folder:
        raise InputError(f"there is no folder {first}, with which the query begins")
    if not rest or not is_folder:
        if options.model is not None or options.revision is not None:
            raise InputError(
                "--model is for a folder that is indexed first: begin with a folder, or leave it "
                "out, as the library knows its model"
            )
        return None, options.query
    if options.folder is not None:
        raise InputError(f"{first} is a folder, and --in names another one; leave one of them out")
    return first, rest


def alone(folder: str) -> None:
    """Says what a folder without a query is taken for, or refuses it."""
    from videoprism_mlx.library.search.query import names_path
    from videoprism_mlx.progress import note
    from videoprism_mlx.video.find import is_image_name

    names = map(Path, os.listdir(os.path.expanduser(folder)))
    if names_path(folder) and any(map(is_image_name, names)):
        return  # Its images, the frames of a clip, are the query.
    how = f'to search the folder, say for what: videoprism-mlx search {folder} "a dog"'
    if "/" in folder:
        raise InputError(f"{folder} is a folder, and there is no query; {how}")
    note(f"{folder!r} is searched for as text; {how}")


def filters(options: argparse.Namespace, folder: str | None) -> "Where":
    """Which videos the options name."""
    from videoprism_mlx.library.filters import Where, parse_date

    inside = options.folder if folder is None else folder
    if inside is not None and not os.path.exists(os.path.expanduser(inside)):
        raise InputError(f"there is no folder {inside} (--in)")
    dates = {
        name: None if (text := getattr(options, name)) is None else parse_date(text)
        for name in ("after", "before")
    }
    return Where(inside, **dates, longer=options.longer, shorter=options.shorter)


def check(options: argparse.Namespace, query: Sequence[str]) -> None:
    """Raises an error for what would fail later."""
    from videoprism_mlx.files.output import require_writable
    from videoprism_mlx.library.search.query import parse

    parse(query)
    if options.k < 1:
        raise InputError(f"-k is {options.k}; expected 1 or more")
    if options.json and options.null:
        raise InputError("-0 prints paths and --json prints JSON; leave one of them out")
    if options.export is not None:
        if options.export.exists() and not options.export.is_dir():
            raise OutputError(f"{options.export} is no folder; name another output (--export)")
        require_writable(options.export)


def indexed(options: argparse.Namespace, folder: str) -> "Searcher":
    """Adds what is new in a folder to the library, and returns what searches it."""
    from videoprism_mlx.library.library import Library

    library, model = Library(options.library), shared.named_model(options)
    library.add([folder], model)
    return library.searcher  # With the model that has just been loaded.


def write_clips(found: "Sequence[Moment]", folder: Path) -> int:
    """Writes the moments as clips, and returns the exit code: 1 if one could not be written."""
    from videoprism_mlx.errors import printable
    from videoprism_mlx.features.encode import one_line
    from videoprism_mlx.library.search.cut import export
    from videoprism_mlx.progress import write

    clips = export(found, folder)
    bad = 0
    for clip in clips:
        if clip.error is not None:
            write(f"skipped: {one_line(clip.moment.path, clip.error)}")
            bad += 1
    write(f"{len(clips) - bad} clips in {printable(folder)}")
    return 1 if bad else 0


def print_paths(found: "Sequence[Moment]", end: str) -> None:
    """Prints each path once."""
    for path in dict.fromkeys(each.path for each in found):
        sys.stdout.write(path + end)


def show(searcher: "Searcher", found: "Sequence[Moment]", preview: bool) -> None:
    """Prints a line for each moment, with a picture if asked for."""
    from videoprism_mlx.progress import write

    if not found:
        write("nothing found: the library holds no such videos")
        return
    draw = None
    if preview:
        from videoprism_mlx.cli.library.preview import painter

        draw = painter()
        if draw is None:
            write("no preview: stdout is no terminal that is known to show pictures")
    for line, each in zip(lines(found), found, strict=True):
        print(line)
        if draw is not None and (picture := searcher.picture(each.id, each.number)):
            draw(picture)


def lines(found: "Sequence[Moment]") -> list[str]:
    """A line for each moment: score, times and name, in columns that fit the terminal."""
    import shutil

    from videoprism_mlx.errors import printable
    from videoprism_mlx.pictures.drawing import clock
    from videoprism_mlx.video.find import told_apart

    spans = [f"{clock(each.start, 1)} - {clock(each.end, 1)}" for each in found]
    longest = max(map(len, spans))
    columns = shutil.get_terminal_size((COLUMNS, 24)).columns if is_terminal() else COLUMNS
    most = max(columns - len(f"{found[0].score:6.3f}") - longest - 4, NARROWEST)
    told = told_apart({each.path: each.video for each in found})
    names = [cut(printable(told[each.path]), most) for each in found]
    column = max(map(width, names))
    return [
        f"{each.score:6.3f}  {padded(name, column)}  {span:>{longest}}"
        for each, name, span in zip(found, names, spans, strict=True)
    ]


def is_terminal() -> bool:
    """Whether stdout is a terminal."""
    return bool(sys.stdout and sys.stdout.isatty())
