"""How much more than the official model a device may round, because it sums in another order.

Added one after the other in float32, K random terms end with a relative error of 0.30 sqrt(K)
roundings of 2**-24. XLA on a CPU, where the official model was run, and OpenBLAS add at most BLOCK
terms in this way, and then the sums of the blocks: from there on, their error hardly grows.
A GPU, Accelerate or the reference BLAS may add all terms one after the other.
"""

import math

import mlx.core as mx

from videoprism_mlx.runtime import blas

BLOCK = 384


def growth(terms: int) -> float:
    """How many times the rounding of XLA on a CPU the default device's may be, at most.

    `terms` is the length of the longest sum of the computation.
    """
    return 1.0 if sums_in_blocks() else math.sqrt(max(1.0, terms / BLOCK))


def sums_in_blocks() -> bool:
    """Whether MLX's default device is known to sum in blocks, as XLA does on a CPU."""
    is_cpu = mx.default_device().type == mx.cpu
    return is_cpu and hasattr(blas.loaded(), "openblas_get_config")
