"""On Linux: makes MLX use OpenBLAS instead of the slow reference BLAS that its wheel contains.

MLX looks up its matrix products by symbol name. A library that is loaded globally before MLX is
found first. On a Mac, nothing is needed. VIDEOPRISM_MLX_OPENBLAS=0 turns this off.
"""

import ctypes
import logging
import os
import sys

LIBRARY = "libopenblas.so.0"

logger = logging.getLogger(__name__)


def preload() -> bool:
    """Loads OpenBLAS, on Linux only. Returns whether it is loaded; if not, logs what to do."""
    if not sys.platform.startswith("linux") or os.environ.get("VIDEOPRISM_MLX_OPENBLAS") == "0":
        return False
    too_late = "mlx.core" in sys.modules
    try:
        # If MLX is imported already, look only for an OpenBLAS that is loaded already.
        library = ctypes.CDLL(LIBRARY, mode=os.RTLD_GLOBAL | (os.RTLD_NOLOAD if too_late else 0))
        # Each core computes a block of its own. Threads inside matrix products would slow it down.
        if "OPENBLAS_NUM_THREADS" not in os.environ:
            library.openblas_set_num_threads(1)
        return True
    except OSError:
        pass
    if too_late:
        logger.warning(
            "mlx was imported before videoprism_mlx, so it cannot use OpenBLAS: "
            "matrix products will be many times slower. Import videoprism_mlx first."
        )
    else:
        logger.warning(
            "OpenBLAS is not installed: matrix products will be many times slower. "
            "On Debian and Ubuntu: apt-get install libopenblas0-pthread. "
            "VIDEOPRISM_MLX_OPENBLAS=0 silences this."
        )
    return False
