"""Tasks of Dask's workers, and what runs them there."""

import dataclasses
import logging
import pickle
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from videoprism_mlx.errors import WorkerError, excerpt

logger = logging.getLogger("videoprism_mlx")

# The topic under which workers say at the scheduler what they begin.
TOPIC = "videoprism_mlx"


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Something to do on a worker: `function(*arguments)`.

    `key` is its name in messages, such as the path of a video. `about` is for the caller, and stays
    in this process. Without a function, the task is done as soon as its turn comes.

    Tasks of one `group`, such as the spans of a video, wait while it is found out whether one of
    them ends workers. If it does, the others are dropped. If a worker dies during a task with
    `parts`, such as a batch of videos, these are done instead, and the death counts for each.
    """

    key: str
    function: Callable[..., Any] | None
    arguments: tuple[Any, ...] = ()
    about: Any = None
    group: Any = None
    parts: tuple["Task", ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Done:
    """What became of a task: a value or, if it failed, an error. `worker` is the worker's name."""

    task: Task
    value: Any = None
    error: Exception | None = None
    worker: str = ""
    seconds: float = 0.0


class Traceback(Exception):
    """The traceback of an error on a worker, which is shown as the cause of that error."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a worker sends back: a value, or an error with its traceback; and its warnings."""

    value: Any = None
    error: Exception | None = None
    trace: str = ""
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def unable(self) -> WorkerError | None:
        """The error of the worker, as opposed to one of its task. A list may hold it."""
        errors = (self.error, *(self.value if isinstance(self.value, list) else ()))
        return next((one for one in errors if isinstance(one, WorkerError)), None)

    def done(self, task: Task, worker: str, said: deque[str]) -> Done:
        """What became of a task. Warnings that were not `said` before are logged here."""
        for warning in self.warnings:
            if warning not in said:
                said.append(warning)
                logger.warning("%s", warning)
        if self.error is not None:
            self.error.__cause__ = Traceback(self.trace)
        return Done(task, self.value, self.error, worker, self.seconds)


# Of this worker: the tasks that it runs, and those that others have taken over from it.
_running: set[str] = set()
_withdrawn: set[str] = set()
_deciding = threading.Lock()


def withdraw(key: str) -> bool:
    """On a worker: whether a task had not begun. Then it never does."""
    with _deciding:
        if key not in _running:
            _withdrawn.add(key)
        return key in _withdrawn


def perform(key: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Answer:
    """On a worker: runs a task. The scheduler is told first, and has confirmed it.

    So if the worker dies from then on, the scheduler knows that the task had begun.
    """
    with _deciding:
        if key in _withdrawn:
            _withdrawn.discard(key)
            return Answer()
        _running.add(key)
    try:
        return _performed(key, function, arguments)
    finally:
        _running.discard(key)


def _performed(key: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Answer:
    from distributed import get_worker
    from distributed.utils import sync

    worker = get_worker()
    begun = {"begun": key, "worker": worker.address}
    sync(worker.loop, worker.scheduler.log_event, topic=TOPIC, msg=begun)
    started = time.monotonic()
    value, error, trace, warnings = None, None, "", Warnings()
    logger.addHandler(warnings)
    try:
        value = function(*arguments)
    except Exception as caught:
        trace = traceback.format_exc()
        error = portable(caught)
    finally:
        logger.removeHandler(warnings)
    return Answer(value, error, trace, time.monotonic() - started, tuple(warnings.texts))


class Warnings(logging.Handler):
    """Keeps the warnings of this thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a warning."""
        if threading.get_ident() == self._thread:
            self.texts.append(record.getMessage())


def portable(error: Exception) -> Exception:
    """The error, or one with the same text if other processes cannot read it.

    What led to it is left out, as Dask would send that too.
    """
    error.__cause__ = error.__context__ = None
    error = error.with_traceback(None)
    try:
        copied = pickle.loads(pickle.dumps(error))
        is_same = type(copied) is type(error) and str(copied) == str(error)
    except Exception:
        is_same = False
    return error if is_same else RuntimeError(f"{type(error).__name__}: {excerpt(error, 300)}")
