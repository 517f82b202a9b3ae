"""Block sizes and the kept memory follow what the device tells about its memory."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from videoprism_mlx.runtime import device as runtime_device
from videoprism_mlx.runtime import memory

GB = 10**9

# What Metal tells on Macs of so many GB: the memory, and the working set that it recommends.
MACS = {8: 16 / 3, 16: 32 / 3, 64: 48, 192: 144}

# The bytes of the largest released model in float32, with its text encoder.
LARGEST = 2.32e9


def tell(monkeypatch: pytest.MonkeyPatch, **info: Any) -> None:
    monkeypatch.setattr(memory, "device_info", lambda kind: info)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The limits of MLX's cache, in order. The first is MLX's own."""
    kept = [1000 * GB]

    def set_cache_limit(limit: int) -> int:
        kept.append(limit)
        return kept[-2]

    monkeypatch.setattr(mx, "set_cache_limit", set_cache_limit)
    return kept


@pytest.mark.parametrize(
    ("size", "block", "cache"),
    [(8, 83.3, 4 / 3 * GB), (16, 166.7, 8 / 3 * GB), (64, 512, None), (192, 512, None)],
)
def test_macs(
    size: int,
    block: float,
    cache: float | None,
    limits: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usable = int(MACS[size] * GB)
    tell(monkeypatch, max_recommended_working_set_size=usable, memory_size=size * GB)
    assert memory.working_set(mx.gpu) == usable
    backend = runtime_device.gpu_backend.__wrapped__()
    assert backend.block_megabytes == pytest.approx(block, abs=0.1)
    assert limits[1:] == ([] if cache is None else [int(cache)])
    activations = runtime_device.GPU_COPIES * backend.block_megabytes * 1e6
    assert LARGEST + activations + (cache or 0) < 0.85 * usable


@pytest.mark.parametrize(
    ("info", "usable"),
    [
        ({}, None),
        ({"memory_size": "none", "total_memory": 0}, None),
        ({"memory_size": 24 * GB}, 16 * GB),
        ({"total_memory": 150 * GB, "free_memory": 14 * GB}, 100 * GB),
    ],
)
def test_gpus_that_tell_less(
    info: dict[str, Any], usable: int | None, limits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, **info)
    assert memory.working_set(mx.gpu) == usable
    block = runtime_device.gpu_backend.__wrapped__().block_megabytes
    assert block == {None: 128, 16 * GB: 250, 100 * GB: 512}[usable] and limits == [1000 * GB]


def test_small_working_sets_still_have_blocks_worth_the_name() -> None:
    assert runtime_device.gpu_block(GB) == 32


def test_a_lower_cache_limit_of_the_user_stays(
    limits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits.append(GB)
    tell(monkeypatch, max_recommended_working_set_size=int(16 / 3 * GB))
    runtime_device.gpu_backend.__wrapped__()
    assert limits[-1] == GB


@pytest.mark.parametrize("error", [RuntimeError, TypeError, ValueError])
def test_a_device_that_cannot_be_asked(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error("no Metal")

    monkeypatch.setattr(mx, "device_info", fail, raising=False)
    assert memory.working_set(mx.gpu) is None and memory.total_memory(mx.gpu) is None


def test_an_older_mlx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mx, "device_info", raising=False)
    told = {"max_recommended_working_set_size": 5 * GB}
    monkeypatch.setattr(mx.metal, "device_info", lambda: told, raising=False)
    assert memory.working_set(mx.gpu) == 5 * GB
    assert memory.device_info(mx.cpu) == {}


@pytest.fixture
def linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux machine with 8 GB available. Its files are in the folder."""
    monkeypatch.setattr("sys.platform", "linux")
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    (tmp_path / "own").write_text("0::/\n")
    monkeypatch.setattr(memory, "MEMINFO", str(tmp_path / "meminfo"))
    monkeypatch.setattr(memory, "OWN_GROUPS", str(tmp_path / "own"))
    monkeypatch.setattr(memory, "GROUPS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("own", "files", "usable"),
    [
        ("0::/\n", {}, 8192 * 10**6),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5"}, 8192 * 10**6),
        ("0::/a/b\n", {"a/b/memory.max": "3000", "a/b/memory.current": "1000"}, 2000),
        ("0::/a/b/c\n", {"a/memory.max": "3000", "a/memory.current": "1000"}, 2000),
        (
            "0::/\n",
            {
                "memory.max": "3000",
                "memory.current": "2500",
                "memory.stat": "anon 5\ninactive_file 700\n",
            },
            1200,
        ),
        ("0::/\n", {"memory.max": "3000", "memory.current": "4000"}, 0),
        (
            "7:blkio:/\n4:memory:/a\n",
            {"memory/a/memory.limit_in_bytes": "9000", "memory/a/memory.usage_in_bytes": "2000"},
            7000,
        ),
        (  # A container: the path is the machine's, the files are its own.
            "4:memory:/docker/1\n",
            {"memory/memory.limit_in_bytes": "9000", "memory/memory.usage_in_bytes": "1000"},
            8000,
        ),
    ],
)
def test_linux(own: str, files: dict[str, str], usable: int, linux: Path) -> None:
    (linux / "own").write_text(own)
    for name, text in files.items():
        (linux / name).parent.mkdir(parents=True, exist_ok=True)
        (linux / name).write_text(text)
    assert memory.working_set(mx.cpu) == usable


def test_linux_that_tells_nothing(linux: Path) -> None:
    for name in ("meminfo", "own"):
        (linux / name).unlink()
    assert memory.working_set(mx.cpu) is None


def test_the_cpu_of_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 3000}.get(name, 10**6))
    assert memory.working_set(mx.cpu) == 2 * GB

    def fail(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr("os.sysconf", fail)
    assert memory.working_set(mx.cpu) is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about glibc")
def test_memory_is_kept_for_later_arrays_where_dask_would_give_it_back() -> None:
    """Counted in page faults while 20 arrays of 8 MB come and go. A page may be large."""
    code = """
import resource, sys
import numpy as np
from videoprism_mlx.runtime import memory
if sys.argv[1] == "kept":
    memory.keep_freed()
np.ones(2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    variables = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    faults = {
        name: int(subprocess.check_output([sys.executable, "-c", code, name], env=variables))
        for name in ("usual", "kept")
    }
    assert faults["usual"] >= 20  # Or the test says nothing.
    assert faults["kept"] < faults["usual"] / 5
