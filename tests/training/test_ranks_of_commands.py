"""`train` and `evaluate` as several processes, of which some are killed."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rank_processes
from safetensors.numpy import load_file

from videoprism_mlx.cli import main, run
from videoprism_mlx.ranks import joining
from videoprism_mlx.ranks.group import Group
from videoprism_mlx.ranks.launched import launched_rank
from videoprism_mlx.ranks.watch import FAILED, LOST

pytest_plugins = ["classifier_fixtures", "retrieval_fixtures"]

Command = Callable[..., list[object]]

SETTINGS = ("--batch-size", 4, "--learning-rate", 0.001, "--save-every", 1, "--at-once", 2)


@pytest.fixture
def command(searchable: Path, pairs: Path) -> Command:
    """The words of a command that tunes the small model."""

    def command(output: Path, epochs: int) -> list[object]:
        words = ["train", "retrieval", "--model", searchable, "--data", pairs, "--val", pairs]
        return ["-m", "videoprism_mlx", *words, "-o", output, "--epochs", epochs, *SETTINGS]

    return command


def lines_of(output: Path) -> int:
    """How many epochs of a run are over."""
    path = output / "training" / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def wait_for_epochs(output: Path, epochs: int) -> None:
    until = time.monotonic() + 60
    while lines_of(output) < epochs:
        assert time.monotonic() < until
        time.sleep(0.01)


def require_near(output: Path, expected: Path) -> None:
    there = load_file(expected / "model.safetensors")
    for name, array in load_file(output / "model.safetensors").items():
        gap = np.linalg.norm(array - there[name])
        assert gap <= 3e-3 * np.linalg.norm(there[name]) + 1e-5, name


def test_a_killed_run_goes_on_with_another_number_of_ranks(
    command: Command, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ranks = rank_processes.start([command(parts, 4)] * 2, tmp_path)
    wait_for_epochs(parts, 1)
    ranks[1].kill()
    (code, _, said), _ = rank_processes.finish(ranks, 10)
    assert code == LOST
    assert said.splitlines()[-1].startswith("videoprism-mlx: rank 1 (")
    assert said.splitlines()[-1].endswith(
        f"{parts}/training keeps the last state: the same command goes on from it, also with "
        "another number of ranks"
    )
    assert main(list(map(str, command(whole, 4)[2:]))) == 0
    assert main(list(map(str, command(parts, 4)[2:]))) == 0
    assert lines_of(parts) == 4
    require_near(parts, whole)


@pytest.mark.attack
def test_a_damaged_array_of_one_rank_is_its_error(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "cache0"))
    assert main(list(map(str, command(tmp_path / "first", 1)[2:]))) == 0
    shutil.copytree(tmp_path / "cache0", tmp_path / "cache1")
    for path in (tmp_path / "cache1").rglob("*.npy"):
        path.write_bytes(b"damaged")
    ranks = rank_processes.start([command(tmp_path / "out", 1)] * 2, tmp_path)
    (code, out, said), other = rank_processes.finish(ranks)
    assert (code, out) == (FAILED, "") and "damaged" not in said
    assert other[0] == 2 and other[2].startswith("videoprism-mlx: rank 1 (")
    assert str(tmp_path / "cache1") in other[2] and len(other[2].splitlines()) == 1


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, None),
        ({"MLX_RANK": "1", "MLX_HOSTFILE": "full"}, 1),
        ({"MLX_RANK": "0", "MLX_HOSTFILE": "empty"}, None),
        ({"MLX_RANK": "0", "MLX_WORLD_SIZE": "1"}, None),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, 2),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, None),
    ],
)
def test_who_was_started_by_a_launcher(
    variables: dict[str, str], rank: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").write_text('[["127.0.0.1:1"], ["127.0.0.1:2"]]\n')
    (tmp_path / "empty").write_text("\n")
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched_rank() == rank


@pytest.mark.parametrize("words", [["embed", "a.mp4", "-o", "out.npz"], ["info"], ["search", "x"]])
def test_other_commands_do_not_start_as_ranks(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLX_RANK", "0")
    assert main(words) == 2
    said = capsys.readouterr()
    assert f"{words[0]} was started as several ranks" in said.err and "--scheduler" in said.err
    monkeypatch.setenv("MLX_RANK", "1")
    assert main(words) == 2
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("rank", "code"), [(0, 1), (1, 0)])
def test_only_the_first_rank_exits_as_the_command_does(
    rank: int, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher ends all ranks when one exits with 1, as with videos that were left out."""

    def command(options: Namespace) -> int:
        print("the result")
        return 1

    monkeypatch.setenv("MLX_RANK", str(rank))
    monkeypatch.setattr(joining, "joined", lambda: nullcontext(Group(rank, 2)))
    assert run(Namespace(command="train", run=command)) == code
    assert capsys.readouterr().out == ("" if rank else "the result\n")


@pytest.mark.attack
@pytest.mark.parametrize("seed", range(12))
def test_killed_at_random(command: Command, tmp_path: Path, seed: int) -> None:
    """Killed at any time, with other numbers of ranks each time, a run ends as an unbroken one."""
    drawn = random.Random(seed)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for _ in range(4):
        size = drawn.choice((2, 3))
        ranks = rank_processes.start([command(parts, 12)] * size, tmp_path)
        until = time.monotonic() + drawn.uniform(0.5, 6)
        while time.monotonic() < until and all(each.poll() is None for each in ranks):
            time.sleep(0.01)
        victim = drawn.randrange(size)
        ranks[victim].kill()
        others = [each for rank, each in enumerate(ranks) if rank != victim]
        until = time.monotonic() + 10
        while time.monotonic() < until and any(each.poll() is None for each in others):
            time.sleep(0.01)
        waiting = [each for each in others if each.poll() is None]
        for each in waiting:  # As the launcher does: the victim has not joined.
            each.terminate()
        found = rank_processes.finish(ranks, 10)
        left = [each for rank, each in enumerate(found) if rank != victim]
        assert sum("was lost" in said for _, _, said in left) <= 1, found
        assert not any("Traceback" in said or "[ring]" in said for _, _, said in left), found
        # One that the victim had joined hears of it; another waits for it until it is stopped.
        early = "videoprism-mlx: a rank has ended before all joined; start them again\n"
        stopped = ("", "videoprism-mlx: stopped\n", early)
        assert not waiting or all(said in stopped for _, _, said in left), found
    assert main(list(map(str, command(parts, 12)[2:]))) == 0
    assert main(list(map(str, command(whole, 12)[2:]))) == 0
    assert lines_of(parts) == 12
    require_near(parts, whole)


@pytest.mark.attack
def test_the_launcher_itself(command: Command, tmp_path: Path) -> None:
    launcher = Path(sys.prefix) / "bin" / "mlx.launch"
    words: Any = [launcher] if launcher.exists() else [
        sys.executable, "-c", "from mlx._distributed_utils.launch import main; main()"
    ]  # fmt: skip
    (port,) = rank_processes.free_ports(1)
    line = [*words, "-n", 2, "-p", port, "--python", sys.executable, *command(tmp_path / "out", 2)]
    done = subprocess.run(
        [str(word) for word in line],
        env={**os.environ, "VIDEOPRISM_MLX_CACHE": str(tmp_path / "cache")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.count("is the best") == 1, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["epoch"] in (1, 2)
