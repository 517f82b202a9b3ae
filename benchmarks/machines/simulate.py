"""A million hours of video on many Macs: how many, how long, and what is full first.

    python -m benchmarks.machines simulate [--hours 1000000] [--save]

Nobody has measured a Mac. Its speed, in windows a second, is what you put in; the other rates are
those that `python -m benchmarks.machines capacity` and `throughput` have measured here.

`saturation` is arithmetic: each part of the work has a rate of its own, and the slowest is the rate
of all. `play` lets every task pass, one by one, through the scheduler, a Mac and the writer: it
shows what the arithmetic leaves out, the queue and the end of a run.
"""

import argparse
import collections
import dataclasses
import heapq
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.timing import RESULTS, save

DAY, YEAR = 86_400.0, 365.25 * 86_400.0

# What nobody measured here, and what is assumed instead.
SHARED_DISK = 10e9 / 8  # Bytes a second of the shared disk: 10 Gbit/s.
BYTES_AN_HOUR = 5e6 / 8 * 3600  # Of video, at 5 Mbit/s.
MEMORY = 64e9  # Bytes of the Mac that writes.

SPEEDS = (1, 4, 16)
MACS = (1, 3, 10, 30, 100, 300, 1000, 3000)


@dataclasses.dataclass(frozen=True)
class Collection:
    """What is indexed: hours, in videos of so many hours, with a window every so many seconds.

    A task is a video, or as many windows of it as `span`.
    """

    hours: float = 1e6
    video: float = 1.0
    stride: float = 4.0
    span: int = 75

    @property
    def windows(self) -> float:
        """The windows of an hour: its moments."""
        return 3600 / self.stride

    @property
    def tasks(self) -> float:
        """The tasks of an hour."""
        return math.ceil(self.video * self.windows / self.span) / self.video


@dataclasses.dataclass(frozen=True)
class Rates:
    """What a step costs: seconds of the process that does it, and bytes.

    `task` is of the scheduler, `result` of what the writing process does for a task, `video` and
    `moment` of writing. For a moment, `compact` is keeping the files few, and `index` is building
    the search index.
    """

    task: float
    result: float
    video: float
    moment: float
    compact: float
    index: float
    index_memory: float  # Bytes for a moment while the index is built.
    shared_disk: float = SHARED_DISK
    bytes_an_hour: float = BYTES_AN_HOUR


def limits(collection: Collection, rates: Rates) -> dict[str, float]:
    """The hours of video a second that each part but the Macs can take."""
    seconds = {
        "scheduler": collection.tasks * rates.task,
        "writer": collection.tasks * rates.result
        + rates.video / collection.video
        + collection.windows * (rates.moment + rates.compact),
        "index": collection.windows * rates.index,
        "shared disk": rates.bytes_an_hour / rates.shared_disk,
    }
    return {name: 1 / each for name, each in seconds.items()}


class Saturation(NamedTuple):
    """How long all of it takes, and which part is full."""

    seconds: float
    full: str


def saturation(collection: Collection, rates: Rates, macs: int, speed: float) -> Saturation:
    """How long so many Macs take, each with `speed` windows a second."""
    each = {"Macs": macs * speed / collection.windows} | limits(collection, rates)
    full = min(each, key=each.__getitem__)
    return Saturation(collection.hours / each[full], full)


def macs_until_full(collection: Collection, rates: Rates, speed: float) -> dict[str, float]:
    """With how many Macs each part is full."""
    return {
        name: rate * collection.windows / speed for name, rate in limits(collection, rates).items()
    }


def macs_for(collection: Collection, speed: float, seconds: float) -> int:
    """How many Macs take that long, if nothing but they holds it up."""
    return math.ceil(collection.hours * collection.windows / (speed * seconds))


class Played(NamedTuple):
    """A run, task by task."""

    seconds: float  # Until the last task is written.
    scheduler_busy: float  # Shares of that time.
    writer_busy: float
    macs_busy: float  # On average.
    most_waiting: int  # The most results that have waited for the writer.
    idle_end: float  # From when the first Mac has nothing more to do until the end, in seconds.


def play(
    tasks: Sequence[float], speeds: Sequence[float], task: float, write: float, ahead: int = 2
) -> Played:
    """Lets every task pass through the scheduler, a Mac and the writer.

    `tasks` are the windows of each, `speeds` the windows a second of each Mac. The scheduler takes
    `task` seconds to give a task to a Mac, the writer `write` seconds a task. A Mac has at most
    `ahead` tasks: what waits for the writer counts, so that no queue grows.
    """
    waiting = collections.deque(tasks)
    count, now, scheduler, writer = len(speeds), 0.0, 0.0, 0.0
    free, held, busy = [0.0] * count, [0] * count, 0.0
    last_done = [0.0] * count
    # What happens when: (seconds, order, what, Mac).
    events: list[tuple[float, int, str, int]] = []
    order, unwritten, most, written_at = 0, 0, 0, 0.0

    def assign() -> None:
        """Gives tasks to the Macs that have room, the one with the fewest first."""
        nonlocal scheduler, order, busy
        while waiting:
            mac = min(range(count), key=lambda one: (held[one], free[one], one))
            if held[mac] >= ahead:
                return
            scheduler = max(scheduler, now) + task
            seconds = waiting.popleft() / speeds[mac]
            free[mac] = max(free[mac], scheduler) + seconds
            busy += seconds
            held[mac] += 1
            order += 1
            heapq.heappush(events, (free[mac], order, "computed", mac))

    assign()
    while events:
        now, _, what, mac = heapq.heappop(events)
        if what == "computed":
            writer = max(writer, now) + write
            unwritten += 1
            most = max(most, unwritten)
            last_done[mac] = now
            order += 1
            heapq.heappush(events, (writer, order, "written", mac))
        else:
            unwritten -= 1
            held[mac] -= 1
            written_at = now
            assign()
    shares = (len(tasks) * task, len(tasks) * write, busy / count)
    idle = written_at - min(last_done)
    return Played(written_at, *(each / written_at for each in shares), most, idle)


