"""The figures of docs/machines.md, from the results that were saved.

python -m benchmarks.machines tell [--write]
"""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machines import simulate
from benchmarks.timing import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "machines.md"
BEGINS = "## Measured\n"

TEXT = """\
## Measured

No Mac was at hand: all figures are of one Linux machine with {cores} x86-64 cores, on which network
namespaces stand for hosts, each with a core of its own for its worker. Scheduler and command share
these cores. `python -m benchmarks.machines` is the lab; its commands need root on Linux.

**Two workers against one** (`throughput`), in turns, in one run:

| moments a second | one worker | two workers | times | share of command and scheduler |
|---|---:|---:|---:|---:|
| base model | {base[one]:.3f} | {base[two]:.3f} | {base[ratio]:.2f} | {base[share]:.1%} |
| demo model | {demo[one]:.1f} | {demo[two]:.1f} | {demo[ratio]:.2f} | {demo[share]:.0%} |

A moment is 16 frames for the base model, whose weights are random, and 4 for the demo model. The
share is of both cores, with two workers. Two processes that only compute, without Dask, make
{base[without]:.2f} times as many moments of the base model as one: that is the most that these
cores allow. Each run of {base[clips]} clips also has the start of the command in it, about 10 s.
The demo model is so small that reading and writing are most of the work; on machines of their own,
the command and the scheduler take nothing from the workers.

**Kills** (`kills --count {kills[count]}`): {kills[indexing]} times a worker, its machine or the
command was killed while {clips} clips were indexed on two workers, and {kills[rank]} times one of
two or three ranks while a small model was trained, at random times. {kills[right]} of
{kills[count]} ended in the rows, or the parameters, of an unbroken run; the largest difference of a
number was {kills[largest]:.1g}. The other ranks were gone {kills[gone]:.1f} s after the kill at the
latest.

**A slow link** (`link`, `slow`): {link[rate]:.0f} Mbit/s and {link[delay]:.0f} ms one way were
asked for; one byte there and back takes {link[echo]:.1f} ms, and a transfer of 30 MB goes at
{link[there]:.0f} Mbit/s.

| | cable | slow link |
|---|---:|---:|
| index {clips} clips on two workers, shared disk elsewhere | {slow[indexing]} |
| the same with `--send` | {slow[sending]} |
| train the demo model, two ranks, 3 epochs | {slow[training]} |
| add up {slow[megabytes]:.0f} MB of gradients of two ranks | {slow[summing]} |

Over such a link, a step of two ranks on all {millions:.0f} million parameters of the base
video-text model would spend {step:.0f} s on its gradients alone: train adapters there.

**What each part can take** (`capacity`):

| | |
|---|---:|
| tasks through the scheduler, each with the moments of five minutes | {tasks:.0f} a second, \
{task_ms:.1f} ms of its core each |
| the command, for each such task | {result_ms:.1f} ms |
| the writer: videos of one moment | {videos:.0f} a second |
| the writer: moments, in videos of an hour | {moments:,.0f} a second |
| the search index, built over {indexed:,} moments | {index_us:.0f} µs of a core for each |
| rows that the writer keeps in memory | {row:,.0f} bytes for each video |
| memory of the scheduler: after a few, half and all of {many:,} tasks | {scheduler} MB |
| memory of the command | {client} MB |

From half to all of the tasks, the scheduler grew by {grown:.0f} bytes a task; for all tasks of the
million hours below, that would be {grown_all:.1f} GB.

## A million hours

How many Macs would {hours:,.0f} hours of video take, in videos of an hour, {windows:,.0f} moments?
Nobody has measured a Mac with this, so its speed is what you put in: 1 x is what all of the machine
above does with the base model. The other rates are those above
(`python -m benchmarks.machines simulate`); the shared disk is assumed to give {disk:.0f} Gbit/s,
and the videos to have {bits:.0f} Mbit/s.

{table}

In the last column is how many Macs fill each part; more do not help.

![Days against the number of Macs](images/machines.png)

- {first_full}
- **The search index is what does not fit.** While it is built, LanceDB holds a sample of the
  embeddings in memory: {memory:.0f} GB are enough for {fits:,.0f} hours. Beyond that, divide the
  videos among several libraries. The index was measured up to {indexed:,} moments; its cost
  for {windows:,.0f} is extrapolated.
- The writer also keeps a row for each video in memory: {rows_gb:.1f} GB for videos of an hour,
  {rows_minutes:.0f} GB for videos of a minute.
- Task by task, {played_hours:,.0f} hours on {played[macs]} Macs, of which every fourth is half as
  fast, take {played[over]:.1%} more than the arithmetic says. At most
  {played[most_waiting]} results wait for the writer.
"""


def saved(name: str) -> dict[str, Any]:
    """The figures of a command."""
    figures: dict[str, Any] = json.loads((RESULTS / f"machines_{name}.json").read_text())
    return figures


def of_throughput(figures: Mapping[str, Any]) -> dict[str, float]:
    """A row of the table of two workers against one."""
    return {
        **figures["moments_a_second"],
        "ratio": figures["ratio"]["median"],
        "share": figures["share_beside_workers"],
        "clips": figures["clips"],
        "without": figures.get("without_dask", {}).get("ratio", math.nan),
    }


