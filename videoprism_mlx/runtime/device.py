"""How each kind of device is used best: fast functions, and work cut into blocks.

On a GPU, MLX's own functions are used, and one stream. On the CPU, a stream keeps one core busy,
so blocks take turns on one stream for each core, and gelu and capped exp are approximations that
are exact to float32 rounding (see functions.py). `plain()` turns off all of this, and every other
shortcut of the model, for comparison.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

from videoprism_mlx.errors import InputError
from videoprism_mlx.runtime import functions, memory, tuning
from videoprism_mlx.runtime.functions import Function
from videoprism_mlx.runtime.limits import available_cores

# Default size of the largest array inside a block, in megabytes. On the CPU: what stays in its
# caches, two frames of the base model.
CPU_BLOCK = 6.4

# On a GPU, it is this share of the working set, between these sizes. A forward pass takes up to
# GPU_COPIES times as much (docs/speed.md), an eighth of the working set in all. GPU_BLOCK is for
# a GPU that tells nothing.
GPU_COPIES = 8
GPU_SHARE = 1 / (8 * GPU_COPIES)
GPU_BLOCK, LEAST_GPU_BLOCK, MOST_GPU_BLOCK = 128.0, 32.0, 512.0

# Bytes of freed memory that MLX may keep on the CPU. Its own default there is 32 MB.
CPU_CACHE = 256 * 2**20

# On a GPU, MLX keeps nearly all that was ever freed. Where the working set is smaller than this,
# as on a Mac of 16 GB, it keeps only a share, so that other programs are not swapped out.
SMALL_WORKING_SET, GPU_CACHE_SHARE = 12e9, 1 / 4

# Work on fewer elements than this is not cut into blocks, nor a batch of such clips into clips.
LEAST_WORK = 2**18

FLOAT32_BYTES = 4

Rows = mx.array | None
Result = TypeVar("Result")

_plain: ContextVar[bool] = ContextVar("plain", default=False)
_block_megabytes: float | None = None


class Backend(NamedTuple):
    """How a kind of device is used best."""

    gelu: Function
    capped_exp: Callable[[float], Function]  # The function for each cap.
    block_megabytes: float
    streams: Sequence[mx.Stream | None]  # Blocks take turns on them. None is the current stream.
    clip_by_clip: bool  # Whether the clips of a batch are faster one by one.
    dequantizes: bool = False  # Whether a quantized weight is dequantized for each product.


@contextmanager
def plain() -> Iterator[None]:
    """In the block, models compute step by step as the official model does, all rows at once."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def is_plain() -> bool:
    """Whether shortcuts are turned off."""
    return _plain.get()


def set_block_size(megabytes: float | None) -> None:
    """Limits the largest array inside a model's layers. Smaller blocks need less memory.

    Very small blocks are slower. None restores what `check --tune` found for this machine, or the
    default: 6.4 MB for each core on the CPU, on a GPU from 32 to 512 MB, by its memory.
    """
    global _block_megabytes
    if megabytes is not None and not 0 < megabytes < math.inf:
        raise InputError(f"the block size is {megabytes!r}; expected megabytes, above 0, or None")
    _block_megabytes = megabytes


@contextmanager
def block_size(megabytes: float) -> Iterator[None]:
    """In the block, the largest array has at most that many megabytes, whatever was set before."""
    before = _block_megabytes
    set_block_size(megabytes)
    try:
        yield
    finally:
        set_block_size(before)


def backend() -> Backend:
    """The backend of MLX's default device."""
    return cpu_backend() if mx.default_device().type == mx.cpu else gpu_backend()


@functools.cache
def gpu_backend() -> Backend:
    """The backend of a GPU."""
    usable = memory.working_set(mx.gpu)
    if usable is not None and usable < SMALL_WORKING_SET:
        lower_cache_limit(int(usable * GPU_CACHE_SHARE))
    # Metal multiplies by quantized weights. What other GPUs do with them was not tried.
    dequantizes = not mx.metal.is_available()
    block = gpu_block(usable)
    return Backend(nn.gelu, functions.capped_exp, block, [None], False, dequantizes)


def gpu_block(usable: int | None) -> float:
    """The default megabytes of a block on a GPU with that working set in bytes."""
    if usable is None:
        return GPU_BLOCK
    return min(max(usable * GPU_SHARE / 1e6, LEAST_GPU_BLOCK), MOST_GPU_BLOCK)