def measured(path: Path | None = None) -> Rates:
    """The rates that were measured here."""
    figures = json.loads((path or RESULTS / "machines_capacity.json").read_text())
    names = [field.name for field in dataclasses.fields(Rates)]
    rates = {name: value for name, value in figures["rates"].items() if name in names}
    return Rates(**rates)


def measured_speed() -> float:
    """The windows a second of all of this machine, with the base model."""
    path = RESULTS / "machines_throughput.json"
    if not path.is_file():
        sys.exit(f"{path} is missing: run throughput first, or give --windows-a-second")
    speed: float = json.loads(path.read_text())["base"]["moments_a_second"]["two"]
    return speed


def table(collection: Collection, rates: Rates, here: float) -> list[dict[str, Any]]:
    """For each speed of a Mac: the Macs for a month, the days of some, and what is full when."""
    rows = []
    for factor in SPEEDS:
        speed = factor * here
        days = {}
        for macs in MACS:
            taken = saturation(collection, rates, macs, speed)
            days[str(macs)] = {"days": taken.seconds / DAY, "full": taken.full}
        rows.append(
            {
                "speed": factor,
                "windows_a_second": speed,
                "one_mac_years": saturation(collection, rates, 1, speed).seconds / YEAR,
                "macs_for_30_days": macs_for(collection, speed, 30 * DAY),
                "macs_until_full": macs_until_full(collection, rates, speed),
                "days": days,
            }
        )
    return rows


def plays(collection: Collection, rates: Rates, here: float, hours: float) -> list[dict[str, Any]]:
    """Some hours of it, task by task, on Macs of which every fourth has half the speed."""
    tasks = [float(collection.span)] * round(hours * collection.windows / collection.span)
    per_task = 1 / (collection.tasks * limits(collection, rates)["writer"])
    rows = []
    for factor in SPEEDS:
        for macs in (3, 30, 300):
            speeds = [factor * here / (2 if number % 4 == 3 else 1) for number in range(macs)]
            played = play(tasks, speeds, rates.task, per_task)
            ideal = sum(tasks) / sum(speeds)
            rows.append({"speed": factor, "macs": macs, "ideal": ideal, **played._asdict()})
    return rows


def draw(collection: Collection, rates: Rates, here: float, path: Path) -> None:
    """Draws the days against the number of Macs, and what each part allows at best."""
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.6), dpi=125)
    counts = np.unique(np.geomspace(1, 10_000, 200).astype(int))
    for factor, colour in zip(SPEEDS, ("tab:blue", "tab:orange", "tab:green"), strict=True):
        days = [saturation(collection, rates, int(n), factor * here).seconds / DAY for n in counts]
        label = f"a Mac makes {factor * here:.2g} windows a second"
        axes.plot(counts, days, color=colour, label=label)
    for name, rate in limits(collection, rates).items():
        days = collection.hours / rate / DAY
        at = 8 if name == "index" else 1.1  # It takes about as long as the writer.
        axes.axhline(days, color="0.6", linewidth=0.8, linestyle=":")
        axes.annotate(f"{name}: {days:.3g} days", (at, days), va="bottom", color="0.3", size=8)
    axes.set(xscale="log", yscale="log", xlabel="Macs", ylabel="days")
    axes.set_title(f"{collection.hours:,.0f} hours of video, videos of one hour")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="upper right")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def say(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the table of the docs."""
    print("| a Mac's windows a second | one Mac | for 30 days | full with so many Macs |")
    print("|---|---:|---:|---|")
    for row in rows:
        full = sorted(row["macs_until_full"].items(), key=lambda one: one[1])
        said = ", ".join(f"{name} {number:,.0f}" for name, number in full)
        name = f"{row['windows_a_second']:.3g} ({row['speed']} x)"
        years, macs = row["one_mac_years"], row["macs_for_30_days"]
        print(f"| {name} | {years:,.1f} years | {macs:,} Macs | {said} |")


def add(commands: Any) -> None:
    """Declares the options."""
    parser: argparse.ArgumentParser = commands.add_parser("simulate", help="a million hours")
    parser.add_argument("--hours", type=float, default=1e6)
    parser.add_argument("--video", type=float, default=1.0, help="hours of a video")
    parser.add_argument("--windows-a-second", type=float, help="of a Mac of the speed 1")
    parser.add_argument("--rates", type=Path, help="another file of measured rates")
    parser.add_argument("--play", type=float, default=2000, help="hours that pass task by task")
    parser.add_argument("--save", action="store_true", help="keep the figures and the picture")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    rates, here = measured(options.rates), options.windows_a_second or measured_speed()
    collection = Collection(options.hours, options.video)
    rows = table(collection, rates, here)
    figures = {
        "collection": dataclasses.asdict(collection),
        "rates": dataclasses.asdict(rates),
        "windows_a_second_here": here,
        "hours_in_memory": MEMORY / rates.index_memory / collection.windows,
        "rows": rows,
        "played_hours": options.play,
        "played": plays(collection, rates, here, options.play),
    }
    say(rows)
    print(f"hours whose index fits {MEMORY / 1e9:.0f} GB: {figures['hours_in_memory']:,.0f}")
    for row in figures["played"]:
        print(json.dumps(row))
    if options.save:
        save("machines_simulation", "python -m benchmarks.machines simulate --save", figures)
        images = Path(__file__).parents[2] / "docs" / "images"
        draw(collection, rates, here, images / "machines.png")
    return 0
