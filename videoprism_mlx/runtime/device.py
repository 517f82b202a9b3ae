"""What is done in another way on each kind of device, and how work is cut into blocks.

On a GPU, MLX's own functions are used. On the CPU its exp, tanh and erf take one element at a time
and a stream takes one core: there, rational approximations that are good to float32 rounding are
used, and blocks go to a stream for each core. `plain()` turns off all of it, and every other
shortcut of the model, for comparison.
"""

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

from videoprism_mlx.errors import InputError

# Megabytes of the largest array inside a block, by default. On the CPU, what stays in its caches:
# two frames of the base model. On a GPU, enough to keep it busy.
CPU_BLOCK, GPU_BLOCK = 6.4, 128.0

# Bytes that MLX may keep on the CPU, where its own limit is 32 MB.
CPU_CACHE = 256 * 2**20

# Rows that make fewer elements than this are not worth cutting up, nor a batch of clips that small.
LEAST_WORK = 2**18

FLOAT32_BYTES = 4

Function = Callable[[mx.array], mx.array]
Rows = mx.array | None

_plain: ContextVar[bool] = ContextVar("plain", default=False)
_block_megabytes: float | None = None


class Backend(NamedTuple):
    """How a kind of device is used best."""

    gelu: Function
    capped_exp: Callable[[float], Function]  # By the cap.
    block_megabytes: float
    streams: Sequence[mx.Stream | None]  # To take turns with; None is the current one.
    clip_by_clip: bool  # Whether a batch is better taken apart.


