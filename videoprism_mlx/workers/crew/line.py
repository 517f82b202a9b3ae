"""The tasks that no worker has yet, and which of them may be done now."""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator

from videoprism_mlx.workers.tasks import Task


@dataclasses.dataclass(eq=False)
class Work:
    """A task, the names of workers that died while they ran it, and addresses that cannot do it."""

    task: Task
    deaths: list[str] = dataclasses.field(default_factory=list)
    unable: set[str] = dataclasses.field(default_factory=set)

    @property
    def group(self) -> object:
        """What it has in common with others: itself if that is nothing."""
        return self if self.task.group is None else self.task.group

    def is_left(self, address: str, others: Iterable[str]) -> bool:
        """Whether a worker cannot do it, and one of the others may be able."""
        return address in self.unable and not set(others) - {address} <= self.unable


class Line:
    """Tasks that wait for a worker. `running` are those that workers have.

    A task during which a worker died is a suspect: it is done when a worker has nothing else to do.
    Others of its group wait until then.
    """

    def __init__(self) -> None:
        self._works: deque[Work] = deque()
        self._suspects: list[Work] = []

    def __len__(self) -> int:
        return len(self._works) + len(self._suspects)

    def append(self, work: Work) -> None:
        """Adds a task to the end."""
        self._works.append(work)

    def bring_back(self, work: Work) -> None:
        """Adds a task that a worker had: it comes first. If the worker died, its parts do."""
        if work.deaths:
            parts = [Work(part, work.deaths.copy()) for part in work.task.parts]
            self._suspects += parts or [work]
        else:
            self._works.appendleft(work)

    @property
    def returned(self) -> int:
        """How many tasks wait because a worker could not do them."""
        return sum(bool(work.unable) for work in self._works)

    @property
    def has_only_suspects(self) -> bool:
        """Whether nothing else waits."""
        return not self._works

    def take(self, running: Iterable[Work], address: str, others: Iterable[str]) -> Work | None:
        """Takes the next task for a worker that is no suspect, nor of the group of one.

        Tasks that the worker cannot do are left to `others`, if one of them may be able.
        """
        if self.has_only_suspects:
            return None
        held = {id(work.group) for work in (*self._suspects, *running) if work.deaths}
        for number, work in enumerate(self._works):
            if id(work.group) not in held and not work.is_left(address, others):
                del self._works[number]
                return work
        return None

    def take_suspect(
        self, running: Iterable[Work], address: str, others: Iterable[str]
    ) -> Work | None:
        """As `take`, for a worker that has nothing else to do."""
        for work in self.suspects(running):
            if not work.is_left(address, others):
                self._suspects.remove(work)
                return work
        return None

    def suspects(self, running: Iterable[Work]) -> Iterator[Work]:
        """The suspects that may be done now: one of each group."""
        held = {id(work.group) for work in running if work.deaths}
        for work in self._suspects:
            if id(work.group) not in held:
                held.add(id(work.group))
                yield work

    def drop(self, group: object) -> None:
        """Forgets all tasks of that group."""
        self._works = deque(work for work in self._works if work.group is not group)
        self._suspects = [work for work in self._suspects if work.group is not group]
