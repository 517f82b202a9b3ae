"""Videos of a library on workers: each whole, or a long one in spans."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from videoprism_mlx.errors import EXPECTED
from videoprism_mlx.features.spans.dividing import (
    SECONDS,
    Divide,
    Span,
    exactly,
    long_ones,
    mark_of,
    whole,
)
from videoprism_mlx.features.spans.shares import Call, Encoded, Shared, Shares
from videoprism_mlx.library.indexing.ingest import Part, Workers
from videoprism_mlx.library.indexing.scan import File
from videoprism_mlx.library.indexing.starts import Started
from videoprism_mlx.library.indexing.windows import Moments, Opening, joined, moments_of
from videoprism_mlx.library.model import LibraryModel, Reading
from videoprism_mlx.progress import note
from videoprism_mlx.video.ffmpeg.index import Index
from videoprism_mlx.workers.connect import Asked, connected
from videoprism_mlx.workers.crew.crew import Crew
from videoprism_mlx.workers.crew.hired import hired, to_look_for
from videoprism_mlx.workers.files import Files
from videoprism_mlx.workers.model import SharedModel, turn
from videoprism_mlx.workers.places import renamed
from videoprism_mlx.workers.rates import Rates
from videoprism_mlx.workers.tasks import Task

if TYPE_CHECKING:
    from distributed import Client


@dataclasses.dataclass(frozen=True)
class Job:
    """What all tasks have in common."""

    model: SharedModel
    reading: Reading
    files: Files


# How many characters of a bar the speeds may take, which fits a terminal of 80.
SPEEDS = 34


# On a worker.


def encode(job: Job, path: str, size: int, seconds: float | None) -> Encoded:
    """A video or, if it is much longer than `seconds`, its first span."""
    return _encoded(job, path, size, whole if seconds is None else long_ones(seconds))


def encode_span(
    job: Job, path: str, size: int, span: Span, mark: str, listed: Index | None
) -> Encoded:
    """Another span of a video."""
    return _encoded(job, path, size, exactly(span, mark), listed)


def _encoded(
    job: Job, path: str, size: int, divide: Divide, listed: Index | None = None
) -> Encoded:
    model, found = job.model.load(), None
    try:
        with job.files.at_hand(path, size) as found:
            opening = Opening.of(found, job.reading, divide, listed)
            *_, moments = moments_of(model, opening, found, turn)
    except EXPECTED as error:
        raise renamed(error, found, path) from error
    assert isinstance(moments, Moments)
    begun = opening.begun
    return Encoded(moments, begun.spans, mark_of(begun.plan), begun.listed)


# Where the command runs.


@dataclasses.dataclass(eq=False)
class Video(Shared):
    """A video that workers encode, and the moments of its spans that have come."""

    begun: Started
    parts: dict[int, Moments] = dataclasses.field(default_factory=dict)

    def keep(self, number: int, result: Moments) -> None:
        """Keeps the moments of a span."""
        self.parts[number] = result

    def clear(self) -> None:
        """Forgets all moments."""
        self.parts.clear()

    @property
    def part(self) -> Part:
        """How much of it is done, or all moments."""
        if self.is_done:
            return joined([self.parts[number] for number in range(len(self.spans))])
        done = sum(self.spans[number].stop - self.spans[number].first for number in self.parts)
        return done / self.spans[-1].stop


class Machines:
    """Encodes videos on the workers of a crew. Long ones are divided into spans of `seconds`."""

    def __init__(self, crew: Crew, job: Job, seconds: float):
        self._crew, self._job, self._seconds = crew, job, seconds
        self._shares: Shares[Video] = Shares(crew, self._first, self._other)
        self.rates = Rates()

    def opened(self, path: Path) -> None:
        """Nothing: a worker opens it."""

    def speeds(self) -> str:
        """How fast each worker is: seconds of video in a second."""
        return self.rates.short(self._crew.names(), SPEEDS)

    def close(self) -> None:
        """Does nothing: no video is open here."""

    def encoded(self, started: Iterator[Started]) -> Iterator[tuple[Started, Part | None]]:
        """The parts of videos, as they come."""
        for done in self._crew.run(map(self._task, started)):
            if done.task.function is None:
                yield done.task.about, None
                continue
            video, came = done.task.about.video, self._shares.taken(done)
            if isinstance(came, Exception):
                yield video.begun, came
            elif came is not None:
                length = came.result.ends[-1] - came.result.starts[0]
                self.rates.count(done.worker, done.seconds, length)
                yield video.begun, video.part

    def _task(self, begun: Started) -> Task:
        if begun.is_known:
            return Task(begun.file.key, None, about=begun)
        return self._shares.task(Video(begun))

    def _first(self, video: Video) -> Call:
        file, seconds = video.begun.file, None if video.is_whole else self._seconds
        return file.key, encode, (self._job, *path_of(file), seconds)

    def _other(self, video: Video, span: Span, first: Encoded) -> Call:
        file = video.begun.file
        return file.key, encode_span, (self._job, *path_of(file), span, first.mark, first.listed)


def path_of(file: File) -> tuple[str, int]:
    """The path of a video where the command runs, and its bytes, for workers."""
    return os.fspath(file.path), file.size


def workers(asked: Asked | None) -> Workers | None:
    """What lets workers encode videos; None without workers."""
    return None if asked is None else functools.partial(encoding, asked)


@contextmanager
def kept_open(client: "Client | str | int | None", show: bool) -> "Iterator[Client | None]":
    """A connection for several runs; None without a client."""
    with nullcontext() if client is None else connected(client, show) as found:
        yield found


@contextmanager
def encoding(asked: Asked, chosen: LibraryModel, files: Sequence[File]) -> Iterator[Machines]:
    """Lets workers encode these files for a library with that model."""
    processor = dataclasses.replace(chosen.reading.processor, tokenizer=None, known_words=None)
    reading = dataclasses.replace(chosen.reading, processor=processor)
    source, model = chosen.source(), chosen.load()
    name = None if source.get("adapters") else source["model"]
    paths = [os.fspath(file.path) for file in files]
    some = [path_of(file) for file in to_look_for(files)]
    stored = (name, source.get("dtype"))
    with hired(asked, model, stored, paths, some) as (crew, shared, found):
        working = Machines(crew, Job(shared, reading, found), SECONDS)
        yield working
    for line in working.rates.lines() if asked.show else ():
        note(line)
