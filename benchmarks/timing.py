"""Timing pieces of work in turns, and describing the machine."""

import ctypes
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx

from videoprism_mlx.runtime import blas

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


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    packages = ("videoprism_mlx", "mlx", "numpy", "av", "opencv-python")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        **(mac() if sys.platform == "darwin" else linux()),
        "cores": os.cpu_count(),
        "device": str(mx.default_device()),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def mac() -> dict[str, Any]:
    """The chip's name, the memory and, if the system tells, the number of GPU cores."""

    def said(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    found = {
        "chip": said("sysctl", "-n", "machdep.cpu.brand_string"),
        "memory_gb": round(int(said("sysctl", "-n", "hw.memsize") or 0) / 1e9, 1),
    }
    cores = re.search(
        r"Total Number of Cores: (\d+)", said("system_profiler", "SPDisplaysDataType")
    )
    return found | ({"gpu_cores": int(cores[1])} if cores else {})


def linux() -> dict[str, Any]:
    """The processor's name and the memory."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "chip": next(names, platform.machine()),
        "memory_gb": round(memory / 1e9, 1),
        "openblas": openblas_kernels(),
    }


def openblas_kernels() -> str | None:
    """The processor that OpenBLAS is optimised for here. None without OpenBLAS."""
    library = blas.loaded()
    if library is None or not hasattr(library, "openblas_get_corename"):
        return None
    library.openblas_get_corename.restype = ctypes.c_char_p
    name: bytes = library.openblas_get_corename()
    return name.decode()


def save(name: str, command: str, figures: Mapping[str, Any]) -> None:
    """Writes the figures to benchmarks/results, with the machine and the command."""
    RESULTS.mkdir(exist_ok=True)
    result = {"command": command, "machine": machine(), **figures}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")
