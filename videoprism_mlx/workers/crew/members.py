"""The workers that a crew has accepted, and what each of them is doing."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from videoprism_mlx.errors import VideoPrismError, WorkerError, excerpt
from videoprism_mlx.progress import note, write
from videoprism_mlx.workers.crew.events import Events
from videoprism_mlx.workers.crew.line import Work
from videoprism_mlx.workers.crew.news import News

if TYPE_CHECKING:
    from distributed import Client

# How many tasks a worker has at a time for each of its threads: one that runs, and one that waits.
AHEAD = 2

# How long to wait for a worker when there is none, in seconds, and when to say so.
PATIENCE, SAY_AFTER = 600.0, 5.0

# How often a worker that does not answer is asked.
TRIES = 3

# A reason to refuse a worker, which its address names; None if it is accepted.
Accept = Callable[["Client", str], str | None]


@dataclasses.dataclass(eq=False)
class Attempt:
    """A task that was given to a worker. `key` is its name at the scheduler."""

    key: str
    work: Work
    future: Any
    is_begun: bool = False
    is_finished: bool = False  # The result is fetched after that.
    is_asked_for: bool = False  # Another worker would take it over.


@dataclasses.dataclass(eq=False)
class Member:
    """A worker. While it `is_apart`, it gets no other task than one during which a worker died."""

    address: str
    name: str
    threads: int
    is_apart: bool = False
    is_named: bool = False  # It could not do a task, and that was said.
    attempts: dict[str, Attempt] = dataclasses.field(default_factory=dict)

    @property
    def load(self) -> float:
        """Its number of tasks for each thread."""
        return len(self.attempts) / self.threads

    def waiting(self) -> Attempt | None:
        """The last of the tasks that wait for a thread; None if that is being withdrawn already."""
        attempts = list(self.attempts.values())
        is_busy = len(attempts) > self.threads and not any(one.is_asked_for for one in attempts)
        return attempts[-1] if is_busy and not attempts[-1].is_begun else None


class Members:
    """The workers that were accepted. `lost` is called with one that has left."""

    def __init__(
        self,
        news: News,
        events: Events,
        accept: Accept | None,
        patience: float,
        lost: Callable[[Member, bool], None],
    ):
        self._news, self._events, self._accept = news, events, accept
        self._patience, self._lost = patience, lost
        self._members: dict[str, Member] = {}
        self._checking: dict[str, object] = {}  # A worker may have the address of an earlier one.
        self._refused: set[str] = set()
        self._died_early = False  # Of the time without a worker.
        self._without_since = time.monotonic()
        self._has_said = False

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def addresses(self) -> list[str]:
        """Where the workers are."""
        return list(self._members)

    def names(self) -> set[str]:
        """What the workers are called. Other threads may ask."""
        return {member.name for member in list(self._members.values())}

    def has(self, member: Member, attempt: Attempt) -> bool:
        """Whether the attempt still counts, and the worker has not left."""
        return self._members.get(member.address) is member and attempt.key in member.attempts

    def running(self) -> list[Work]:
        """The tasks that workers have."""
        return [attempt.work for member in self for attempt in member.attempts.values()]

    def begin(self) -> None:
        """From now on, workers that come are checked, and those that go are lost."""
        self._without_since = time.monotonic()
        self._news.begin(self._join, self._leave, self._begin)

    def _join(self, address: str) -> None:
        if address not in self._members and address not in self._checking:
            mark = self._checking[address] = object()
            self._events.in_thread(lambda: self._check(address), self._judge, address, mark)

    def _check(self, address: str) -> tuple[str | None, str, int]:
        """Why a worker is refused, its name, and its number of threads."""
        for _ in range(TRIES):
            try:
                reason = self._accept(self._news.client, address) if self._accept else None
                return (reason, address, 0) if reason else (None, *self._news.facts(address))
            except VideoPrismError as error:
                return str(error), address, 0
            except (OSError, KeyError) as error:  # It may have just left.
                reason = f"it does not answer ({type(error).__name__}: {excerpt(error)})"
                time.sleep(1)
        return reason, address, 0

    def _judge(self, address: str, mark: object, found: Any, error: BaseException | None) -> None:
        if self._checking.get(address) is not mark:  # It has left meanwhile.
            return
        if error is not None:
            raise error
        del self._checking[address]
        reason, name, threads = found
        if reason is None:
            self._members[address] = Member(address, name, threads)
        elif address not in self._refused:
            self._refused.add(address)
            write(f"the worker {name} is refused: {reason}")

    def _leave(self, address: str, is_expected: bool) -> None:
        if self._checking.pop(address, None) is not None and not is_expected:
            if not self._died_early:
                write(
                    f"the worker {address} died before it had a task: it may have too little "
                    "memory for the model, or a limit (see --memory-limit of `dask worker`)"
                )
            self._died_early = True
        self._refused.discard(address)
        if (member := self._members.pop(address, None)) is not None:
            self._lost(member, is_expected)

    def _begin(self, key: str, address: str) -> None:
        member = self._members.get(address)
        if member is not None and key in member.attempts:
            member.attempts[key].is_begun = True

    def set_apart(self, suspects: Sequence[Work], is_end: bool) -> list[Member]:
        """Lets workers run empty for suspects. Returns those that are: each for a task alone.

        With those that have a suspect by now, they are at most half of the workers, unless it
        `is_end`: all other tasks have begun.
        """
        usual = [one for one in self if not any(each.work.deaths for each in one.attempts.values())]
        able = [one for one in usual if any(one.address not in each.unable for each in suspects)]
        able = sorted(able or usual, key=lambda one: (not one.is_apart, one.load))
        half = max(1, len(self._members) // 2) - (len(self._members) - len(usual))
        most = len(suspects) if is_end else max(0, min(len(suspects), half))
        for member in usual:
            member.is_apart = member in able[:most]
        return [member for member in able[:most] if not member.attempts]

    def with_room(self) -> list[Member]:
        """The workers that may get the next task, the one with the fewest first."""
        free = [one for one in self if not one.is_apart and one.load < AHEAD]
        return sorted(free, key=lambda one: one.load)

    def pass_on(self, member: Member, work: Work, error: WorkerError) -> bool:
        """Whether others may be able to do what a worker cannot. That is said once of each."""
        work.unable.add(member.address)
        if all(one.address in work.unable for one in self):
            return False
        if not member.is_named:
            member.is_named = True
            write(f"other workers do what {member.name} cannot: {error}")
        return True

    def to_move(self) -> tuple[Member, Attempt] | None:
        """A task that waits, at the worker with most, while another worker is idle."""
        idle = next((one for one in self if not one.is_apart and one.load < 1), None)
        if idle is None:
            return None
        waiting = [
            (one, attempt)
            for one in self
            if (attempt := one.waiting()) and idle.address not in attempt.work.unable
        ]
        return max(waiting, key=lambda each: each[0].load, default=None)

    def require(self) -> None:
        """Says that there is no worker, and raises WorkerError after a while.

        It does so at once if the scheduler is gone.
        """
        self._news.require_connection()
        now = time.monotonic()
        if self._members:
            self._died_early = False
        if self._members or (self._checking and not self._died_early):
            self._without_since, self._has_said = now, False
            return
        seconds = now - self._without_since
        but = ", but for those that are refused" if self._refused else ""
        how = f"`dask worker {self._news.address}` on a machine adds one"
        if seconds > SAY_AFTER and not self._has_said:
            self._has_said = True
            note(f"there is no worker{but}; waiting for one: {how}")
        if seconds > self._patience:
            raise WorkerError(
                f"there has been no worker for {seconds:,.0f} s{but}; {how}. What is done is kept: "
                "run the same command again to continue"
            )
