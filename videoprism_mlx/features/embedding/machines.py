"""Features that workers compute: batches of videos, and spans of the windows of long ones."""

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from videoprism_mlx.errors import EXPECTED, counted
from videoprism_mlx.features.embedding.job import Job, Results, Sink
from videoprism_mlx.features.embedding.on_workers import (
    Work,
    embed_batch,
    embed_span,
    embed_windows,
    sizes_of,
)
from videoprism_mlx.features.embedding.spool import WindowSpool
from videoprism_mlx.features.pipeline import Features
from videoprism_mlx.features.resumable_store import video_record
from videoprism_mlx.features.spans.dividing import Span as WindowSpan
from videoprism_mlx.features.spans.shares import Call, Encoded, Shared, Shares
from videoprism_mlx.features.windows import Sampling, Window
from videoprism_mlx.files.record import Record
from videoprism_mlx.progress import note
from videoprism_mlx.workers.connect import Asked
from videoprism_mlx.workers.crew.crew import FETCHED, Crew
from videoprism_mlx.workers.crew.hired import hired, to_look_for
from videoprism_mlx.workers.places import renamed
from videoprism_mlx.workers.rates import Rates
from videoprism_mlx.workers.tasks import Done, Task

# How many bytes of results are on their way to this process, or in it, at most, and of one span.
# A single batch may have more.
MOST_BYTES, SPAN_BYTES = 256 * 2**20, 64 * 2**20

# How many videos may be done before one that has to come first.
MOST_AHEAD = 1_000

# How many characters of a bar the speeds may take, which fits a terminal of 80.
SPEEDS = 30


class Outcome(NamedTuple):
    """What has become of a video: features or, if it failed, an error."""

    name: str
    record: Record
    error: Exception | None = None
    features: Features | None = None
    parts: Sequence[WindowSpool] = ()


# Numbers of batches or videos, and what has become of them.
Finished = Iterator[tuple[int, list[Outcome]]]


@dataclasses.dataclass(eq=False)
class Batch:
    """Videos that are encoded together, the records of those that are there, and what has come."""

    number: int
    videos: Mapping[str, Path]
    records: dict[str, Record] = dataclasses.field(default_factory=dict)
    outcomes: dict[str, Outcome] = dataclasses.field(default_factory=dict)

    def take(self, names: Sequence[str], done: Done) -> None:
        """Keeps what a task has made of some of the videos."""
        if done.error is not None and not isinstance(done.error, EXPECTED):
            raise done.error
        results: Iterator[Features | Exception] = iter(done.value or ())
        for name in names:
            record, found = self.records[name], done.error or next(results)
            if isinstance(found, Exception):
                found = as_given(found, record, self.videos[name])
                self.outcomes[name] = Outcome(name, record, found)
            else:
                self.outcomes[name] = Outcome(name, record, features=found)

    def in_order(self) -> list[Outcome]:
        """What has become of each video, in their order; nothing until all have come."""
        is_done = len(self.outcomes) == len(self.videos)
        return [self.outcomes[name] for name in self.videos] if is_done else []


@dataclasses.dataclass(eq=False)
class Video(Shared):
    """A video whose windows are encoded. `runs` are windows that have come, by the next number.

    `spool` makes a place for windows.
    """

    number: int
    name: str
    path: Path
    spool: Callable[[], WindowSpool]
    record: Record = dataclasses.field(default_factory=dict)
    runs: dict[int, WindowSpool] = dataclasses.field(default_factory=dict)
    firsts: dict[int, int] = dataclasses.field(default_factory=dict)

    def keep(self, number: int, result: list[Window]) -> None:
        """Keeps the windows of a span, after those before them if these are there."""
        span = self.spans[number]
        spool = self.runs.pop(span.first, None)
        first = self.firsts.pop(span.first, span.first)
        spool = self.spool() if spool is None else spool
        self.runs[span.stop], self.firsts[span.stop] = spool, first
        for window in result:
            spool.append(window)

    def parts(self) -> list[WindowSpool]:
        """All windows, in the order of time."""
        return [self.runs[stop] for stop in sorted(self.runs, key=self.firsts.__getitem__)]

    def clear(self) -> None:
        """Removes the windows that have come."""
        for spool in self.runs.values():
            spool.close()
        self.runs, self.firsts = {}, {}


