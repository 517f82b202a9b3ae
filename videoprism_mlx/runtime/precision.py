"""The precision of float32 matrix products: full by default, on every device.

On GPUs with matrix units (the M5 generation of Macs, CUDA), MLX rounds the factors of float32
products to 10 bits after the point (TF32), unless MLX_ENABLE_TF32 is 0. It reads that variable
once, at the first product of the process.
"""

import functools
import logging
import os
import sys
from typing import Any

VARIABLE = "MLX_ENABLE_TF32"

# Full precision, and the reduced one.
FULL, REDUCED = "float32", "tf32"

# A factor that float32 holds and TF32 does not, and the side of a product that matrix units take.
FACTOR, SIDE = 1 + 2**-12, 256

logger = logging.getLogger(__name__)


def prefer_full() -> None:
    """Turns reduced precision off, unless the user has chosen. Logs if it is too late for that."""
    if VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = "0"
    if "mlx.core" in sys.modules and in_force() != FULL:
        logger.warning(
            "MLX computed a product before videoprism_mlx was imported, so float32 products have "
            "reduced precision (TF32) in this process. Import videoprism_mlx first, or set %s=0.",
            VARIABLE,
        )


def in_force() -> str:
    """The precision of float32 products on MLX's default device, as measured: "float32", "tf32".

    From the first call on, the variable has no effect any more.
    """
    import mlx.core as mx  # Here, because the variable is set before MLX is imported.

    return measured(str(mx.default_device()))


@functools.cache
def measured(device: str) -> str:
    """The precision on a device, which is the default one."""
    import mlx.core as mx

    factors = mx.full((SIDE, SIDE), FACTOR, mx.float32)
    # Each sum has one term, so that it has no rounding of its own.
    is_exact = mx.all(product(factors, mx.eye(SIDE)) == factors)
    return FULL if is_exact.item() else REDUCED


def product(one: Any, other: Any) -> Any:
    """The matrix product as MLX computes it."""
    return one @ other
