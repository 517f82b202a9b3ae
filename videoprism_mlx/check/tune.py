"""Finds the block size that is fastest on this machine, and keeps it in the cache folder."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from videoprism_mlx.check import machine
from videoprism_mlx.check.flops import clip_flops
from videoprism_mlx.check.speed import (
    EXPECTED_SHARE,
    TYPES,
    Progress,
    clips,
    fits,
    forward,
    needed_bytes,
    ready_model,
)
from videoprism_mlx.models import get_config
from videoprism_mlx.runtime import device, memory, tuning

MODEL = "videoprism_public_v1_base"

# The layers are alike: a few of them show which block is fastest.
LAYERS = {"num_spatial_layers": 3, "num_temporal_layers": 1}

# Block sizes that are tried, as multiples of the default.
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)

# Rounds in which all sizes take turns, and rounds of the best one against the default.
ROUNDS, DUELS = 5, 7
PASSES = len(FACTORS) * (1 + ROUNDS) + 2 * (1 + DUELS)

# A block size is kept if it needs at most this share of the default's time. The rest is noise.
FASTER = 0.97

# A type whose pass would take more seconds than this is not tuned. There are about fifty passes.
LONGEST_PASS = {"float32": 10.0, "bfloat16": 3.0}

# Clips of a pass: on a GPU so many that they do not fit in one block.
CPU_CLIPS, GPU_CLIPS = 1, 8


class Tuned(NamedTuple):
    """The default block size of a type, the one that is kept, and the figures of each.

    `megabytes` is None where the default stays. `tried` are the times of each size as shares of
    the default's, medians over the rounds. `confirmed` is that of the best size against the
    default, measured again.
    """

    dtype: str
    default: float
    megabytes: float | None
    tried: dict[float, float]
    confirmed: float | None
    left_out: str | None = None


def tune(progress: Progress = lambda _: None) -> tuple[list[Tuned], Path | None]:
    """Measures, keeps the result for this machine, and returns it with the file it is kept in.

    There is no file if no type was tuned. What was kept before then stays in force.
    """
    results = [tune_type(dtype, progress) for dtype in TYPES]
    kept = {one.dtype: one.megabytes for one in results if one.left_out is None}
    return results, tuning.keep(mx.default_device().type, kept) if kept else None


def tune_type(dtype: str, progress: Progress) -> Tuned:
    """The result for one type."""
    backend = device.backend()
    default = backend.block_megabytes
    batch = CPU_CLIPS if backend.clip_by_clip else GPU_CLIPS
    config = get_config(MODEL) | LAYERS
    expected = batch * clip_flops(config) / machine.matrix_rate(dtype) / 1e9 / EXPECTED_SHARE
    if expected > LONGEST_PASS[dtype]:
        why = f"a pass would take about {expected:.0f} s"
        return Tuned(dtype, default, None, {}, None, why)
    model, video = ready_model(config, dtype), clips(config, batch)

    def run(megabytes: float) -> Callable[[], None]:
        def timed() -> None:
            with device.block_size(megabytes):
                forward(model, video)

        return timed

    sizes = [default * factor for factor in FACTORS if fits_memory(dtype, default * factor, batch)]
    progress(f"block sizes in {dtype}, about {PASSES * expected:.0f} seconds")
    tried = shares({size: run(size) for size in sizes}, default, ROUNDS)
    best = min(tried, key=lambda size: tried[size])
    if best == default:
        return Tuned(dtype, default, None, tried, None)
    # Of several sizes that are equally fast, chance makes one look best. It has to win once more.
    confirmed = shares({default: run(default), best: run(best)}, default, DUELS)[best]
    return Tuned(dtype, default, best if confirmed <= FASTER else None, tried, confirmed)


def fits_memory(dtype: str, megabytes: float, batch: int) -> bool:
    """Whether the largest of the base models fits the working set with that block size."""
    with device.block_size(megabytes):
        return fits(needed_bytes(MODEL, dtype, batch), memory.working_set())


def shares(
    work: dict[float, Callable[[], None]], default: float, rounds: int
) -> dict[float, float]:
    """The time of each piece of work as a share of the default's: the median over the rounds.

    In every round, each takes a turn; the rounds begin with another one each time.
    """
    seconds: dict[float, list[float]] = {size: [] for size in work}
    sizes = list(work)
    for turn in range(-1, rounds):  # The first round warms up.
        start = turn % len(sizes)
        for size in sizes[start:] + sizes[:start]:
            started = time.perf_counter()
            work[size]()
            if turn >= 0:
                seconds[size].append(time.perf_counter() - started)
    return {
        size: statistics.median(
            mine / other for mine, other in zip(seconds[size], seconds[default], strict=True)
        )
        for size in sizes
    }


def as_json(results: list[Tuned], path: Path | None) -> dict[str, Any]:
    """The results in values for JSON."""
    return {
        "kept_in": None if path is None else str(path),
        "types": [
            {**one._asdict(), "tried": {f"{size:g}": one.tried[size] for size in one.tried}}
            for one in results
        ],
    }
