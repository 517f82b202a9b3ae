"""The options for work on several machines, or in several processes on this one."""

import argparse
from typing import Any

from videoprism_mlx.errors import InputError


def add_machines(parser: argparse.ArgumentParser) -> None:
    """Adds the options. `pip install 'videoprism_mlx[machines]'` brings what they need."""
    group = parser.add_argument_group("several machines, or processes on this one")
    group.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="share the videos among the workers of this Dask scheduler, such as tcp://mac1:8786",
    )
    group.add_argument(
        "--workers", type=int, metavar="N", help="share them among N processes on this machine"
    )
    group.add_argument(
        "--map",
        dest="mapping",
        action="append",
        metavar="FROM=TO",
        help="where a folder is on the workers, such as /Volumes/nas=/mnt/nas; may be repeated",
    )
    group.add_argument(
        "--send", action="store_true", help="send the workers what they do not see of the videos"
    )


def machines(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say, as arguments of `embed` and `Library.add`."""
    if options.scheduler is not None and options.workers is not None:
        raise InputError(
            "--workers are processes on this machine, and --scheduler has its own workers; "
            "give one of them"
        )
    client = options.workers if options.scheduler is None else options.scheduler
    if client is None:
        for name, value in (("map", options.mapping), ("send", options.send)):
            if value:
                raise InputError(
                    f"--{name} is for workers; give --scheduler (or --workers) as well"
                )
        return {"client": None, "mapping": None, "send_files": False}

    from videoprism_mlx.workers.places import Places, parse_mapping

    mapping = parse_mapping(options.mapping or ())
    Places.of(mapping)  # Before anything is loaded.
    return {"client": client, "mapping": mapping or None, "send_files": options.send}
