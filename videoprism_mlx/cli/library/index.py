"""`videoprism-mlx index`: brings a library up to date with folders of videos."""

import argparse
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.library.place import add_library
from videoprism_mlx.cli.program.machines import add_machines, machines

if TYPE_CHECKING:
    from videoprism_mlx.library.indexing.add import Added


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "index",
        help="make a library of videos that can be searched, or bring it up to date",
        description="Brings a library up to date with videos: new and changed ones are encoded, "
        "moved ones are recognised, and those that have vanished are marked as missing. If it is "
        "stopped, the same command continues. A video that cannot be read is named and skipped; "
        "the exit code is then 1.",
        epilog="examples:\n"
        "  videoprism-mlx index ~/Movies\n"
        "  videoprism-mlx index ~/Movies --watch\n"
        "  videoprism-mlx index /Volumes/nas/films --scheduler tcp://mac1:8786",
    )
    shared.add_paths(parser)
    add_library(parser)
    parser.add_argument(
        "--watch", action="store_true", help="go on as files appear, change and vanish"
    )
    group = parser.add_argument_group("settings of a new library; later they may be left out")
    group.add_argument(
        "--window", type=int, metavar="N", help="frames of a moment (default: the model's number)"
    )
    group.add_argument(
        "--stride", type=int, metavar="N", help="frames from moment to moment (default: --window)"
    )
    group.add_argument(
        "--fps",
        type=float,
        metavar="RATE",
        help="frames to sample a second (default: a window lasts 4 seconds)",
    )
    shared.add_model(parser)
    shared.add_reading(parser)
    add_machines(parser)
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import shlex

    from videoprism_mlx.errors import printable
    from videoprism_mlx.library.library import Library
    from videoprism_mlx.progress import note

    library = Library(options.library)
    names = ("window", "stride", "fps", "size", "resize", "resample", "dtype", "adapters")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    settings["partial"] = options.partial or None
    given = (options.stream, options.tone_map, options.hardware)
    model = shared.named_model(options)
    settings["decoding"] = None if given == (None, False, "off") else shared.decoding(options)
    settings |= machines(options)
    try:
        if options.watch:
            note("watching; Ctrl-C ends it")
            for added in library.watch(options.paths, model, **settings):
                report(added, options.json, is_watching=True)
            return 0
        added = library.add(options.paths, model, **settings)
    except KeyboardInterrupt:
        note("finished videos are kept; run the same command to continue")
        raise
    report(added, options.json)
    if added.moments and not options.json:
        where = f" --library {shlex.quote(options.library)}" if options.library else ""
        note(printable(f"to search them: videoprism-mlx serve --open{where}"))
    return 1 if added.skipped else 0


def report(added: "Added", as_json: bool, is_watching: bool = False) -> None:
    """Prints what was done."""
    import dataclasses

    from videoprism_mlx.errors import counted, printable
    from videoprism_mlx.progress import note

    if as_json:
        shared.print_json(dataclasses.asdict(added))
    counts = [
        (added.encoded, "encoded"),
        (added.moved, "moved"),
        (added.copied, "copied"),
        (added.missing, "missing"),
        (added.busy, "left to another run"),
        (len(added.skipped), "skipped"),
    ]
    said = ", ".join(f"{count:,} {what}" for count, what in counts if count)
    if said or not is_watching:
        note(
            printable(
                f"{counted(added.videos, 'video')}: {said or 'nothing new'} ({added.library})"
            )
        )
