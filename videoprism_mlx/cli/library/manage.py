"""`videoprism-mlx library`: what is in a library, and keeping it in order."""

import argparse
from typing import Any

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.library import duplicates
from videoprism_mlx.cli.library.place import add_library


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "library",
        help="what is in the library of videos; check, clean up and export it",
        description="Looks after the library that `videoprism-mlx index` makes.",
        epilog="examples:\n"
        "  videoprism-mlx library info\n"
        "  videoprism-mlx library export moments.npz",
    )
    kinds = parser.add_subparsers(metavar="WHAT", title="commands")

    def add_kind(
        name: str, run: Any, help: str, example: str | None = None
    ) -> argparse.ArgumentParser:
        description = f"{help[0].upper()}{help[1:]}."
        kind = kinds.add_parser(name, help=help, description=description, epilog=example)
        add_library(kind)
        kind.set_defaults(run=run)
        return kind

    for name, run, help in (
        ("info", run_info, "say which model a library has, and how much it holds"),
        ("verify", run_verify, "check that every video has its moments and its file"),
        ("errors", run_errors, "list the files that cannot be used, and why"),
    ):
        shared.add_json(add_kind(name, run, help))
    prune = add_kind("prune", run_prune, "remove the videos that are marked as missing")
    prune.add_argument(
        "--in",
        dest="folder",
        metavar="FOLDER",
        help="remove those below this folder whose files are gone, marked or not",
    )
    shared.add_json(prune)
    copies = add_kind("duplicates", duplicates.run, "find videos that are copies of one another")
    duplicates.add_options(copies)
    add_kind("compact", run_compact, "join the files of a library, and remove old ones")
    example = "example:\n  videoprism-mlx library export moments.npz"
    export = add_kind("export", run_export, "write all moments to a file, as arrays", example)
    export.add_argument("output", metavar="OUT", help="OUT.npz or OUT.parquet")
    shared.add_overwrite(export, "replace the file")
    shared.add_json(export)


def run_info(options: argparse.Namespace) -> int:
    """Prints what is in a library."""
    from videoprism_mlx.errors import counted, printable
    from videoprism_mlx.library.library import Library

    info = Library(options.library).info()
    if options.json:
        shared.print_json(info)
        return 0
    reading, name = info["preprocessing"], info["model"].get("name") or "a model in memory"
    lines = {
        "library": info["library"],
        "model": f"{name}, {info['model'].get('dtype')}",
        "moments of": f"{reading['window']} frames, {reading['fps']:g} a second, every "
        f"{reading['stride']} frames",
        "videos": f"{info['videos']:,}, {length(info['seconds'])}",
        "moments": f"{info['moments']:,}",
    }
    if info["errors"]:
        lines["errors"] = (
            f"{counted(info['errors'], 'file')} (`videoprism-mlx library errors` lists them)"
        )
    if info["missing"]:
        lines["missing"] = (
            f"{counted(info['missing'], 'file')} (`videoprism-mlx library prune` removes them)"
        )
    if info["bytes"] is not None:
        lines["size"] = size(info["bytes"])
    for name, text in lines.items():
        print(printable(f"{name:11} {text}"))
    return 0


def length(seconds: float) -> str:
    """A time in hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(count: int) -> str:
    """A number of bytes."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"


def run_verify(options: argparse.Namespace) -> int:
    """Prints what is wrong with a library."""
    import dataclasses

    from videoprism_mlx.errors import are, counted, printable
    from videoprism_mlx.library.library import Library

    verified = Library(options.library).verify()
    if options.json:
        shared.print_json(dataclasses.asdict(verified) | {"whole": verified.is_whole})
        return 0 if verified.is_whole else 1
    for problem in verified.problems:
        print(problem)
    if verified.missing:
        count = len(verified.missing)
        print(f"{counted(count, 'file')} {are(count)} not there:")
    for path in verified.missing:
        print(printable(f"  {path}"))
    counts = [counted(verified.videos - verified.unusable, "video")]
    counts.append(counted(verified.moments, "moment"))
    if verified.unusable:
        counts.append(f"{counted(verified.unusable, 'file')} that cannot be used")
    problems = counted(len(verified.problems), "problem") if verified.problems else "whole"
    print(f"{', '.join(counts)}: {problems}")
    return 0 if verified.is_whole else 1


def run_errors(options: argparse.Namespace) -> int:
    """Prints the files that cannot be used."""
    from videoprism_mlx.errors import printable
    from videoprism_mlx.library.library import Library

    errors = Library(options.library).errors()
    if options.json:
        shared.print_json(errors)
    else:
        for one in errors:
            said = one["error"]
            print(printable(said if one["path"] in said else f"{one['path']}: {said}"))
    return 0


def run_prune(options: argparse.Namespace) -> int:
    """Removes videos whose files are gone."""
    from videoprism_mlx.errors import are, counted, printable
    from videoprism_mlx.library.library import Library
    from videoprism_mlx.progress import note

    removed = Library(options.library).prune(options.folder)
    if options.json:
        shared.print_json({"removed": removed})
    else:
        for path in removed:
            print(printable(path))
    count = len(removed)
    note(f"{counted(count, 'video')} {are(count)} removed from the library")
    return 0


def run_compact(options: argparse.Namespace) -> int:
    """Makes a library smaller."""
    from videoprism_mlx.library.library import Library
    from videoprism_mlx.progress import note

    library = Library(options.library)
    before = library.info()["bytes"]
    library.compact()
    if before is not None:
        after = library.info()["bytes"]
        later = "" if after < before else "; what was replaced within the last minute is kept"
        note(f"{size(before)} before, {size(after)} now{later}")
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Writes the moments of a library to a file."""
    from videoprism_mlx.errors import are, counted
    from videoprism_mlx.library.library import Library
    from videoprism_mlx.progress import note

    count = Library(options.library).export(options.output, overwrite=options.overwrite)
    if options.json:
        shared.print_json({"output": options.output, "moments": count})
    note(f"{counted(count, 'moment')} {are(count)} in {options.output}")
    return 0
