"""Videos of a library on workers: each whole, or a long one in spans."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from videoprism_mlx.errors import EXPECTED, DeadlyError
from videoprism_mlx.features.spans import (
    SECONDS,
    Divide,
    Span,
    exactly,
    long_ones,
    mark_of,
    whole,
)
from videoprism_mlx.library.indexing.ingest import Part, Workers
from videoprism_mlx.library.indexing.scan import File
from videoprism_mlx.library.indexing.starts import Started
from videoprism_mlx.library.indexing.windows import Moments, Opening, joined, moments_of
from videoprism_mlx.library.model import LibraryModel, Reading
from videoprism_mlx.progress import note
from videoprism_mlx.video.ffmpeg.index import Index
from videoprism_mlx.workers.connect import Asked, connected
from videoprism_mlx.workers.crew.crew import Crew
from videoprism_mlx.workers.files import Files, files_of
from videoprism_mlx.workers.model import SharedModel, acceptance, shared_model, turn
from videoprism_mlx.workers.places import renamed
from videoprism_mlx.workers.rates import Rates
from videoprism_mlx.workers.sending import Sender
from videoprism_mlx.workers.tasks import Done, Task

if TYPE_CHECKING:
    from distributed import Client


@dataclasses.dataclass(frozen=True)
class Job:
    """What all tasks have in common."""

    model: SharedModel
    reading: Reading
    files: Files


class Encoded(NamedTuple):
    """The moments of the first span of a video or, later, of another one."""

    moments: Moments
    spans: list[Span]
    mark: str
    listed: Index | None


# How many of the videos a worker looks for when it joins: it has to find one of them.
LOOKED_FOR = 20

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
class Video:
    """A video that workers encode, and the moments of its spans that have come."""

    begun: Started
    spans: list[Span] = dataclasses.field(default_factory=list)
    parts: dict[int, Moments] = dataclasses.field(default_factory=dict)
    is_whole: bool = False  # Something was wrong with its spans.
    is_done: bool = False

    @property
    def share(self) -> float:
        """How much of it is done."""
        done = sum(self.spans[number].stop - self.spans[number].first for number in self.parts)
        return done / self.spans[-1].stop


class Share(NamedTuple):
    """The span of a video that a task is about."""

    video: Video
    number: int
    is_whole: bool


class Machines:
    """Encodes videos on the workers of a crew. Long ones are divided into spans of `seconds`."""

    def __init__(self, crew: Crew, job: Job, seconds: float):
        self._crew, self._job, self._seconds = crew, job, seconds
        self.rates = Rates()

    def opened(self, path: Path) -> None:
        """Nothing: a worker opens it."""

    def speeds(self) -> str:
        """How fast each worker is: seconds of video in a second."""
        return self.rates.short(SPEEDS)

    def close(self) -> None:
        """Does nothing: no video is open here."""

    def encoded(self, started: Iterator[Started]) -> Iterator[tuple[Started, Part | None]]:
        """The parts of videos, as they come."""
        for done in self._crew.run(self._task(Video(begun)) for begun in started):
            share: Share = done.task.about
            if done.task.function is None:
                yield share.video.begun, None
            elif not share.video.is_done and share.is_whole == share.video.is_whole:
                for part in self._parts(share, done):
                    yield share.video.begun, part

    def _task(self, video: Video) -> Task:
        file, share = video.begun.file, Share(video, 0, video.is_whole)
        if video.begun.is_known:
            return Task(file.key, None, about=share)
        seconds = None if video.is_whole else self._seconds
        return Task(file.key, encode, (self._job, *path_of(file), seconds), share, video)

    def _parts(self, share: Share, done: Done) -> Iterator[Part]:
        video, number = share.video, share.number
        if done.error is not None:
            if not isinstance(done.error, EXPECTED):
                raise done.error
            if number == 0 or isinstance(done.error, DeadlyError):
                video.is_done = True
                yield done.error
            else:  # As a whole, it may be in order, or will say what is wrong.
                video.is_whole = True
                video.parts.clear()
                self._crew.put(self._task(video))
            return
        encoded: Encoded = done.value
        moments = encoded.moments
        self.rates.count(done.worker, done.seconds, moments.ends[-1] - moments.starts[0])
        if number == 0:
            video.spans = encoded.spans
            self._put_others(video, encoded)
        video.parts[number] = moments
        if len(video.parts) == len(video.spans):
            video.is_done = True
            yield joined([video.parts[each] for each in range(len(video.spans))])
        else:
            yield video.share

    def _put_others(self, video: Video, first: Encoded) -> None:
        file = video.begun.file
        for number, span in list(enumerate(first.spans))[1:]:
            arguments = (self._job, *path_of(file), span, first.mark, first.listed)
            share = Share(video, number, video.is_whole)
            self._crew.put(Task(file.key, encode_span, arguments, share, video))


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
    with (
        connected(asked.client, asked.show) as client,
        Sender(client) as sender,
        shared_model(sender, model, name, source.get("dtype"), asked.places) as shared,
        files_of(client, sender, asked.places, paths, asked.send) as found,
    ):
        some = files[:: len(files) // LOOKED_FOR + 1]
        accept = acceptance(shared, [path_of(file) for file in some], found)
        with Crew(client, accept) as crew:
            working = Machines(crew, Job(shared, reading, found), SECONDS)
            yield working
        for line in working.rates.lines() if asked.show else ():
            note(line)