@contextmanager
def plain() -> Iterator[None]:
    """Within it, models compute step by step as the official one does, all rows at once."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def is_plain() -> bool:
    """Whether shortcuts are off."""
    return _plain.get()


def set_block_size(megabytes: float | None) -> None:
    """Bounds the largest array inside a model's layers: less memory, at some point less speed.

    None is the default, 6.4 MB on the CPU (for each core) and 128 MB on a GPU.
    """
    global _block_megabytes
    if megabytes is not None and not 0 < megabytes < math.inf:
        raise InputError(f"the block size is {megabytes!r}; expected megabytes, above 0, or None")
    _block_megabytes = megabytes


def backend() -> Backend:
    """That of the current device."""
    return _cpu() if mx.default_device().type == mx.cpu else _gpu()


def gelu(inputs: mx.array) -> mx.array:
    """x times the share of the normal distribution below x."""
    return nn.gelu(inputs) if is_plain() else backend().gelu(inputs)


def fits(elements: int, dtype: mx.Dtype) -> bool:
    """Whether so many elements may be made at once in a model of that type."""
    return is_plain() or elements <= block_elements(dtype)


def block_elements(dtype: mx.Dtype) -> float:
    """How many elements may be made at once in a model of that type.

    In half precision fewer, for they may be logits, which are float32: half a model, half a block.
    """
    megabytes = _block_megabytes or backend().block_megabytes
    return megabytes * 1e6 / FLOAT32_BYTES * (dtype.size / FLOAT32_BYTES)


def in_blocks(
    function: Callable[..., mx.array], arrays: Sequence[Rows], row_elements: int, axis: int = 0
) -> mx.array:
    """`function` of arrays that are alike along an axis, for so many rows at a time as fit.

    It must treat rows alone. `row_elements` is the size of the largest array it makes of one.
    An array of None stays None.
    """
    if is_plain():
        return function(*arrays)
    rows = arrays[0].shape[axis]
    streams = backend().streams
    count = math.ceil(rows * row_elements / block_elements(arrays[0].dtype))
    if rows * row_elements >= LEAST_WORK:
        count = math.ceil(max(count, 1) / len(streams)) * len(streams)  # So that none is idle.
    count = min(count, rows)
    if count <= 1:
        return function(*arrays)

    results: list[mx.array] = []
    cuts = [rows * block // count for block in range(count + 1)]
    for block, stream in zip(range(count), (streams * count)[:count], strict=True):
        with mx.stream(stream or mx.default_stream(mx.default_device())):
            parts = [part(array, cuts[block], cuts[block + 1], axis) for array in arrays]
            if block >= len(streams):  # One after the other: what is done needs no memory.
                parts[0] = mx.depends([parts[0]], [results[block - len(streams)]])[0]
            results.append(function(*parts))
    return mx.concatenate(results, axis)


def by_clip(function: Callable[..., Any], arrays: Sequence[Rows]) -> Any:
    """`function` of arrays (B, ...), one clip after the other where that is better.

    What it returns, arrays (B, ...) in whatever order, is put together again.
    """
    count = len(arrays[0])
    is_small = arrays[0].size < count * LEAST_WORK
    if count == 1 or is_small or is_plain() or not backend().clip_by_clip:
        return function(*arrays)
    results: list[Any] = []
    for clip in range(count):
        parts = [part(array, clip, clip + 1, axis=0) for array in arrays]
        if results:
            done = [array for _, array in tree_flatten(results[-1])]
            parts[0] = mx.depends([parts[0]], done)[0]
        results.append(function(*parts))
    return tree_map(lambda *clips: mx.concatenate(clips), *results)


def part(array: Rows, start: int, stop: int, axis: int) -> Rows:
    """Rows of an array; of one that has a single row, for all, that one."""
    if array is None or array.shape[axis] == 1:
        return array
    return array[(slice(None),) * axis + (slice(start, stop),)]


# The GPU.


@functools.cache
def _gpu() -> Backend:
    return Backend(nn.gelu, _gpu_capped_exp, GPU_BLOCK, [None], False)


@functools.cache
def _gpu_capped_exp(cap: float) -> Function:
    return mx.compile(lambda x: mx.exp(cap * mx.tanh(x / cap)))


# The CPU.


@functools.cache
def _cpu() -> Backend:
    keep_buffers()
    new_stream = getattr(mx, "new_thread_local_stream", mx.new_stream)
    streams = [new_stream(mx.cpu) for _ in range(os.cpu_count() or 1)]
    return Backend(_cpu_gelu, _cpu_capped_exp, CPU_BLOCK, streams, True)


def keep_buffers() -> None:
    """Lets MLX keep memory for the next block. What it gives back, the system clears each time."""
    limit = mx.set_cache_limit(CPU_CACHE)
    if limit > CPU_CACHE:
        mx.set_cache_limit(limit)


# Coefficients of P and Q in x * P(x * x) / Q(x * x), fitted for the least greatest error, and
# where the function is 1 to rounding.
ERF = (
    (1.12837915, 0.189667238, 0.0526681519, 3.73836765e-3, 2.85063252e-4, 2.06647709e-6),
    (1.0, 0.501420995, 0.113819142, 0.0149143201, 1.15738246e-3, 3.82701172e-5),
    3.9,
)
TANH = (
    (
        1.0,
        0.131243502,
        3.14936519e-3,
        1.16424489e-5,
        -2.23146851e-8,
        6.36554481e-11,
        -1.15643398e-13,
    ),
    (1.0, 0.464576817, 0.0246750022, 2.61297495e-4),
    8.0,
)

# 2**x is the sum of (x ln 2)**n / n!, for |x| of a half at most.
POWERS_OF_TWO = tuple(math.log(2) ** n / math.factorial(n) for n in range(7))

# e**x is the sum of x**n / n!, for x of -1.2 to 0.
POWERS_OF_E = tuple(1 / math.factorial(n) for n in range(10))

# Added and taken away again, it leaves the nearest integer of a float32.
ROUNDING = 1.5 * 2**23

# Beyond this cap, what is added up would leave float32.
LARGEST_CAP = 60.0


def polynomial(coefficients: Sequence[float], x: mx.array) -> mx.array:
    """The sum of c[n] * x**n."""
    result = coefficients[-1] * x + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        result = result * x + coefficient
    return result


def odd_rational(
    coefficients: tuple[Sequence[float], Sequence[float], float], x: mx.array
) -> mx.array:
    """An odd function that becomes 1."""
    above, below, end = coefficients
    x = mx.clip(x, -end, end)
    square = x * x
    return x * polynomial(above, square) / polynomial(below, square)


# For each shape: with `shapeless`, what is constant under a gradient keeps an earlier shape.
@mx.compile
def _fused_gelu(inputs: mx.array) -> mx.array:
    x = inputs.astype(mx.float32)
    share = 0.5 + 0.5 * odd_rational(ERF, x * 2**-0.5)
    return (mx.maximum(x, -8.0) * share).astype(inputs.dtype)  # Beyond, the share is rounding.


@mx.custom_function
def _cpu_gelu(inputs: mx.array) -> mx.array:
    return _fused_gelu(inputs)


@_cpu_gelu.vjp
def _cpu_gelu_vjp(inputs: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
    return _fused_gelu_slope(inputs, cotangent)


@mx.compile
def _fused_gelu_slope(inputs: mx.array, cotangent: mx.array) -> mx.array:
    x = mx.clip(inputs.astype(mx.float32), -6.0, 6.0)  # Beyond, the slope is 0 or 1 to rounding.
    share = 0.5 + 0.5 * odd_rational(ERF, x * 2**-0.5)
    bell = polynomial(POWERS_OF_E, x * x * (-0.5 / 16))
    for _ in range(4):  # To the power of 16.
        bell = bell * bell
    slope = share + x * bell * (2 * math.pi) ** -0.5
    return cotangent * slope.astype(cotangent.dtype)


@functools.cache
def _cpu_capped_exp(cap: float) -> Function:
    """exp(cap * tanh(x / cap)) of float32."""

    @mx.compile
    def parts(x: mx.array) -> tuple[mx.array, mx.array]:
        power = odd_rational(TANH, x / cap) * (cap / math.log(2))
        whole = (power + ROUNDING) - ROUNDING
        exponent_bits = mx.left_shift(whole.astype(mx.int32) + 127, 23)
        return polynomial(POWERS_OF_TWO, power - whole), exponent_bits

    @mx.custom_function
    def capped_exp(x: mx.array) -> mx.array:
        fraction, exponent_bits = parts(x)
        return fraction * exponent_bits.view(mx.float32)

    @capped_exp.vjp
    def vjp(x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
        return slope(x, cotangent, output)

    @mx.compile
    def slope(x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
        return cotangent * output * (1 - mx.square(odd_rational(TANH, x / cap)))

    return capped_exp
