"""Ranks that die, fail, hang or are stopped: real processes, joined by MLX's ring."""

import signal
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rank_processes

from videoprism_mlx.ranks.watch import FAILED, LOST

# A rank that adds up numbers until it is ended, or does what the test says at its third step.
SCRIPT = """
import os, sys, time
import videoprism_mlx
import mlx.core as mx
from videoprism_mlx.errors import InputError
from videoprism_mlx.ranks import watch
from videoprism_mlx.ranks.joining import joined
watch.SILENCE, watch.BEAT, watch.TELLING = float(os.environ["SILENCE"]), 0.5, 1.2
with joined() as group:
    group.kept = "All is kept"
    for step in range(1_000_000):
        if step == 3:
            open(f"{os.environ['FOLDER']}/ready{group.rank}", "w")
ACTION
        group.sum(mx.ones(5))
"""

# Four seconds of work at one of the ranks.
LONG = """
if group.rank:
    until, product = time.monotonic() + 4, mx.random.uniform(shape=(600, 600))
    while time.monotonic() < until:
        product = product @ product * 0.003
        mx.eval(product)
"""

Go = Callable[..., list[subprocess.Popen[str]]]


@pytest.fixture
def go(tmp_path: Path) -> Iterator[Go]:
    """Starts ranks, and waits until all are at work."""
    started: list[subprocess.Popen[str]] = []

    def go(size: int, action: str = "pass", silence: float = 30) -> list[subprocess.Popen[str]]:
        commands = [["-c", SCRIPT.replace("ACTION", textwrap.indent(action, " " * 12))]] * size
        how = dict(FOLDER=tmp_path, SILENCE=silence)
        started.extend(rank_processes.start(commands, tmp_path, **how))
        until = time.monotonic() + 30
        while not all((tmp_path / f"ready{rank}").exists() for rank in range(size)):
            assert time.monotonic() < until, [each.poll() for each in started]
            time.sleep(0.02)
        return started

    yield go
    for each in started:
        each.kill()


def ended(ranks: list[subprocess.Popen[str]], seconds: float) -> tuple[list[int], list[str]]:
    """The exit codes, and what was said, of ranks that end in time."""
    found = rank_processes.finish(ranks, seconds)
    return [code for code, _, _ in found], [said.strip() for _, _, said in found]


@pytest.mark.parametrize(
    ("size", "victim"), [(2, 1), *(pytest.param(3, n, marks=pytest.mark.attack) for n in range(3))]
)
def test_a_killed_rank_ends_all_with_one_message(go: Go, size: int, victim: int) -> None:
    ranks = go(size)
    ranks[victim].kill()
    codes, said = ended(ranks, 5)
    assert codes == [-signal.SIGKILL if rank == victim else LOST for rank in range(size)]
    speaker = 1 if victim == 0 else 0
    assert said.pop(speaker).startswith(f"videoprism-mlx: rank {victim} (")
    assert set(said) == {""}  # Neither the others nor the ring say anything.


@pytest.mark.attack
def test_a_stopped_rank_is_lost_after_a_while_and_then_ends(go: Go) -> None:
    ranks = go(2, silence=3)
    ranks[1].send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    assert ranks[0].poll() is None  # A rank may be busy.
    ranks[1].send_signal(signal.SIGCONT)
    time.sleep(1)
    assert ranks[0].poll() is None and ranks[1].poll() is None
    ranks[1].send_signal(signal.SIGSTOP)
    assert ranks[0].wait(10) == LOST
    ranks[1].send_signal(signal.SIGCONT)
    codes, said = ended(ranks, 10)
    assert codes == [LOST, LOST] and said[1] == ""
    assert "rank 1 (" in said[0] and "no answer for 3 seconds" in said[0]
    assert said[0].endswith("All is kept")


@pytest.mark.attack
def test_a_long_computation_is_no_silence(go: Go) -> None:
    """Products for longer than a rank may be silent."""
    ranks = go(2, LONG, silence=3)
    time.sleep(5)
    assert [each.poll() for each in ranks] == [None, None]


def test_an_error_is_told_by_the_rank_that_has_it(go: Go) -> None:
    codes, said = ended(go(2, 'if group.rank: raise InputError("a damaged array")'), 10)
    assert codes == [FAILED, 1]
    assert said[0] == "" and said[1].splitlines()[-1].endswith("InputError: a damaged array")


@pytest.mark.attack
def test_an_error_of_all_ranks_is_told_once(go: Go) -> None:
    codes, said = ended(go(3, 'raise InputError("no such model")'), 10)
    assert codes == [1, 1, 1] and "ElsewhereError" not in said[0]
    assert all("ElsewhereError: no such model" in each for each in said[1:])


def test_interrupting_ends_all(go: Go) -> None:
    ranks = go(2)
    for each in ranks:
        each.send_signal(signal.SIGINT)
    codes, said = ended(ranks, 10)
    assert all(codes) and sum(each.endswith("\nKeyboardInterrupt") for each in said) == 1
