"""Tasks of indexing in which something goes wrong on the worker. Workers import this module."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import VideoError
from videoprism_mlx.library.indexing import machines

# What is in the name of a video during which its worker dies.
DEADLY = "deadly"


def encode_or_die(job: Any, path: str, *more: Any) -> Any:
    """Kills the worker if the name of the video says so."""
    if DEADLY in Path(path).name:
        die(path)
    return machines.encode(job, path, *more)


def encode_and_change(job: Any, path: str, *more: Any) -> Any:
    """Encodes a video which something writes to meanwhile."""
    encoded = machines.encode(job, path, *more)
    os.utime(path, ns=(time.time_ns(), time.time_ns()))
    return encoded


def fail_span(*_: Any) -> Any:
    """A span that cannot be read on this worker."""
    raise VideoError("a frame that cannot be decoded after a seek")


def die_in_span(_: Any, path: str, *__: Any) -> Any:
    """A span during which the worker dies."""
    die(path)


def die(path: str) -> None:
    """Kills this worker, and counts that in a file beside the video."""
    with open(f"{path}.deaths", "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def slowly(job: Any, path: str, *more: Any) -> Any:
    """As `encode`, after a while."""
    time.sleep(0.05)
    return machines.encode(job, path, *more)
