"""What the scheduler tells: which workers join and leave, and which tasks they begin."""

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from videoprism_mlx.errors import WorkerError
from videoprism_mlx.workers.crew.events import Events
from videoprism_mlx.workers.tasks import TOPIC, withdraw

if TYPE_CHECKING:
    from distributed import Client, Worker

# The topic under which the scheduler says which workers come and go.
ALL = "all"


class News:
    """A connection of its own to a scheduler, in which all news come in the order of events.

    So once a worker has left, all that it had begun is known.
    """

    def __init__(self, client: "Client", events: Events):
        from distributed import Client

        scheduler: Any = client.scheduler
        self.address: str = scheduler.address
        self._events = events
        self.client = Client(
            self.address,
            security=client.security,
            direct_to_workers=client.direct_to_workers,
            set_as_default=False,
        )

    def begin(
        self,
        joined: Callable[[str], None],
        left: Callable[[str, bool], None],
        begun: Callable[[str, str], None],
    ) -> None:
        """From now on asks for `joined(address)`, `left(address, is_expected)` and `begun(key)`.

        Workers that are there have just joined.
        """
        is_heard, gone, order = threading.Event(), set[str](), threading.Lock()

        def of_workers(event: tuple[float, Mapping[str, Any]]) -> None:
            message = event[1]
            if message.get("action") == "add-worker":
                self._events.put(joined, message["worker"])
            elif message.get("action") == "remove-worker":
                with order:
                    gone.add(message["worker"])
                    self._events.put(left, message["worker"], message.get("expected", False))

        def of_tasks(event: tuple[float, Mapping[str, Any]]) -> None:
            is_heard.set()
            if "begun" in event[1]:
                self._events.put(begun, event[1]["begun"], event[1]["worker"])

        self.client.subscribe_topic(ALL, of_workers)
        self.client.subscribe_topic(TOPIC, of_tasks)
        while not is_heard.wait(0.1):  # The scheduler has not subscribed us yet.
            self.require_connection()
            self.client.log_event(TOPIC, {})
        for address in self.client.nthreads():
            with order:
                if address not in gone:  # It may have left since it was listed.
                    self._events.put(joined, address)

    def facts(self, address: str) -> tuple[str, int]:
        """The name of a worker, and its number of threads."""
        return cast(tuple[str, int], self.client.run(facts, workers=[address])[address])

    def withdraw(self, address: str, key: str) -> bool:
        """Whether a worker had not begun a task. Then it never does."""
        return bool(self.client.run(withdraw, key, workers=[address])[address])

    def require_connection(self) -> None:
        """Raises WorkerError if the scheduler is gone."""
        if self.client.status != "running":
            raise self.lost()

    def explained(self, error: BaseException) -> BaseException:
        """An error of fetching results. They come through the scheduler, which may be gone."""
        if not isinstance(error, OSError):
            return error
        lost = self.lost()
        lost.__cause__ = error
        return lost

    def lost(self) -> WorkerError:
        """The error when the scheduler is gone."""
        return WorkerError(
            f"the connection to the scheduler {self.address} was lost. What is done is kept: "
            "start the scheduler and the workers again, then the same command"
        )

    def close(self) -> None:
        """Cancels what was asked for in this connection, and closes it."""
        if self.client.status == "running":
            for topic in (ALL, TOPIC):
                self.client.unsubscribe_topic(topic)
        self.client.close(timeout=2)


def facts(dask_worker: "Worker") -> tuple[str, int]:
    """The name and the number of threads of the worker where this runs."""
    name, address = str(dask_worker.name), dask_worker.address
    if name == address:
        name = address.partition("://")[2]
    return f"worker {name}" if name.isdigit() else name, dask_worker.state.nthreads
