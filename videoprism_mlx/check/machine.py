"""What the machine and its libraries are: what the figures of a model depend on."""

import ctypes
import importlib.util
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from videoprism_mlx.files.identity import sha256
from videoprism_mlx.models import DEMO_MODEL, SHIPPED
from videoprism_mlx.runtime import blas, device, memory, precision, tuning
from videoprism_mlx.runtime.libraries import OPTIONAL
from videoprism_mlx.weights.directory import WEIGHTS_FILE

PACKAGES = ("videoprism_mlx", "mlx", "numpy", "av")

# The codecs of nearly all video, by FFmpeg's names of their decoders.
DECODERS = {"H.264": "h264", "HEVC": "hevc", "VP9": "vp9", "AV1": "libdav1d", "ProRes": "prores"}

# The side of the square matrices that are multiplied to measure the rate, and how often. Where a
# product would take more than that many seconds, the matrices are smaller.
RATE_SIDE, LEAST_SIDE, LONGEST_PRODUCT, RATE_TIMES = 2048, 256, 0.4, 5

# Products that a GPU is given at once.
RATE_QUEUE = 16

# The checksum of the weights that ship. Some weights, such as the biases of keys, hardly change
# what a model computes, so that outputs do not tell whether they are right.
SHIPPED_SHA256 = "8c8c4cc0e867e66fb58a5bf5f5e71e281d93e1d3baffe875464f1c7ef93d16e6"


class Complaint(NamedTuple):
    """Something that is missing or not as it should be, and what to do."""

    name: str
    what: str


def describe_machine() -> dict[str, Any]:
    """The machine and its libraries, in values for JSON."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        **(mac() if sys.platform == "darwin" else linux()),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: installed(name) for name in PACKAGES},
        "opencv": installed("opencv-python-headless") or installed("opencv-python"),
        "blas": blas_name(),
        "device": str(mx.default_device()),
        "precision": precision.in_force(),
    }


def abilities() -> dict[str, Any]:
    """The rate of matrix products and what can be decoded, in values for JSON."""
    from videoprism_mlx.video.ffmpeg.streams import machine_decoder

    return {
        "gflops": {kind: round(matrix_rate(kind)) for kind in ("float32", "bfloat16")},
        "blocks": block_sizes(),
        "decoders": decoders(),
        "hardware_decoding": [found] if (found := machine_decoder()) else [],
    }


def complaints() -> Iterator[Complaint]:
    """What does not work as it should."""
    weights = SHIPPED[DEMO_MODEL] / WEIGHTS_FILE
    if sha256(weights) != SHIPPED_SHA256:
        yield Complaint("weights", f"{weights} was altered; install videoprism_mlx again")
    if (found := precision.in_force()) != precision.FULL:
        yield Complaint(
            "precision",
            f"float32 products have reduced precision ({found}); "
            f"set {precision.VARIABLE}=0 before the start",
        )
    for codec, is_there in decoders().items():
        if not is_there:
            yield Complaint(
                "decoder", f"there is none for {codec}; install PyAV's own wheel: pip install av"
            )


def missing_options() -> Iterator[Complaint]:
    """Optional libraries that are not installed, which is no fault."""
    for module, (needed_by, extra) in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            yield Complaint(module, f"needed by {needed_by}: pip install '{extra}'")


def installed(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def mac() -> dict[str, Any]:
    """The chip's name, the memory and, if the system tells, the number of GPU cores."""

    def said(*command: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            return ""
        return done.stdout.strip()

    found = {  # A job of cron has no /usr/sbin in its PATH.
        "chip": said("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"),
        "memory_gb": round(int(said("/usr/sbin/sysctl", "-n", "hw.memsize") or 0) / 1e9, 1),
    }
    cores = re.search(
        r"Total Number of Cores: (\d+)", said("/usr/sbin/system_profiler", "SPDisplaysDataType")
    )
    return found | ({"gpu_cores": int(cores[1])} if cores else {})


def linux() -> dict[str, Any]:
    """The processor's name, the memory, and what OpenBLAS is optimised for."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return {
        "chip": next(names, platform.machine()),
        "memory_gb": round((memory.total_memory(mx.cpu) or 0) / 1e9, 1),
        "openblas": openblas_kernels(),
    }


def blas_name() -> str:
    """The library that matrix products on the CPU come from, with its version if it tells."""
    if sys.platform == "darwin":
        return "Accelerate"
    library = blas.loaded()
    if library is None:
        return "the reference BLAS of MLX's wheel, which is slow"
    if not hasattr(library, "openblas_get_config"):
        return "a library that was loaded before MLX"
    library.openblas_get_config.restype = ctypes.c_char_p
    config: bytes = library.openblas_get_config()
    return " ".join(config.decode().split()[:2])


def openblas_kernels() -> str | None:
    """The processor that OpenBLAS is optimised for here. None without OpenBLAS."""
    library = blas.loaded()
    if library is None or not hasattr(library, "openblas_get_corename"):
        return None
    library.openblas_get_corename.restype = ctypes.c_char_p
    name: bytes = library.openblas_get_corename()
    return name.decode()


def matrix_rate(dtype: str, times: int = RATE_TIMES) -> float:
    """Billions of floating-point operations a second in matrix products on the default device.

    On the CPU, each core computes a product of its own. On a GPU, a few are queued at once, because
    one alone would be over too soon.
    """
    on_gpu = mx.default_device().type == mx.gpu
    streams = [None] * RATE_QUEUE if on_gpu else device.backend().streams
    side = LEAST_SIDE
    factor = mx.ones((side, side), getattr(mx, dtype))
    products(factor, streams)
    seconds = products(factor, streams)
    while side < RATE_SIDE and 8 * seconds < LONGEST_PRODUCT:  # Twice the side, 8 times the work.
        side *= 2
        factor = mx.ones((side, side), getattr(mx, dtype))
        seconds = products(factor, streams)
    seconds = min(products(factor, streams) for _ in range(times))
    return len(streams) * 2 * side**3 / seconds / 1e9


def products(factor: mx.array, streams: Sequence[mx.Stream | None]) -> float:
    """Multiplies a square matrix by itself on each stream. Returns the seconds."""
    mx.eval(factor)
    started = time.perf_counter()
    results = []
    for stream in streams:
        with mx.stream(stream or mx.default_stream(mx.default_device())):
            results.append(factor @ factor)
    mx.eval(results)
    return time.perf_counter() - started


def block_sizes() -> dict[str, Any]:
    """The block sizes in force, in megabytes, and where they come from."""
    kinds = {"float32": mx.float32, "bfloat16": mx.bfloat16}
    tuned = any(device.tuned_block(kind) for kind in kinds.values())
    sizes = {name: f"{device.block_megabytes(kind):g} MB" for name, kind in kinds.items()}
    return {**sizes, "tuned": str(tuning.path()) if tuned else False}


def decoders() -> dict[str, bool]:
    """Which codecs FFmpeg can decode here."""
    from videoprism_mlx.video.ffmpeg import av

    return {codec: name in av.codecs_available for codec, name in DECODERS.items()}
