"""Kills of random workers and ranks at random times: what was broken ends as what was not.

    python -m benchmarks.machines kills --count 50

Each kill is of a run of its own: drawn clips are indexed on two workers, or a small model is tuned
on two or three ranks. The run, or the same command after it, has to end in the rows, or in the
parameters, of one that nobody has killed. Kills that were made are kept in a file, and a later run
goes on from there.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machines.lab.cluster import Cluster
from benchmarks.machines.lab.hosts import HOME, SHARED, SHARED_FIRST, Host, Lab, stop
from benchmarks.machines.throughput import draw_clips, index
from benchmarks.timing import RESULTS, save
from videoprism_mlx.models import DEMO_MODEL

STATE = RESULTS / "machines_kills.json"
COMMAND = "python -m benchmarks.machines kills --count 50"

CLIPS, PAIRS, EPOCHS = 300, 24, 3

# How many seconds after a rank was killed the others may go on.
SOON = 30.0

# How far embeddings, and parameters, may be from those of the unbroken run.
ROUNDING = 1e-5

# What is killed: a worker's process, which its nanny starts again; a worker with its nanny, which
# another one replaces later; the command that writes, which is given again; a rank of a training.
WORKER, MACHINE, WRITER, RANK = "worker", "machine", "command", "rank"
INDEXING = (WORKER, WORKER, MACHINE, WRITER)

Rows = dict[str, list[tuple[float, float, np.ndarray[Any, Any], bytes]]]


def rows_of(library: Path) -> Rows:
    """The moments of each video of a library, which is whole, by the path."""
    from videoprism_mlx.library.table import OK, Tables

    tables = Tables.open(library)
    paths = {(row["id"], row["take"]): row["path"] for row in tables.rows(f"status = '{OK}'")}
    found: Rows = {path: [] for path in paths.values()}
    for one in tables.moments.to_arrow().sort_by("number").to_pylist():
        path = paths[one["video"], one["take"]]  # A KeyError: moments that no video has.
        vector = np.asarray(one["embedding"], np.float32)
        found[path].append((one["start"], one["end"], vector, one["picture"]))
    return found


def difference(rows: Rows, right: Rows) -> float:
    """The largest difference of an embedding. Raises AssertionError if anything else differs."""
    assert rows.keys() == right.keys(), f"{len(rows)} videos, not {len(right)}"
    largest = 0.0
    for path, moments in right.items():
        assert len(rows[path]) == len(moments), path
        for one, other in zip(rows[path], moments, strict=True):
            assert one[:2] == other[:2] and one[3] == other[3], path
            largest = max(largest, float(np.abs(one[2] - other[2]).max()))
    return largest


def parameters_of(directory: Path) -> dict[str, Any]:
    """The parameters that a training has written."""
    import mlx.core as mx

    loaded: dict[str, Any] = {}
    for path in sorted(directory.glob("*.safetensors")):
        arrays = mx.load(str(path))
        assert isinstance(arrays, dict)
        loaded |= {name: np.array(array) for name, array in arrays.items()}
    assert loaded, f"{directory} has no parameters"
    return loaded


class Kills:
    """The hosts and unbroken runs, on which runs are killed."""

    def __init__(self, lab: Lab, draw: random.Random):
        self.lab, self.draw, self.first = lab, draw, lab.hosts[0]
        self.numbers = 0

    def fresh(self, name: str) -> str:
        """A name that no other run has."""
        self.numbers += 1
        return f"{name}-{self.numbers}"

    def start(self, command: list[str]) -> "subprocess.Popen[str]":
        """Starts a command on the first host."""
        return self.first.start(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def finish(self, process: "subprocess.Popen[str]", seconds: float = 120) -> tuple[int, str]:
        """Waits for a command: its exit code and what it printed."""
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            stop(process)
            raise RuntimeError(f"a command hangs: {process.args!r}") from None
        return process.returncode, said

    def whole(self, command: list[str]) -> float:
        """Runs a command that nobody kills. Its seconds."""
        started = time.perf_counter()
        code, said = self.finish(self.start(command))
        if code:
            raise RuntimeError(f"{' '.join(command)}: {said[-3000:]}")
        return time.perf_counter() - started


class Indexing(Kills):
    """Clips that are indexed on two workers."""

    def __init__(self, lab: Lab, draw: random.Random):
        super().__init__(lab, draw)
        draw_clips(lab.disk / "clips", CLIPS)
        self.cluster = Cluster(lab)
        for host in lab.hosts[1:]:
            self.cluster.add(host)
        self.cluster.wait()
        alone = ["videoprism-mlx", "index", f"{SHARED_FIRST}/clips", "-q"]
        self.whole([*alone, "--library", f"{HOME}/right", "--model", DEMO_MODEL])
        self.right = rows_of(self.first.path(f"{HOME}/right"))
        assert len(self.right) == CLIPS
        self.whole(self.command("warm"))
        self.seconds = self.whole(self.command("unbroken"))
        self.check("unbroken")

    def command(self, library: str) -> list[str]:
        return index(self.cluster, "clips", library, DEMO_MODEL)

    def check(self, library: str) -> float:
        """The difference from the rows that one machine wrote. The library is then removed."""
        path = self.first.path(f"{HOME}/{library}")
        found = difference(rows_of(path), self.right)
        shutil.rmtree(path)
        return found

    def kill(self, kind: str) -> dict[str, Any]:
        """Kills one while clips are indexed."""
        library, host = self.fresh("library"), self.draw.choice(self.lab.hosts[1:])
        after = self.draw.uniform(0.2, 0.95) * self.seconds
        started = time.perf_counter()
        process = self.start(self.command(library))
        time.sleep(after)
        is_late = process.poll() is not None
        if kind == WORKER:
            for pid in host.processes("spawn_main"):
                os.kill(pid, signal.SIGKILL)
        elif kind == MACHINE:
            self.cluster.stop(host.name)
            time.sleep(self.draw.uniform(0, 2))
            self.cluster.add(host)
        else:
            stop(process)
        code, said = self.finish(process)
        if kind == WRITER:
            code, said = self.finish(self.start(self.command(library)))
        assert code == 0, said[-3000:]
        seconds = time.perf_counter() - started
        if is_late:
            self.seconds = min(self.seconds, after)
        name = self.first.name if kind == WRITER else host.name
        figures = {"victim": name, "after": after, "was_over": is_late, "seconds": seconds}
        return figures | {"unbroken_seconds": self.seconds, "difference": self.check(library)}

    def close(self) -> None:
        self.cluster.close()


class Training(Kills):
    """A small model that is tuned on ranks."""

    def __init__(self, lab: Lab, draw: random.Random, ranks: int):
        super().__init__(lab, draw)
        self.ranks = ranks
        folder = lab.disk / "pairs"
        from videoprism_mlx.demo.scenes import draw_scenes
        from videoprism_mlx.demo.world import write_world

        write_world(folder, list(draw_scenes(PAIRS, 1)), 1)
        self.hostfile = lab.hostfile()
        # Every host has the videos under the same path.
        for host in lab.hosts[1:]:
            host.run(["mkdir", "-p", str(Path(SHARED_FIRST).parent)])
            host.run(["ln", "-sfn", SHARED, SHARED_FIRST])
        self.whole(self.command("warm"))
        self.seconds = self.whole(self.command("right"))
        self.right = parameters_of(self.first.path(f"{HOME}/right"))

    def command(self, output: str) -> list[str]:
        return [
            *("mlx.launch", "--hostfile", self.hostfile, "--python", sys.executable, "--"),
            *("-m", "videoprism_mlx", "train", "retrieval", "--model", DEMO_MODEL),
            *("--data", f"{SHARED_FIRST}/pairs/captions.csv", "-o", f"{HOME}/{output}"),
            *("--epochs", str(EPOCHS), "--batch-size", "12", "--save-every", "1", "-q"),
        ]

    def victims(self) -> dict[int, Host]:
        """The ranks that run now."""
        return {
            pid: host
            for host in self.lab.hosts
            for pid, line in host.processes("train retrieval").items()
            if line.startswith(f"{sys.executable} -m videoprism_mlx ")
        }

    def kill(self, _: str) -> dict[str, Any]:
        """Kills a rank, waits for the end of all, and gives the same command again."""
        output, after = self.fresh("out"), self.draw.uniform(0.1, 0.95) * self.seconds
        started = time.perf_counter()
        process = self.start(self.command(output))
        time.sleep(after)
        while not (victims := self.victims()) and process.poll() is None:
            time.sleep(0.05)  # The ranks are about to start.
        if victims:
            victim = self.draw.choice(sorted(victims))
            name = victims[victim].name
            os.kill(victim, signal.SIGKILL)
        else:
            name = ""
        killed = time.perf_counter()
        _, said = self.finish(process)
        ended = time.perf_counter() - killed
        while self.victims():
            late = time.perf_counter() - killed
            assert late < SOON, f"killed on {name} after {after:.2f} s: {self.victims()} go on"
            time.sleep(0.05)
        gone = time.perf_counter() - killed
        code, again = self.finish(self.start(self.command(output)))
        assert code == 0, again[-3000:]
        if not victims:
            self.seconds = min(self.seconds, after)
        figures = {"ranks": self.ranks, "victim": name, "after": after, "was_over": not victims}
        figures |= {
            "ended_seconds": ended,
            "gone_seconds": gone,
            "seconds": time.perf_counter() - started,
        }
        figures |= {"unbroken_seconds": self.seconds, "told": " was lost: " in said}
        return figures | {"difference": self.check(output)}

    def check(self, output: str) -> float:
        """The largest difference of a parameter from those of the unbroken run."""
        path = self.first.path(f"{HOME}/{output}")
        found = parameters_of(path)
        assert found.keys() == self.right.keys()
        shutil.rmtree(path)
        return max(float(np.abs(found[name] - self.right[name]).max()) for name in found)

    def close(self) -> None:
        pass


def plan(count: int) -> list[tuple[str, int]]:
    """What is killed, and of how many hosts: half of it indexing, half of it training."""
    half = count - count // 2
    indexing = [(INDEXING[number % len(INDEXING)], 3) for number in range(half)]
    training = [(RANK, 2 if number % 5 else 3) for number in range(count - half)]
    return indexing + training


def kept(path: Path) -> list[dict[str, Any]]:
    """The kills that were made so far."""
    if not path.is_file():
        return []
    kills: list[dict[str, Any]] = json.loads(path.read_text())["kills"]
    return kills


def add(commands: Any) -> None:
    """Declares the options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "kills", help="kills of workers and ranks"
    )
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--only", choices=["index", "train"], help="a part of them")
    parser.add_argument("--anew", action="store_true", help="forget the kills of earlier runs")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many minutes")
    parser.add_argument("--seed", type=int, default=None)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    kills = [] if options.anew else kept(STATE)
    until = time.monotonic() + 60 * options.minutes
    wanted = plan(options.count)
    for kill in kills:
        if (step := (kill["kind"], kill["hosts"])) in wanted:
            wanted.remove(step)
    is_training = {"index": False, "train": True}.get(options.only or "")
    groups: dict[tuple[bool, int], list[str]] = {}
    for kind, hosts in wanted:
        if is_training is None or is_training == (kind == RANK):
            groups.setdefault((kind == RANK, hosts), []).append(kind)
    for (trains, hosts), kinds in groups.items():
        if time.monotonic() > until:
            break
        draw = random.Random(len(kills) if options.seed is None else options.seed)
        with Lab(hosts) as lab:
            one = Training(lab, draw, hosts) if trains else Indexing(lab, draw)
            print(f"an unbroken run takes {one.seconds:.1f} s", flush=True)
            for kind in kinds:
                if time.monotonic() > until:
                    break
                made = attempt(one.kill, kind, hosts)
                while made.get("was_over"):  # Nothing was killed.
                    made = attempt(one.kill, kind, hosts)
                kills.append(made)
                keep(kills)
            one.close()
    bad = [kill for kill in kills if not kill["is_right"]]
    print(f"{len(kills)} kills, {len(kills) - len(bad)} of which ended as an unbroken run")
    return 1 if bad or len(kills) < options.count else 0


