"""What the scheduler, the writer and the search index can take.

python -m benchmarks.machines capacity [--tasks 4000] [--save]
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks.library import PICTURE
from benchmarks.machines import writing
from benchmarks.machines.lab.cluster import Cluster
from benchmarks.machines.lab.hosts import Lab
from benchmarks.timing import RESULTS, save
from videoprism_mlx.library.neighbours import GROUP, SAMPLES

# Bytes that a task returns: nothing, and the moments of a span of five minutes with their pictures.
SPAN = "75 moments"
SIZES = {"empty": 0, SPAN: 75 * (4 * writing.WIDTH + PICTURE)}

# How often a moment is written again while its library grows, as small files are joined, and the
# library of `benchmarks.library` with whose figure that is reckoned.
REWRITES, JOINED = 2, 200_000


def through(count: int, size: int) -> dict[str, Any]:
    """Lets tasks pass through a scheduler with two workers."""
    with Lab(3) as lab:
        cluster = Cluster(lab)
        for host in lab.hosts[1:]:
            cluster.add(host)
        cluster.wait()
        words = [sys.executable, "-m", "benchmarks.machines.drive"]
        words += [cluster.address, str(count), str(size)]
        before, lines = cluster.used(), []
        driver = lab.hosts[0].start(words, core=lab.cores, stdout=subprocess.PIPE)
        assert driver.stdout is not None
        for line in driver.stdout:
            if line.startswith("{"):
                memory = cluster.used()["scheduler"].memory
                lines.append(json.loads(line) | {"scheduler_memory": memory})
        if driver.wait():
            raise RuntimeError("the tasks did not pass; the error is above")
        after = cluster.used()
        cluster.close()
    last, half = lines[-1], lines[len(lines) // 2]
    return {
        "tasks": count,
        "bytes": size,
        "tasks_a_second": count / last["seconds"],
        "scheduler_core_seconds": after["scheduler"].since(before["scheduler"]) / count,
        "client_core_seconds": last["core_seconds"] / count,
        "worker_core_seconds": sum(after[name].since(before[name]) for name in cluster_names(after))
        / count,
        "client_memory_mb": [each["memory"] / 1e6 for each in (lines[0], half, last)],
        "scheduler_memory_mb": [each["scheduler_memory"] / 1e6 for each in (lines[0], half, last)],
    }


def cluster_names(used: dict[str, Any]) -> list[str]:
    """The names of the workers."""
    return [name for name in used if name != "scheduler"]


def rates(figures: dict[str, Any]) -> dict[str, float]:
    """What the simulation needs, of these figures and of those of `benchmarks.library`.

    The memory of building an index is reckoned: LanceDB holds the samples of all groups.
    """
    small, large = (figures["write"][name] for name in ("1", "900"))
    moment = (large["seconds_a_video"] - small["seconds_a_video"]) / 899
    tasks = figures["tasks"][SPAN]
    index = max(figures["index"], key=lambda one: one["moments"])
    library = json.loads((RESULTS / "library.json").read_text())["libraries"]
    # The largest library that was not filled beside much other work.
    joined = next(one for one in library if one["moments"] == JOINED)
    return {
        "task": tasks["scheduler_core_seconds"],
        "result": tasks["client_core_seconds"],
        "video": small["seconds_a_video"] - moment,
        "moment": moment,
        "compact": REWRITES * joined["compact_seconds"] / JOINED,
        "index": index["core_seconds"] / index["moments"],
        "index_memory": 4 * writing.WIDTH * SAMPLES / GROUP,
        "row_memory": figures["rows"]["bytes_a_video"],
    }


def add(commands: Any) -> None:
    """Declares the options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "capacity", help="what scheduler, writer and index can take"
    )
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--index", type=int, nargs="+", default=[100_000, 400_000])
    parser.add_argument("--save", action="store_true", help="keep the figures")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    figures: dict[str, Any] = {"tasks": {}}
    for name, size in SIZES.items():
        count = options.tasks if size == 0 else options.tasks // 10
        figures["tasks"][name] = through(count, size)
        print(name, json.dumps(figures["tasks"][name]), flush=True)
    figures["write"] = {
        "1": writing.step("write", 300, 1),
        "40": writing.step("write", 100, 40),
        "900": writing.step("write", 60, 900),
    }
    print(json.dumps(figures["write"]), flush=True)
    figures["rows"] = writing.step("rows", 100_000)
    print(json.dumps(figures["rows"]), flush=True)
    figures["index"] = [writing.step("index", moments) for moments in options.index]
    print(json.dumps(figures["index"]), flush=True)
    figures["rates"] = rates(figures)
    print(json.dumps(figures["rates"], indent=2))
    if options.save:
        save("machines_capacity", "python -m benchmarks.machines capacity --save", figures)
    return 0
