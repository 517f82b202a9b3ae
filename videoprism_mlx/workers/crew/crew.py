"""Running tasks on the workers of a scheduler, whoever of them comes, is slow, or dies.

Each task is given to one worker by name, and Dask moves none. So a worker gets no more than it can
do, one that is refused gets nothing, and it is known what a worker ran when it died. Dask's own
count of failures (allowed-failures) also blames the tasks that only waited there.
"""

import functools
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from videoprism_mlx.errors import DeadlyError
from videoprism_mlx.workers.crew.events import Events
from videoprism_mlx.workers.crew.line import Line, Work
from videoprism_mlx.workers.crew.members import AHEAD, PATIENCE, Accept, Attempt, Member, Members
from videoprism_mlx.workers.crew.news import News
from videoprism_mlx.workers.tasks import Answer, Done, Task, perform

if TYPE_CHECKING:
    from distributed import Client

# A task fails when so many workers have died while they ran it.
DEATHS = 2

# How many results are fetched at a time. The others stay on the workers.
FETCHED = 4

# A way to take a task from the line.
Take = Callable[[Iterable[Work], str, Iterable[str]], Work | None]

# What the scheduler says of the tasks of a worker that it has lost. That is known otherwise.
OF_LOST_WORKERS = ("KilledWorker", "NoValidWorkerError")


