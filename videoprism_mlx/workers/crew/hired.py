"""A crew whose workers have the model of a run, and find its videos."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.workers.connect import Asked, connected
from videoprism_mlx.workers.crew.crew import FETCHED, Crew
from videoprism_mlx.workers.files import Files, files_of
from videoprism_mlx.workers.model import SharedModel, acceptance, shared_model
from videoprism_mlx.workers.sending import Sender

# How many of the videos a worker looks for when it joins: it has to find one of them.
LOOKED_FOR = 20

T = TypeVar("T")


class Hired(NamedTuple):
    """A crew, and what its tasks have in common."""

    crew: Crew
    model: SharedModel
    files: Files


@contextmanager
def hired(
    asked: Asked,
    model: VideoPrismModel,
    stored: tuple[str | Path | None, str | None],
    paths: Sequence[str],
    looked_for: Sequence[tuple[str, int]],
    fetched: int = FETCHED,
) -> Iterator[Hired]:
    """Workers that take part in a run over the videos with these absolute paths.

    `stored` is the name that the model was loaded as, and its type: without a name, it may have
    changed since. A worker that sees none of the videos `looked_for`, each with its bytes, is
    refused. `fetched` is as in `Crew`.
    """
    with (
        connected(asked.client, asked.show) as client,
        Sender(client) as sender,
        shared_model(sender, model, *stored, asked.places) as shared,
        files_of(client, sender, asked.places, paths, asked.send) as files,
        Crew(client, acceptance(shared, looked_for, files), fetched=fetched) as crew,
    ):
        yield Hired(crew, shared, files)


def to_look_for(videos: Sequence[T]) -> Sequence[T]:
    """A few of the videos, from all over the list."""
    return videos[:: len(videos) // LOOKED_FOR + 1]
