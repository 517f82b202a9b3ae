"""On Linux: OpenBLAS instead of the reference BLAS that MLX's wheel brings.

MLX finds its matrix products by symbol name, so a library loaded globally before it comes first.
On a Mac there is nothing to do. VIDEOPRISM_MLX_OPENBLAS=0 turns this off.
"""

import ctypes
import logging
import os
import sys

LIBRARY = "libopenblas.so.0"

logger = logging.getLogger(__name__)


def preload() -> bool:
    """Whether OpenBLAS is in place, loading it where it is installed; one hint where it is not."""
    if not sys.platform.startswith("linux") or os.environ.get("VIDEOPRISM_MLX_OPENBLAS") == "0":
        return False
    too_late = "mlx.core" in sys.modules
    try:
        # Too late, it can still have been loaded by whoever imported MLX.
        library = ctypes.CDLL(LIBRARY, mode=os.RTLD_GLOBAL | (os.RTLD_NOLOAD if too_late else 0))
        # Models work on a block a core at once; threads inside the products would stand in the way.
        if "OPENBLAS_NUM_THREADS" not in os.environ:
            library.openblas_set_num_threads(1)
        return True
    except OSError:
        pass
    if too_late:
        logger.warning(
            "mlx was imported before videoprism_mlx, which is too late to give it OpenBLAS: "
            "matrix products will be many times slower. Import videoprism_mlx first."
        )
    else:
        logger.warning(
            "OpenBLAS is not installed: matrix products will be many times slower. "
            "On Debian and Ubuntu: apt-get install libopenblas0-pthread. "
            "VIDEOPRISM_MLX_OPENBLAS=0 silences this."
        )
    return False
