"""Indexing and training over a slow link, beside the same over a cable.

python -m benchmarks.machines slow [--save]
"""

import argparse
import json
import random
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.machines.kills import Training
from benchmarks.machines.lab.cluster import Cluster, timed
from benchmarks.machines.lab.hosts import HOME, SLOW, Host, Lab, Link
from benchmarks.machines.throughput import draw_clips, index
from benchmarks.timing import save
from videoprism_mlx.models import DEMO_MODEL

CLIPS = 300

# How much the ranks add up at once, in numbers, and how often.
NUMBERS, TIMES = 4_000_000, 5
SUMS = f"""
import json, time
import mlx.core as mx
group = mx.distributed.init()
vector = mx.ones({NUMBERS})
mx.eval(vector, mx.distributed.all_sum(mx.ones(1)))
seconds = []
for _ in range({TIMES}):
    started = time.perf_counter()
    mx.eval(mx.distributed.all_sum(vector))
    seconds.append(time.perf_counter() - started)
if group.rank() == 0:
    print("seconds", json.dumps(seconds), flush=True)
"""


def passed(host: Host) -> int:
    """The bytes that a host has sent and received."""
    for line in Path(f"/proc/{host.pid}/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "eth0":
            numbers = [int(one) for one in counts.split()]
            return numbers[0] + numbers[8]
    return 0


def sending(link: Link | None) -> dict[str, float]:
    """Indexes clips on two workers, to which they are sent."""
    return indexing(link, is_shared=False)


def indexing(link: Link | None, is_shared: bool = True) -> dict[str, float]:
    """Indexes clips on two workers. The shared disk, if there is one, is not behind the link."""
    with Lab(3, link, is_shared) as lab:
        clips, warm = ("clips", "warm") if is_shared else (f"{HOME}/clips", f"{HOME}/warm")
        folder = lab.disk if is_shared else lab.hosts[0].path(HOME)
        draw_clips(folder / "clips", CLIPS)
        draw_clips(folder / "warm", 4)
        cluster = Cluster(lab)
        for host in lab.hosts[1:]:
            cluster.add(host)
        cluster.wait()
        timed(lab, index(cluster, warm, "warmed", DEMO_MODEL))
        before = passed(lab.hosts[0])
        seconds, _ = timed(lab, index(cluster, clips, "library", DEMO_MODEL))
        sent = passed(lab.hosts[0]) - before
        cluster.close()
    return {"seconds": seconds, "clips_a_second": CLIPS / seconds, "bytes_a_clip": sent / CLIPS}


def training(link: Link | None) -> dict[str, float]:
    """Tunes the small model on two ranks."""
    with Lab(2, link) as lab:
        one = Training(lab, random.Random(0), 2)
        before = passed(lab.hosts[1])
        seconds = one.whole(one.command("again"))
        return {"seconds": seconds, "megabytes": (passed(lab.hosts[1]) - before) / 1e6}


def summing(link: Link | None) -> dict[str, float]:
    """Adds up vectors of two ranks, as each step of a training does."""
    with Lab(2, link) as lab:
        script = lab.hosts[0].path("/Users/me/sums.py")
        for host in lab.hosts:
            host.path("/Users/me/sums.py").write_text(SUMS)
        assert script.exists()
        command = ["mlx.launch", "--hostfile", lab.hostfile(), "--python", sys.executable]
        done = lab.hosts[0].run([*command, "/Users/me/sums.py"])
        lines = [line for line in done.stdout.splitlines() if "seconds" in line]
        assert lines, done.stdout + done.stderr
        seconds = statistics.median(json.loads(lines[0].partition("seconds")[2]))
    return {
        "megabytes": 4 * NUMBERS / 1e6,
        "seconds": seconds,
        "mbit": 32 * NUMBERS / seconds / 1e6,
    }


PARTS = {"indexing": indexing, "sending": sending, "training": training, "summing": summing}


def add(commands: Any) -> None:
    """Declares the options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "slow", help="indexing and training over a slow link"
    )
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--save", action="store_true", help="keep the figures")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    figures: dict[str, Any] = {"link": SLOW._asdict()}
    for name in options.parts:
        figures[name] = {"cable": PARTS[name](None), "slow": PARTS[name](SLOW)}
        print(name, json.dumps(figures[name], indent=2), flush=True)
    if options.save:
        save("machines_slow", "python -m benchmarks.machines slow --save", figures)
    return 0
