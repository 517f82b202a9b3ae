"""The tasks that no worker has yet, and which of them may be done now."""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator

from videoprism_mlx.workers.tasks import Task


@dataclasses.dataclass(eq=False)
class Work:
    """A task, and the names of the workers that died while they ran it."""

    task: Task
    deaths: list[str] = dataclasses.field(default_factory=list)

    @property
    def kin(self) -> object:
        """What it has in common with others: itself if that is nothing."""
        return self if self.task.kin is None else self.task.kin


class Line:
    """Tasks that wait for a worker. `running` are those that workers have.

    A task during which a worker died is a suspect: it is done when a worker has nothing else to do.
    Others of its kin wait until then.
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
        """Adds a task that a worker had: it comes first."""
        if work.deaths:
            self._suspects.append(work)
        else:
            self._works.appendleft(work)

    def take(self, running: Iterable[Work]) -> Work | None:
        """Takes the next task that is no suspect, nor of the kin of one."""
        held = {id(work.kin) for work in (*self._suspects, *running) if work.deaths}
        for number, work in enumerate(self._works):
            if id(work.kin) not in held:
                del self._works[number]
                return work
        return None

    def suspects(self, running: Iterable[Work]) -> Iterator[Work]:
        """The suspects that may be done now: one of each kin."""
        held = {id(work.kin) for work in running if work.deaths}
        for work in self._suspects:
            if id(work.kin) not in held:
                held.add(id(work.kin))
                yield work

    def remove(self, suspect: Work) -> None:
        """Takes a suspect."""
        self._suspects.remove(suspect)

    def drop(self, kin: object) -> None:
        """Forgets all tasks of that kin."""
        self._works = deque(work for work in self._works if work.kin is not kin)
        self._suspects = [work for work in self._suspects if work.kin is not kin]
