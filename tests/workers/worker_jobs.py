"""What the tests let workers do. Workers import this module."""

import logging
import os
import signal
import time
from pathlib import Path

from distributed import get_worker

from videoprism_mlx.errors import VideoError, WorkerError


def name() -> str:
    """The name of the worker."""
    return str(get_worker().name)


def double(number: int, seconds: float = 0.0) -> int:
    """Twice the number, after a while."""
    time.sleep(seconds)
    return 2 * number


def where(seconds: float) -> str:
    """The worker that has done it, after a while."""
    time.sleep(seconds)
    return name()


def slow_at(slow: str, seconds: float) -> str:
    """As `where`. One of the workers is ten times as slow."""
    return where(seconds * (10 if name() == slow else 1))


def die(folder: Path, times: int, seconds: float = 0.0) -> int:
    """Ends the worker, until that has happened `times` times. Each leaves a file in `folder`."""
    count = len(list(folder.iterdir()))
    if count < times:
        (folder / f"{time.time_ns()}").touch()
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def warn(number: int) -> int:
    """Says the same each time."""
    logging.getLogger("videoprism_mlx.video").warning("%s is HDR video", "a.mp4")
    return number


def fail(kind: str) -> None:
    """Raises an error: one of ours, one of the system, a mistake, or one that cannot be sent."""
    if kind == "worker":
        raise WorkerError("there is no disk")
    if kind == "video":
        raise VideoError("a.mp4 breaks off")
    if kind == "system":
        raise FileNotFoundError(2, "No such file or directory", "a.mp4")
    if kind == "mistake":
        raise TypeError("an int and a str")

    class Local(Exception):
        """No other process knows it."""

    raise Local("of here")


def unable_at(blind: str, in_list: bool = False) -> str | list[Exception]:
    """As `name`. One of the workers cannot do it."""
    time.sleep(0.01)
    if name() != blind:
        return name()
    error = WorkerError(f"there is no disk at {blind}")
    if in_list:
        return [error]
    raise error