def of_kills(figures: Mapping[str, Any]) -> dict[str, Any]:
    kinds = figures["kinds"]
    return {
        "count": figures["count"],
        "right": figures["right"],
        "rank": kinds["rank"],
        "indexing": figures["count"] - kinds["rank"],
        "largest": figures["largest_difference"],
        "gone": figures["slowest_end_of_ranks"],
    }


def of_slow(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of the table of the slow link."""
    told: dict[str, Any] = {"megabytes": figures["summing"]["cable"]["megabytes"]}
    for name in ("indexing", "sending", "training", "summing"):
        cable, slow = (figures[name][kind]["seconds"] for kind in ("cable", "slow"))
        told[name] = f"{cable:.3g} s | {slow:.3g} s"
    return told


def of_link(figures: Mapping[str, Any]) -> dict[str, float]:
    """The slow link, as it was asked for and as it is."""
    return {
        "rate": figures["asked"]["rate"] / 1e6,
        "delay": 1e3 * figures["asked"]["delay"],
        "echo": figures["slow"]["there_and_back_ms"],
        "there": figures["slow"]["there_mbit"],
    }


def of_rows(rows: list[dict[str, Any]]) -> str:
    """The table of the simulation."""
    lines = ["| a Mac's windows a second | one Mac | in 30 days | full with so many Macs |"]
    lines.append("|---|---:|---:|---|")
    for row in rows:
        full = sorted(row["macs_until_full"].items(), key=lambda one: one[1])
        said = ", ".join(f"{name} {number:,.0f}" for name, number in full)
        years, macs = row["one_mac_years"], row["macs_for_30_days"]
        name = f"{row['windows_a_second']:.2g} ({row['speed']} x)"
        lines.append(f"| {name} | {years:,.1f} years | {macs:,} Macs | {said} |")
    return "\n".join(lines)


def parameters() -> int:
    """The parameters of the base video-text model."""
    from mlx.utils import tree_flatten

    from videoprism_mlx.models import get_model

    model = get_model("videoprism_lvt_public_v1_base")
    return sum(array.size for _, array in tree_flatten(model.parameters()))


def text() -> str:
    """What the page says, from "Measured" on."""
    throughput, kills, slow = saved("throughput"), saved("kills"), saved("slow")
    link, capacity, played = saved("link"), saved("capacity"), saved("simulation")
    collection = simulate.Collection(**played["collection"])
    rates = simulate.Rates(**played["rates"])
    full = simulate.limits(collection, rates)
    first = min(full, key=full.__getitem__)
    days = {name: collection.hours / rate / simulate.DAY for name, rate in full.items()}
    through = capacity["tasks"]["75 moments"]
    many = capacity["tasks"]["empty"]
    index = max(capacity["index"], key=lambda one: one["moments"])
    one = next(row for row in played["played"] if row["speed"] == 4 and row["macs"] == 30)
    count = parameters()
    videos = collection.hours / collection.video
    half, last = many["scheduler_memory_mb"][1:]
    grown = max(0.0, 2e6 * (last - half) / many["tasks"])
    others = ", ".join(f"{name} {days[name]:.2g}" for name in sorted(days, key=days.__getitem__))
    return TEXT.format(
        cores=capacity["machine"]["cores"],
        base=of_throughput(throughput["base"]),
        demo=of_throughput(throughput["demo"]),
        kills=of_kills(kills),
        clips=throughput["demo"]["clips"],
        link=of_link(link),
        slow=of_slow(slow),
        millions=count / 1e6,
        step=4
        * count
        / 1e6
        / slow["summing"]["slow"]["megabytes"]
        * slow["summing"]["slow"]["seconds"],
        tasks=through["tasks_a_second"],
        task_ms=1e3 * through["scheduler_core_seconds"],
        result_ms=1e3 * through["client_core_seconds"],
        videos=1 / capacity["write"]["1"]["seconds_a_video"],
        moments=capacity["write"]["900"]["moments_a_second"],
        indexed=index["moments"],
        index_us=1e6 * index["core_seconds"] / index["moments"],
        row=capacity["rows"]["bytes_a_video"],
        many=many["tasks"],
        grown=grown,
        grown_all=grown * collection.hours * collection.tasks / 1e9,
        scheduler=", ".join(f"{each:.0f}" for each in many["scheduler_memory_mb"]),
        client=", ".join(f"{each:.0f}" for each in many["client_memory_mb"]),
        hours=collection.hours,
        windows=collection.hours * collection.windows,
        disk=rates.shared_disk * 8 / 1e9,
        bits=rates.bytes_an_hour * 8 / 3600 / 1e6,
        table=of_rows(played["rows"]),
        first_full=f"**The {first} is full first.** Each part alone takes so many days: {others}.",
        memory=simulate.MEMORY / 1e9,
        fits=played["hours_in_memory"],
        rows_gb=videos * capacity["rows"]["bytes_a_video"] / 1e9,
        rows_minutes=60 * collection.hours * capacity["rows"]["bytes_a_video"] / 1e9,
        played_hours=played["played_hours"],
        played=one | {"over": one["seconds"] / one["ideal"] - 1},
    )


def add(commands: Any) -> None:
    """Declares the options."""
    parser: argparse.ArgumentParser = commands.add_parser("tell", help="the figures of the docs")
    parser.add_argument("--write", action="store_true", help="write them to the page")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    told = text()
    if options.write:
        page = PAGE.read_text(encoding="utf-8").partition(BEGINS)[0]
        PAGE.write_text(page + told, encoding="utf-8")
    else:
        print(told)
    return 0
