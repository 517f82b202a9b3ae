"""How much memory this process may use on a device before the machine swaps, and keeping it."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

# The share of a machine's memory that a process may use where the system does not tell.
USABLE = 2 / 3

# Where Linux says what is available, and what each group of processes may use.
MEMINFO, GROUPS, OWN_GROUPS = "/proc/meminfo", "/sys/fs/cgroup", "/proc/self/cgroup"

# Numbers of mallopt, and the values that glibc itself arrives at while a program runs.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT, LARGEST = 64 * 2**20, 32 * 2**20


def working_set(kind: mx.DeviceType | None = None) -> int | None:
    """Bytes that a process may use on a kind of device without swapping. None if nothing tells.

    On a GPU, it is what Metal recommends, or a share of its memory, whatever other programs take:
    block sizes, and so rounding, must not change with them. On the CPU, it is what Linux has
    available, or a share of a Mac's memory. By default the device is MLX's default one.
    """
    kind = kind or mx.default_device().type
    if kind == mx.gpu:
        told = device_info(mx.gpu)
        if recommended := whole(told.get("max_recommended_working_set_size")):  # Metal's.
            return recommended
    elif sys.platform.startswith("linux"):
        return min(linux_limits(), default=None)
    total = total_memory(kind)
    return None if total is None else int(total * USABLE)


def total_memory(kind: mx.DeviceType) -> int | None:
    """Bytes of memory that a kind of device has. None if nothing tells."""
    if kind == mx.gpu:
        told = device_info(mx.gpu)
        return whole(told.get("memory_size")) or whole(told.get("total_memory"))  # CUDA's.
    try:
        return whole(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return None


def device_info(kind: mx.DeviceType) -> dict[str, Any]:
    """What MLX tells about a kind of device: nothing, where it cannot."""
    try:
        if hasattr(mx, "device_info"):
            return dict(mx.device_info(kind))
        return dict(mx.metal.device_info()) if kind == mx.gpu else {}  # MLX before 0.31.
    except (RuntimeError, TypeError, ValueError):
        return {}


def linux_limits() -> Iterator[int]:
    """What is available to this process: on the machine, and in the groups that it belongs to."""
    for line in read(MEMINFO).splitlines():
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])
    for line in read(OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = Path(GROUPS, controllers)
            own = root / path.lstrip("/")  # A container sees its own as the root.
            for group in (own, *own.parents):
                if group == root or root in group.parents:
                    yield from group_limit(group)


def group_limit(group: Path) -> Iterator[int]:
    """What a group of processes may still use, if it has a limit."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        most, used = whole(read(group / limit)), whole(read(group / usage)) or 0
        if most:
            yield max(most - used + reclaimable(group), 0)


def reclaimable(group: Path) -> int:
    """Bytes of a group that only keep files at hand, which the system gives up when needed."""
    for line in read(group / "memory.stat").splitlines():
        name, _, count = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return whole(count) or 0
    return 0


def read(path: str | Path) -> str:
    """The text of a file; nothing if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def whole(value: Any) -> int | None:
    """A whole number above zero; None for anything else, such as the word max."""
    try:
        return max(int(value), 0) or None
    except (TypeError, ValueError):
        return None


def keep_freed() -> None:
    """Lets this process keep the memory of arrays for later ones, on Linux with glibc.

    That is usual. But Dask starts its workers with MALLOC_TRIM_THRESHOLD_, with which the memory of
    each array goes back to the system at once, and the next one comes from there page by page: a
    model then takes nearly twice as long.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if sys.platform.startswith("linux") and mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, KEPT)
