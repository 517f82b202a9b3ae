"""Two workers against one: the same videos, in turns, in one run.

    python -m benchmarks.machines throughput [--models base demo] [--rounds 2] [--save]

Each worker has one core, and nothing but it is pinned there: the scheduler and the command that
writes take their share of the same cores. On machines of their own they would not.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machines.lab.cluster import Cluster, timed
from benchmarks.machines.lab.hosts import HOME, SHARED, SHARED_FIRST, Host, Lab
from benchmarks.timing import save
from videoprism_mlx.models import DEMO_MODEL


class Work(NamedTuple):
    """A model, and how many clips are indexed with it."""

    model: str
    clips: int


# A clip is one moment. Of a base model, a core makes one in about 12 seconds.
WORK = {"base": Work("videoprism_lvt_public_v1_base", 12), "demo": Work(DEMO_MODEL, 300)}

# What is aimed at where the model's work dominates.
AIM = 1.8

# Without Dask: the seconds of each of some windows.
WINDOWS = """
import sys, time
import videoprism_mlx as vp
import mlx.core as mx
model = vp.load_model(sys.argv[1])
clip = mx.random.uniform(shape=(1, int(sys.argv[2]), 288, 288, 3), key=mx.random.key(0))
for number in range(5):
    mx.eval(clip, model(clip, None, None)[0])
    if number == 0:  # It compiles.
        started = time.perf_counter()
print((time.perf_counter() - started) / 4)
"""


def draw_clips(folder: Path, count: int) -> None:
    """Writes drawn clips of two seconds into a new folder."""
    from videoprism_mlx.demo.scenes import draw_scenes
    from videoprism_mlx.demo.world import write_world

    write_world(folder, list(draw_scenes(count, 0)), 0)
    (folder / "captions.csv").unlink()


def draw_model(name: str, folder: Path) -> None:
    """Writes a model directory of that configuration, with random weights."""
    import mlx.core as mx

    from benchmarks.work import model_of
    from videoprism_mlx import save_model

    model = model_of(name)
    mx.eval(model.parameters())
    save_model(model, folder)


def index(cluster: Cluster, folder: str, library: str, model: str) -> list[str]:
    """The command that indexes a folder of the shared disk, or of this host, on the workers."""
    if folder.startswith("/"):
        where = [folder, "--send"]
    else:
        where = [f"{SHARED_FIRST}/{folder}", "--map", f"{SHARED_FIRST}={SHARED}"]
    words = ["videoprism-mlx", "index", *where, "--library", f"{HOME}/{library}"]
    return [*words, "--model", model, "--scheduler", cluster.address, "-q"]


def without_dask(lab: Lab, model: str, frames: int) -> dict[str, float]:
    """Seconds of a window in one process, and in two at once, each on a core: what cores allow."""

    def seconds(hosts: list[Host]) -> float:
        words = [sys.executable, "-c", WINDOWS, model, str(frames)]
        running = [host.start(words, stdout=subprocess.PIPE) for host in hosts]
        return statistics.mean(float(each.communicate()[0]) for each in running)

    one, two = seconds(lab.hosts[1:2]), seconds(lab.hosts[1:])
    return {"one": one, "two": two, "ratio": 2 * one / two}


def measure(lab: Lab, name: str, rounds: int) -> dict[str, Any]:
    """Indexes the clips with one worker and with two, in turns."""
    work = WORK[name]
    model, direct = work.model, None
    draw_clips(lab.disk / name, work.clips)
    draw_clips(lab.disk / f"{name}-warm", 2)
    if work.model != DEMO_MODEL:
        draw_model(work.model, lab.disk / f"model-{name}")
        model = f"{SHARED_FIRST}/model-{name}"
        direct = without_dask(lab, f"{SHARED}/model-{name}", 16)
        print(f"{name}, without Dask: {json.dumps(direct)}", flush=True)
    clusters = {"one": Cluster(lab, 8786), "two": Cluster(lab, 8796)}
    clusters["one"].add(lab.hosts[1])
    for host in lab.hosts[1:]:
        clusters["two"].add(host)
    for cluster in clusters.values():
        cluster.wait()
        timed(lab, index(cluster, f"{name}-warm", f"{name}-warm", model))
    turns: dict[str, list[dict[str, float]]] = {"one": [], "two": []}
    for turn in range(rounds):
        for which, cluster in clusters.items():
            before = cluster.used()
            library = f"{name}-{which}-{turn}"
            seconds, worked = timed(lab, index(cluster, name, library, model))
            after = cluster.used()
            figures = {key: after[key].since(before[key]) for key in after}
            moments = moments_in(lab.hosts[0].path(f"{HOME}/{library}"))
            found = {"seconds": seconds, "moments": moments, "client": worked, **figures}
            turns[which].append(found)
            print(f"{name}, {which}: {json.dumps(turns[which][-1])}", flush=True)
    for cluster in clusters.values():
        cluster.close()
    return summary(work, turns) | ({"without_dask": direct} if direct else {})


def moments_in(library: Path) -> int:
    """How many moments a library has."""
    from videoprism_mlx.library.table import Tables

    return int(Tables.open(library).moments.count_rows())


def summary(work: Work, turns: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The ratio of each turn, and where the cores went."""
    pairs = list(zip(turns["one"], turns["two"], strict=True))
    ratios = [one["seconds"] / two["seconds"] for one, two in pairs]
    seconds = statistics.median(two["seconds"] for two in turns["two"])
    beside = statistics.median(two["client"] + two["scheduler"] for two in turns["two"])
    # With two workers, what client and scheduler take of the two cores is lost to the workers;
    # with one, they run on the other core.
    return {
        **work._asdict(),
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        "moments_a_second": {
            which: statistics.median(one["moments"] / one["seconds"] for one in each)
            for which, each in turns.items()
        },
        "share_beside_workers": beside / (2 * seconds),
        "turns": turns,
    }


def add(commands: Any) -> None:
    """Declares the options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "throughput", help="two workers against one"
    )
    parser.add_argument("--models", nargs="+", default=list(WORK), choices=list(WORK))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--save", action="store_true", help="keep the figures")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    figures: dict[str, Any] = {"load": os.getloadavg()[0]}
    for name in options.models:
        with Lab(3) as lab:
            figures[name] = measure(lab, name, options.rounds)
        print(f"{name}: {figures[name]['ratio']}", flush=True)
    if options.save:
        save("machines_throughput", "python -m benchmarks.machines throughput --save", figures)
    return 0 if all(figures[name]["ratio"]["median"] >= AIM for name in options.models) else 1
