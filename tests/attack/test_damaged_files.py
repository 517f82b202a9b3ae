"""Damaged files of every kind. What holds for each of them is said in `attack`.

The default run reads 300 of each kind, `make attack` 10,000.
"""

import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from damage import damaged
from targets import FILES, TARGETS, Target, converted_checkpoint

from videoprism_mlx.errors import EXPECTED, VideoPrismError

LONGEST_MESSAGE = 500

# Libraries warn about damage. Whether they do does not matter here.
pytestmark = pytest.mark.filterwarnings("ignore")

# For one input, on a machine that does other things too.
MOST_SECONDS = 20

# For all inputs of a kind together. An image may claim as many pixels as MAX_PIXELS.
MOST_BYTES = 400e6
MOST_IMAGE_BYTES = 1.2e9

MANY = 10_000


def attack(kind: str, target: Target, right: Any, number: int) -> str | None:
    """Reads the file with damage `number`. What is wrong with what happened; None if nothing is.

    Either the result is right, or there is an error of one short line that names the file. It takes
    seconds, and leaves nothing behind.
    """
    content = target.path.read_bytes()
    folder = target.path.parent
    before = files_in(folder)
    target.path.write_bytes(damaged(content, kind, number))
    try:
        with limited():
            result = target.read()
    except EXPECTED as error:
        fault = fault_of(error, target.path)
    except Exception as error:
        fault = f"{type(error).__name__}: {str(error)[:200]}"
    else:
        fault = None
        if target.exact and not same(result, right):
            fault = "a wrong result without an error"
    finally:
        target.path.write_bytes(content)
    if files_in(folder) != before:
        fault = f"{fault or ''} files are left behind"
    return fault and f"{kind} {number}: {fault}"


def files_in(folder: Path) -> set[Path]:
    """All files of a folder, but for the lock, which stays where an output is."""
    return {path for path in folder.rglob("*") if path.name != ".lock"}


def fault_of(error: Exception, path: Path) -> str | None:
    """What is wrong with an error."""
    message = str(error)
    if not isinstance(error, (VideoPrismError, OSError)):
        return f"a {type(error).__name__}"
    if "\n" in message or len(message) > LONGEST_MESSAGE:
        return f"{len(message)} characters or several lines: {message[:700]!r}"
    # An error about files that do not fit each other names the folder.
    named = path.name in message or str(path.parent) in message
    return None if named else f"the file is not named: {message!r}"


@contextmanager
def limited() -> Iterator[None]:
    """Ends the block with an error if it takes too long."""

    def end(*_: object) -> None:
        raise AssertionError(f"it took more than {MOST_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def same(result: Any, right: Any) -> bool:
    """Whether two results agree in every bit."""
    if isinstance(right, dict):
        return result.keys() == right.keys() and all(same(result[k], right[k]) for k in right)
    if isinstance(right, (list, tuple)):
        return len(result) == len(right) and all(map(same, result, right))
    if isinstance(right, (mx.array, np.ndarray)):
        ours, theirs = np.asarray(result), np.asarray(right)
        return ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    return bool(result == right)


def attack_all(kind: str, target: Target, count: int) -> None:
    right = target.read()
    peak, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    faults = [attack(kind, target, right, number) for number in range(count)]
    found = [fault for fault in faults if fault is not None]
    print(f"{kind}: {len(found)} of {count}, {time.monotonic() - started:.1f} s")
    assert not found, f"{len(found)} of {count}:\n" + "\n".join(found[:10])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    most = MOST_IMAGE_BYTES if kind.startswith("image") else MOST_BYTES
    assert grown * (1 if sys.platform == "darwin" else 1024) < most


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_some_damaged_files(kind: str, name: str, tmp_path: Path) -> None:
    attack_all(f"{kind} {name}", TARGETS[kind][name](tmp_path), 150 // len(TARGETS[kind]))


@pytest.mark.attack
@pytest.mark.parametrize(("kind", "name"), FILES)
def test_many_damaged_files(kind: str, name: str, tmp_path: Path) -> None:
    attack_all(f"{kind} {name}", TARGETS[kind][name](tmp_path), MANY // len(TARGETS[kind]))


@pytest.mark.attack
def test_many_conversions(tmp_path: Path) -> None:
    attack_all("conversion", converted_checkpoint(tmp_path), MANY // 10)
