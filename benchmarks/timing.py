"""Timing pieces of work in turns."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from videoprism_mlx.check.machine import describe_machine

RESULTS = Path(__file__).parent / "results"


def in_turns(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each piece of work, `rounds` times in turns, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(seconds: Mapping[str, list[float]], name: str, to: str) -> dict[str, float]:
    """How many times longer one took than another: the median over the turns, and the extremes."""
    each = [mine / other for mine, other in zip(seconds[name], seconds[to], strict=True)]
    return {"median": statistics.median(each), "least": min(each), "most": max(each)}


def save(name: str, command: str, figures: Mapping[str, Any]) -> None:
    """Writes the figures to benchmarks/results, with the machine and the command."""
    RESULTS.mkdir(exist_ok=True)
    result = {"command": command, "machine": describe_machine(), **figures}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")