def attempt(kill: Callable[[str], dict[str, Any]], kind: str, hosts: int) -> dict[str, Any]:
    """Makes a kill. What became of it is printed."""
    figures: dict[str, Any] = {"kind": kind, "hosts": hosts}
    try:
        figures |= kill(kind)
        figures["is_right"] = figures["difference"] <= ROUNDING
    except (AssertionError, RuntimeError, KeyError) as error:
        figures |= {"is_right": False, "error": f"{type(error).__name__}: {error}"}
    shown = {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in figures.items()
    }
    if "difference" in figures:
        shown["difference"] = figures["difference"]
    print(json.dumps(shown), flush=True)
    return figures


def keep(kills: list[dict[str, Any]]) -> None:
    """Writes the kills, and what can be said of all."""
    right = [kill for kill in kills if kill["is_right"]]
    figures: dict[str, Any] = {
        "count": len(kills),
        "right": len(right),
        "largest_difference": max((kill["difference"] for kill in right), default=0.0),
        "kinds": {
            kind: sum(kill["kind"] == kind for kill in kills)
            for kind in (WORKER, MACHINE, WRITER, RANK)
        },
        "slowest_end_of_ranks": max((kill.get("gone_seconds", 0.0) for kill in kills), default=0),
        "kills": kills,
    }
    with contextlib.redirect_stdout(io.StringIO()):  # It is written after each kill.
        save("machines_kills", COMMAND, figures)