@functools.cache
def cpu_backend() -> Backend:
    """The backend of the CPU."""
    # MLX keeps freed memory for the next block. The system would clear it each time.
    lower_cache_limit(CPU_CACHE)
    new_stream = getattr(mx, "new_thread_local_stream", mx.new_stream)
    streams = [new_stream(mx.cpu) for _ in range(available_cores())]
    gelu, capped_exp = functions.rational_gelu, functions.rational_capped_exp
    return Backend(gelu, capped_exp, CPU_BLOCK, streams, True, True)


def lower_cache_limit(limit: int) -> None:
    """Limits the bytes of freed memory that MLX keeps, unless the limit is lower already."""
    before = mx.set_cache_limit(limit)
    if before < limit:
        mx.set_cache_limit(before)


def gelu(inputs: mx.array) -> mx.array:
    """GELU: x times the probability that a standard normal variable is below x."""
    return cast(Function, nn.gelu)(inputs) if is_plain() else backend().gelu(inputs)


def fits(elements: int, dtype: mx.Dtype) -> bool:
    """Whether a model of type `dtype` may make an array of that many elements at once."""
    return is_plain() or elements <= block_elements(dtype)


def block_elements(dtype: mx.Dtype) -> float:
    """How many elements the largest array may have in a model of type `dtype`.

    In half precision it is half as many as in float32. The logits are float32 even there.
    """
    return block_megabytes(dtype) * 1e6 / FLOAT32_BYTES * (dtype.size / FLOAT32_BYTES)


def block_megabytes(dtype: mx.Dtype) -> float:
    """The block size in force: the user's, that of `check --tune`, or the default."""
    return _block_megabytes or tuned_block(dtype) or backend().block_megabytes


def tuned_block(dtype: mx.Dtype) -> float | None:
    """The megabytes that `check --tune` found faster than the default on this machine, if any."""
    return tuning.kept(mx.default_device().type).get(str(dtype).removeprefix("mlx.core."))


def in_blocks(
    function: Callable[..., mx.array], arrays: Sequence[Rows], row_elements: int, axis: int = 0
) -> mx.array:
    """`function` of arrays with the same number of rows along `axis`, a block of rows at a time.

    The function must treat every row independently. `row_elements` is the size of the largest
    array that it makes of one row. Only the first array is required: an array of None stays None,
    and one with a single row goes to every block.
    """
    if is_plain():
        return function(*arrays)
    first = cast(mx.array, arrays[0])
    rows = first.shape[axis]
    streams = backend().streams
    count = math.ceil(rows * row_elements / block_elements(first.dtype))
    if rows * row_elements >= LEAST_WORK:
        count = math.ceil(max(count, 1) / len(streams)) * len(streams)  # No stream is idle.
    count = min(count, rows)
    if count <= 1:
        return function(*arrays)

    results: list[mx.array] = []
    cuts = [rows * block // count for block in range(count + 1)]
    for block in range(count):
        stream = streams[block % len(streams)]
        with mx.stream(stream or mx.default_stream(mx.default_device())):
            parts = [part(array, cuts[block], cuts[block + 1], axis) for array in arrays]
            if block >= len(streams):  # Wait for the stream's last block, to free its memory.
                parts[0] = after(parts[0], [results[block - len(streams)]])
            results.append(function(*parts))
    return mx.concatenate(results, axis)


def by_clip(function: Callable[..., Result], arrays: Sequence[Rows]) -> Result:
    """`function` of arrays (B, ...), one clip after the other where that is faster.

    It may return any nesting of arrays (B, ...). They are joined again.
    """
    first = cast(mx.array, arrays[0])
    count = len(first)
    is_small = first.size < count * LEAST_WORK
    if count == 1 or is_small or is_plain() or not backend().clip_by_clip:
        return function(*arrays)
    results: list[Result] = []
    for clip in range(count):
        parts = [part(array, clip, clip + 1, axis=0) for array in arrays]
        if results:
            parts[0] = after(parts[0], arrays_in(results[-1]))
        results.append(function(*parts))
    return cast(Result, tree_map(lambda *clips: mx.concatenate(list(clips)), *results))


def arrays_in(tree: object) -> list[mx.array]:
    """The arrays in any nesting of tuples, lists and dictionaries."""
    found = cast(list[tuple[str, mx.array]], tree_flatten(tree))
    return [array for _, array in found]


def part(array: Rows, start: int, stop: int, axis: int) -> Rows:
    """Rows of an array. An array with a single row, which is for all, is returned as it is."""
    if array is None or array.shape[axis] == 1:
        return array
    return array[(slice(None),) * axis + (slice(start, stop),)]


def after(array: Rows, done: list[mx.array]) -> mx.array:
    """The same array, to be used once the arrays of `done` are computed."""
    return cast(list[mx.array], mx.depends([cast(mx.array, array)], done))[0]
