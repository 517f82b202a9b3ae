"""How much more than the official model a device may round, because it sums in another order.

Added one after the other in float32, K random terms end with a relative error of 0.30 sqrt(K)
roundings of 2**-24. XLA on a CPU, where the official model was run, adds at most BLOCK terms in
this way, and then the sums of the blocks: from there on, the error hardly grows. OpenBLAS does the
same with blocks of a similar size, and is held to the bound of XLA. A GPU, Accelerate or the
reference BLAS may add all terms one after the other.
"""

import math
import sys
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.runtime import blas

BLOCK = 384


def growth(terms: int) -> float:
    """How many times the rounding of XLA on a CPU the default device's may be, at most.

    `terms` is the length of the longest sum of the computation.
    """
    return 1.0 if sums_in_blocks() else math.sqrt(max(1.0, terms / BLOCK))


def sums_in_blocks() -> bool:
    """Whether MLX's default device is known to sum in blocks, as XLA does on a CPU.

    On a Mac, MLX uses Accelerate, even where another package has loaded OpenBLAS.
    """
    is_cpu_of_linux = sys.platform.startswith("linux") and mx.default_device().type == mx.cpu
    return is_cpu_of_linux and hasattr(blas.loaded(), "openblas_get_config")


def first_equal(rows: npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The place of each row (N, ...) that differs from those before it, in their order.

    What is computed of those alone is equal for equal rows, which a product or a model may round
    differently by their place in a batch. The second array (N,) has for each row the number, among
    those, of the one that it equals.
    """
    numbers: dict[bytes, int] = {}
    places = [numbers.setdefault(row.tobytes(), len(numbers)) for row in rows]
    return np.unique(places, return_index=True)[1], np.array(places, np.intp)
