"""Whether all ranks were started with the same settings, data and versions."""

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx

from videoprism_mlx.errors import RankError, excerpt
from videoprism_mlx.files.record import Record, flat, own_version, phrase
from videoprism_mlx.ranks.group import Group

# What may differ: the path of the model, and parameters that are then taken from the first rank.
OWN = {"model.name", "model.head"}


def require_alike(group: Group, record: Record) -> None:
    """Raises RankError unless all ranks have the same record and versions. It names the first."""
    settings = {**flat(record), "version": own_version(), "mlx version": vars(mx)["__version__"]}
    own = {key: phrase(value) for key, value in settings.items() if key not in OWN}
    first, *others = group.collect(own)
    for rank, other in enumerate(others, 1):
        changed = [
            f"{excerpt(key)} is {other.get(key)} there and {first.get(key)} here"
            for key in sorted(first.keys() | other.keys())
            if first.get(key) != other.get(key)
        ]
        if changed:
            raise RankError(
                f"{group.name(rank)} differs from {group.name(0)}: "
                f"{excerpt('; '.join(changed), 300)}. All ranks need the same versions, model, "
                "data and options"
            )


def names_of(videos: Sequence[Path | Sequence[Path]]) -> list[list[str]]:
    """The names of the files of videos, without their folders: those may differ by rank."""
    return [[file.name for file in ([one] if isinstance(one, Path) else one)] for one in videos]