class Machines:
    """Computes features on the workers of a crew."""

    def __init__(self, crew: Crew, work: Work, batch_size: int):
        self._crew, self._work, self._batch_size = crew, work, batch_size
        self._shares: Shares[Video] = Shares(crew, self._first, self._other)
        self._rates = Rates()
        self._room = threading.Condition()
        self._next = 0  # The number of the batch or video that an ordered sink waits for.

    def speeds(self) -> str:
        """How fast each worker is."""
        return self._rates.short(self._crew.names(), SPEEDS)

    def lines(self) -> list[str]:
        """A line about each worker."""
        return self._rates.lines("video" if self._work.sampling is None else "task")

    def results(self, videos: Mapping[str, Path], sink: Sink) -> Results:
        """Gives the features to the sink. The name of each video follows, perhaps with an error."""
        each = self._batches if self._work.sampling is None else self._videos
        finished = each(videos, sink)
        if sink.is_ordered:
            finished = self._ordered(finished)
        for _, outcomes in finished:
            for one in outcomes:
                if one.features is not None:
                    sink.add(one.record, one.features)
                elif one.error is None:
                    sink.add_spooled(one.record, one.parts)
                for part in one.parts:
                    part.close()
                yield one.name, one.error

    def _ordered(self, finished: Finished) -> Finished:
        """The outcomes in the order of their numbers."""
        held: dict[int, list[Outcome]] = {}
        for number, outcomes in finished:
            held[number] = outcomes
            while self._next in held:
                yield self._next, held.pop(self._next)
                with self._room:
                    self._next += 1
                    self._room.notify_all()

    def _wait(self, number: int, sink: Sink) -> None:
        """Waits until a task may begin: not too far before the one that has to come first."""
        with self._room:
            self._room.wait_for(lambda: not sink.is_ordered or number < self._next + MOST_AHEAD)

    # Clips.

    def _batches(self, videos: Mapping[str, Path], sink: Sink) -> Finished:
        for done in self._crew.run(self._batch_tasks(list(videos.items()), sink)):
            batch, names = done.task.about
            batch.take(names, done)
            if names:
                self._rates.count(done.worker, done.seconds, 0.0, len(names))
            if outcomes := batch.in_order():
                yield batch.number, outcomes

    def _batch_tasks(self, videos: list[tuple[str, Path]], sink: Sink) -> Iterator[Task]:
        size = self._batch_size
        for number, start in enumerate(range(0, len(videos), size)):
            self._wait(number, sink)
            batch = Batch(number, dict(videos[start : start + size]))
            for name, path in batch.videos.items():
                try:
                    batch.records[name] = video_record(name, path)  # Before it is read.
                except EXPECTED as error:
                    batch.outcomes[name] = Outcome(name, {}, error)
            yield self._batch_task(batch, list(batch.records))

    def _batch_task(self, batch: Batch, names: list[str]) -> Task:
        """The task of some videos of a batch. If a worker dies, each is encoded by itself."""
        if not names:
            return Task("", None, about=(batch, names))
        paths = [path_of(batch.records[name]) for name in names]
        called, others = paths[0][0], len(names) - 1
        called += f" (with {counted(others, 'other')})" if others else ""
        parts = tuple(self._batch_task(batch, [name]) for name in names) if others else ()
        return Task(called, embed_batch, (self._work, paths), (batch, names), parts=parts)

    # Windows.

    def _videos(self, videos: Mapping[str, Path], sink: Sink) -> Finished:
        open_ones: set[Video] = set()
        try:
            for done in self._crew.run(self._video_tasks(videos, sink, open_ones)):
                video: Video = done.task.about.video
                came = self._shares.taken(done)
                if isinstance(came, Encoded):
                    length = came.result[-1].end - came.result[0].start
                    self._rates.count(done.worker, done.seconds, length)
                if came is not None and video.is_done:
                    open_ones.discard(video)
                    yield video.number, [outcome_of(video, came)]
        finally:
            for video in list(open_ones):
                video.clear()

    def _video_tasks(
        self, videos: Mapping[str, Path], sink: Sink, open_ones: set[Video]
    ) -> Iterator[Task]:
        for number, (name, path) in enumerate(videos.items()):
            self._wait(number, sink)
            video = Video(number, name, path, sink.spool)
            open_ones.add(video)
            yield self._shares.task(video)

    def _first(self, video: Video) -> Call:
        try:
            video.record = video_record(video.name, video.path)
        except EXPECTED as error:
            return str(video.path), failed, (error,)
        path, size = path_of(video.record)
        return path, embed_windows, (self._work, path, size, not video.is_whole)

    def _other(self, video: Video, span: WindowSpan, first: Encoded) -> Call:
        path, size = path_of(video.record)
        return path, embed_span, (self._work, path, size, span, first.mark, first.listed)


def outcome_of(video: Video, came: Encoded | Exception) -> Outcome:
    """What has become of a video, of which this came last."""
    if isinstance(came, Exception):
        error = as_given(came, video.record, video.path)
        return Outcome(video.name, video.record, error)
    return Outcome(video.name, video.record, parts=video.parts())


def failed(error: Exception) -> None:
    """Raises an error that is known before a worker is asked."""
    raise error


def as_given(error: Exception, record: Record, path: Path) -> Exception:
    """The error about a video, which calls it as the user did. `record` has its absolute path."""
    return renamed(error, Path(record["path"]), str(path)) if record else error


def path_of(record: Record) -> tuple[str, int]:
    """The path of a video where the command runs, and its bytes, for workers."""
    return record["path"], record["bytes"]


def some(videos: Mapping[str, Path]) -> list[tuple[str, int]]:
    """A few of the videos that can be seen here."""
    found = []
    for name, path in to_look_for(list(videos.items())):
        with suppress(*EXPECTED):
            found.append(path_of(video_record(name, path)))
    return found


@contextmanager
def machines(
    asked: Asked,
    job: Job,
    stored: tuple[str | Path | None, str | None],
    videos: Mapping[str, Path],
) -> Iterator[Machines]:
    """Lets workers compute the features of these videos.

    `stored` is the name that the model was loaded as, and its type. Without a name, it may have
    changed since.
    """
    processor = dataclasses.replace(job.processor, tokenizer=None, known_words=None)
    sampling = None
    if job.windowing is not None:
        window = dataclasses.asdict(job.windowing)
        sampling = Sampling(**window, **dataclasses.asdict(job.span))
    sizes = sizes_of(job, SPAN_BYTES)
    fetched = max(1, min(FETCHED, MOST_BYTES // sizes.result))
    paths = [os.path.abspath(path) for path in videos.values()]
    with hired(asked, job.model, stored, paths, some(videos), fetched) as (crew, shared, files):
        work = Work(
            shared,
            files,
            processor,
            tuple(job.features),
            job.partial,
            job.span,
            sampling,
            sizes.windows,
        )
        working = Machines(crew, work, job.batch_size)
        yield working
    for line in working.lines() if asked.show else ():
        note(line)