class Crew:
    """The workers of a scheduler, and the tasks that they do.

    `accept` is asked about each worker, also about those that join later: one that is refused is
    named on stderr, and gets no task. Dask's dashboard calls the tasks `what`. Without a worker for
    `patience` seconds, `run` raises WorkerError. It holds or fetches `fetched` results at a time.
    """

    def __init__(
        self,
        client: "Client",
        accept: Accept | None = None,
        what: str = "video",
        patience: float = PATIENCE,
        fetched: int = FETCHED,
    ):
        self._what, self._most_fetched = what, fetched
        self._events = Events()
        self._news = News(client, self._events)
        self._client = self._news.client
        self._members = Members(self._news, self._events, accept, patience, self._lost)
        self._source: Iterator[Task] | None = None
        self._line, self._is_asking, self._fetching = Line(), False, 0
        self._finished: deque[tuple[Member, Attempt]] = deque()
        self._results: deque[Done] = deque()
        self._said: deque[str] = deque(maxlen=1000)  # The last warnings: spans have the same.

    def __enter__(self) -> "Crew":
        try:
            self._members.begin()
        except BaseException:
            self._news.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Cancels what is in flight."""
        self._news.close()

    def put(self, task: Task) -> None:
        """Adds a task, which comes before those that `run` has not begun."""
        self._line.append(Work(task))

    def names(self) -> set[str]:
        """The names of the workers that take part now."""
        return self._members.names()

    def run(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """Yields what became of each task, in the order in which they end.

        `tasks` is asked for one when a worker has room for it, in another thread.
        """
        self._source = iter(tasks)
        while True:
            self._hand_out()
            self._fetch()
            if self._results:
                yield self._results.popleft()
            elif not (self._members.running() or self._line or self._source or self._is_asking):
                return
            else:
                self._events.handle(seconds=1)
                self._members.require()

    # Giving tasks to workers.

    def _hand_out(self) -> None:
        suspects = list(self._line.suspects(running := self._members.running()))
        is_end = self._source is None and self._line.has_only_suspects
        for member in self._members.set_apart(suspects, is_end):
            self._give_next(self._line.take_suspect, member, running)
        while self._gave(running):
            pass
        if not (self._source or self._is_asking or self._line):
            self._even_out()

    def _gave(self, running: list[Work]) -> bool:
        """Gives a task to the worker with most room for which there is one."""
        free = self._members.with_room()
        is_given = any(self._give_next(self._line.take, member, running) for member in free)
        if free and not is_given and self._line.returned < len(self._members.addresses()) * AHEAD:
            self._ask()
        return is_given

    def _give_next(self, take: Take, member: Member, running: list[Work]) -> bool:
        work = take(running, member.address, self._members.addresses())
        if work is None:
            return False
        running.append(work)
        key, task = f"{self._what}-{uuid.uuid4().hex}", work.task
        future = self._client.submit(
            perform,
            *(key, task.function, task.arguments),
            key=key,
            workers=[member.address],
            allow_other_workers=False,
            pure=False,
        )
        attempt = member.attempts[key] = Attempt(key, work, future)
        future.add_done_callback(lambda _: self._events.put(self._ended, member, attempt))
        return True

    def _ask(self) -> None:
        """Asks for the next task, if there may be one."""
        if (source := self._source) is not None and not self._is_asking:
            self._is_asking = True
            self._events.in_thread(lambda: next(source, None), self._told)

    def _told(self, task: Task | None, error: BaseException | None) -> None:
        self._is_asking = False
        if error is not None:
            raise error
        if task is None:
            self._source = None
        elif task.function is None:
            self._results.append(Done(task))
        else:
            self._line.append(Work(task))

    def _even_out(self) -> None:
        """At the end, workers that have nothing to do take over tasks that wait at others."""
        if found := self._members.to_move():
            member, attempt = found
            attempt.is_asked_for = True
            work = functools.partial(self._news.withdraw, member.address, attempt.key)
            self._events.in_thread(work, self._withdrawn, member, attempt)

    def _withdrawn(
        self, member: Member, attempt: Attempt, is_free: bool, error: BaseException | None
    ) -> None:
        if error is None and is_free and self._members.has(member, attempt):
            self._cancel([attempt])
            self._again(member, attempt)

    # What becomes of them.

    def _ended(self, member: Member, attempt: Attempt) -> None:
        if not self._members.has(member, attempt):
            return
        status = attempt.future.status
        if status == "finished":
            attempt.is_finished = True
            self._finished.append((member, attempt))
        elif status == "error":
            error = attempt.future.exception()
            if type(error).__name__ not in OF_LOST_WORKERS:
                raise error
        else:  # The scheduler is gone, or somebody has cancelled all tasks.
            self._news.require_connection()
            self._again(member, attempt)

    def _again(self, member: Member, attempt: Attempt) -> None:
        del member.attempts[attempt.key]
        self._line.bring_back(attempt.work)

    def _fetch(self) -> None:
        while self._finished and self._fetching + len(self._results) < self._most_fetched:
            member, attempt = self._finished.popleft()
            self._fetching += 1
            self._events.in_thread(attempt.future.result, self._fetched, member, attempt)

    def _fetched(
        self, member: Member, attempt: Attempt, answer: Answer, error: BaseException | None
    ) -> None:
        self._fetching -= 1
        if not self._members.has(member, attempt):
            return
        if error is not None:
            raise self._news.explained(error)
        if answer.unable and self._members.pass_on(member, attempt.work, answer.unable):
            self._again(member, attempt)
            return
        del member.attempts[attempt.key]
        self._results.append(answer.done(attempt.work.task, member.name, self._said))

    def _lost(self, member: Member, is_expected: bool) -> None:
        """A worker has left: others do what it had, unless that was running at a second death."""
        attempts = list(member.attempts.values())
        self._cancel(attempts)
        for attempt in reversed(attempts):
            work = attempt.work
            if attempt.is_begun and not attempt.is_finished and not is_expected:
                work.deaths.append(member.name)
            if len(work.deaths) < DEATHS:
                self._again(member, attempt)
                continue
            self._results.append(Done(work.task, error=deadly(work), worker=member.name))
            self._drop_group(work)

    def _drop_group(self, work: Work) -> None:
        self._line.drop(work.group)
        for member in self._members:
            dropped = [one for one in member.attempts.values() if one.work.group is work.group]
            self._cancel(dropped)
            for attempt in dropped:
                del member.attempts[attempt.key]

    def _cancel(self, attempts: Sequence[Attempt]) -> None:
        if attempts:
            self._client.cancel([attempt.future for attempt in attempts], force=True)


def deadly(work: Work) -> DeadlyError:
    """The error of a task during which workers died."""
    return DeadlyError(
        f"{work.task.key} was being read by a worker that died, {len(work.deaths)} times "
        f"({', '.join(work.deaths)}); it is skipped"
    )
