"""Timing pieces of work against each other, in turns, on one machine."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def in_turns(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each piece of work, `rounds` times, one after the other, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(seconds: Mapping[str, list[float]], name: str, to: str) -> dict[str, float]:
    """How many times as long one took as the other: the median over the turns, and the extremes."""
    each = [mine / other for mine, other in zip(seconds[name], seconds[to], strict=True)]
    return {"median": statistics.median(each), "least": min(each), "most": max(each)}


def machine() -> dict[str, Any]:
    """What the figures depend on, beside the code."""
    chip = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        chip = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), chip)
    packages = ("videoprism_mlx", "mlx", "numpy", "opencv-python")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "chip": chip,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def save(name: str, command: str, figures: Mapping[str, Any]) -> None:
    """Keeps the figures in benchmarks/results, with the machine and the command."""
    RESULTS.mkdir(exist_ok=True)
    result = {"command": command, "machine": machine(), **figures}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"kept in {path}")
