"""How fast the released configurations are on this machine, and what share of its limit that is.

The limit is the rate of matrix products, measured in turns with the model, because the speed of a
machine drifts. Weights and clips are random, which does not change the cost.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import mlx.core as mx

from videoprism_mlx.check import machine
from videoprism_mlx.check.flops import clip_flops
from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.models import RELEASES, get_config, get_model, parse_dtype
from videoprism_mlx.runtime import device, memory
from videoprism_mlx.weights.directory import named_parameters

TYPES = ("float32", "bfloat16")

# Seconds for all measurements together, and the most that a clip may take.
BUDGET, LONGEST_CLIP = 170.0, 30.0

# The share of the rate that a model is expected to reach, to foresee how long it takes.
EXPECTED_SHARE = 0.6

# Passes measured at each batch, the largest batch, and what a larger batch must gain to be better.
ROUNDS, MOST_CLIPS, GAIN = 5, 64, 1.03

# What a forward pass may take: a share of the working set.
MEMORY_SHARE = 0.8

# Activations in memory at once: blocks for each stream, and arrays (T * N, D) for each clip. The
# CPU's own functions make more arrays of a block.
CPU_COPIES, CLIP_ARRAYS = 14, 6

# Values that weights are made of, again and again: drawing all of them would take longest.
DRAWN = 2**16

Progress = Callable[[str], object]


class Case(NamedTuple):
    """A configuration in a type, and what is foreseen for it. Memory is that of one clip."""

    model: str
    dtype: str
    flops: int
    seconds: float
    memory_gb: float
    refused: str | None  # Why it is not measured.


class Row(NamedTuple):
    """What was measured at a batch. Seconds are those of a clip, all of them medians."""

    model: str
    dtype: str
    batch: int
    seconds: float
    of_rate: float
    rate_gflops: float
    peak_gb: float
    rounds: int
    larger: str  # Why no larger batch is in the table: "no faster", "memory", "time" or "most".


def cases(names: tuple[str, ...] = tuple(RELEASES)) -> Iterator[Case]:
    """What is foreseen for each configuration and type, float32 first."""
    usable = memory.working_set()
    for dtype in TYPES:
        rate = machine.matrix_rate(dtype) * 1e9
        for name in names:
            flops = clip_flops(get_config(name))
            seconds, needed = flops / rate / EXPECTED_SHARE, needed_bytes(name, dtype, 1)
            refused = None
            if not fits(needed, usable):
                assert usable is not None
                refused = f"would need {needed / 1e9:.1f} of {usable / 1e9:.1f} GB of memory"
            elif seconds > LONGEST_CLIP:
                refused = f"would take about {seconds:.0f} s a clip"
            yield Case(name, dtype, flops, seconds, needed / 1e9, refused)


def fits(needed: float, usable: int | None) -> bool:
    """Whether that many bytes fit in the working set, with room for everything else."""
    return usable is None or needed <= MEMORY_SHARE * usable


def needed_bytes(name: str, dtype: str, batch: int) -> float:
    """An upper estimate of the bytes that a batch of clips takes, weights included."""
    config, kind = get_config(name), parse_dtype(dtype)
    frames, rows, columns = config["pos_emb_shape"]
    tokens = frames * rows * columns
    weights: int = sum(array.size for array in video_weights(get_model(name)).values()) * kind.size
    backend = device.backend()
    copies = CPU_COPIES if backend.clip_by_clip else device.GPU_COPIES
    blocks = copies * device.block_megabytes(kind) * 1e6 * len(backend.streams)
    pixels = 3 * config["patch_size"] ** 2 * tokens
    clip: int = 4 * (2 * pixels + CLIP_ARRAYS * tokens * config["model_dim"])
    return weights + blocks + batch * clip


def video_weights(model: VideoPrismModel) -> dict[str, mx.array]:
    """The parameters that clips need: all but those for texts."""
    parameters = named_parameters(model).items()
    return {name: array for name, array in parameters if not name.startswith("text_encoder.")}


def foreseen(planned: list[Case]) -> float:
    """About how many seconds the measurements will take."""
    passes = [case.seconds * (1 + ROUNDS + 2 * ROUNDS) for case in planned if not case.refused]
    return min(BUDGET, sum(passes))


def measure(
    planned: list[Case], progress: Progress = lambda _: None
) -> tuple[list[Row], list[Case]]:
    """The rows for each case that fits, at batch 1 and the best one, and the cases left out."""
    rows: list[Row] = []
    left_out = [case for case in planned if case.refused]
    wanted = [case for case in planned if not case.refused]
    usable, deadline = memory.working_set(), time.perf_counter() + BUDGET
    for number, case in enumerate(wanted):
        progress(f"{case.model} in {case.dtype}")
        left = deadline - time.perf_counter()
        if left <= 0 or (rows and 2 * case.seconds > left):
            why = f"no time is left; would take about {case.seconds:.0f} s a clip"
            left_out.append(case._replace(refused=why))
            continue
        rows += measured(case, left / (len(wanted) - number), usable)
    return rows, left_out


def measured(case: Case, seconds: float, usable: int | None) -> list[Row]:
    """The row at batch 1, and at the best batch if it is another. Takes about that long."""
    deadline = time.perf_counter() + seconds
    model = ready_model(case.model, case.dtype)
    started = time.perf_counter()
    forward(model, clips(case.model, 1))  # A first pass, to warm up.
    once = time.perf_counter() - started
    rounds = max(1, min(ROUNDS, int(0.4 * (deadline - time.perf_counter()) / once)))
    first = best = at_batch(model, case, 1, rounds)
    why = ""
    while not why:
        batch, left = 2 * best.batch, deadline - time.perf_counter()
        rounds = min(ROUNDS, int(left / (batch * best.seconds)))
        if batch > MOST_CLIPS:
            why = "most"
        elif not fits(needed_bytes(case.model, case.dtype, batch), usable):
            why = "memory"
        elif rounds < 1:
            why = "time"
        else:
            row = at_batch(model, case, batch, rounds)
            if row.of_rate < GAIN * best.of_rate:
                why = "no faster"
            else:
                best = row
    del model
    mx.clear_cache()
    rows = [first] if best is first else [first, best]
    return [row._replace(larger=why) for row in rows]


def at_batch(model: VideoPrismModel, case: Case, batch: int, rounds: int) -> Row:
    """The medians over the rounds. In each, first the rate is measured, then a pass."""
    video = clips(case.model, batch)
    seconds, rates = [], []
    mx.clear_cache()
    mx.reset_peak_memory()
    for _ in range(rounds):
        rates.append(machine.matrix_rate(case.dtype, times=2))
        started = time.perf_counter()
        forward(model, video)
        seconds.append((time.perf_counter() - started) / batch)
    of_rate = [case.flops / each / rate / 1e9 for each, rate in zip(seconds, rates, strict=True)]
    return Row(
        case.model,
        case.dtype,
        batch,
        statistics.median(seconds),
        statistics.median(of_rate),
        statistics.median(rates),
        mx.get_peak_memory() / 1e9,
        rounds,
        "",
    )


def ready_model(name: str | Mapping[str, Any], dtype: str) -> VideoPrismModel:
    """A model whose weights for clips are drawn and in memory."""
    model = get_model(name, dtype)
    drawn = mx.random.normal((DRAWN,), key=mx.random.key(0)) * 0.02
    weights = {
        name: drawn[mx.arange(array.size) % DRAWN].reshape(array.shape).astype(array.dtype)
        for name, array in video_weights(model).items()
        if array.ndim > 1
    }
    model.load_weights(list(weights.items()), strict=False)
    for array in video_weights(model).values():  # One by one, which needs the least memory.
        mx.eval(array)
    return model


def clips(name: str | Mapping[str, Any], batch: int) -> mx.array:
    """Random clips (B, T, H, W, 3) of the configuration's own size."""
    config = get_config(name)
    frames, rows, columns = config["pos_emb_shape"]
    side = config["patch_size"]
    shape = (batch, frames, rows * side, columns * side, 3)
    video = mx.random.uniform(shape=shape, key=mx.random.key(1))
    mx.eval(video)
    return video


def forward(model: VideoPrismModel, video: mx.array) -> None:
    """Computes the model's main output for clips (B, T, H, W, 3)."""
    mx.eval(model(video)[0])


def as_json(rows: list[Row], left_out: list[Case]) -> dict[str, Any]:
    """The rows, and what was left out and why, in values for JSON."""
    usable = memory.working_set()
    return {
        "measured": "clips only, without texts; random weights and clips",
        "working_set_gb": None if usable is None else usable / 1e9,
        "rows": [row._asdict() for row in rows],
        "left_out": [case._asdict() for case in left_out],
    }
