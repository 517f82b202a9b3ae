"""On Linux: makes MLX use OpenBLAS instead of the slow reference BLAS that its wheel contains.

MLX looks up its matrix products by symbol name. A library that is loaded globally before MLX is
found first. On a Mac, nothing is needed. VIDEOPRISM_MLX_OPENBLAS says which library it is:

- unset: the one in the wheel scipy-openblas32; where that cannot be used, the system's
- `0`: none
- `system`: the system's
- any other value: the library with this path
"""

import ctypes
import logging
import os
import sys

from videoprism_mlx.errors import MissingLibraryError, in_words

VARIABLE = "VIDEOPRISM_MLX_OPENBLAS"
SYSTEM_LIBRARY = "libopenblas.so.0"

logger = logging.getLogger(__name__)


def preload() -> bool:
    """Loads OpenBLAS, on Linux only. Returns whether it is loaded; if not, logs what to do."""
    choice = os.environ.get(VARIABLE, "")
    if not sys.platform.startswith("linux") or choice == "0":
        return False
    library = loaded()  # Who loaded a library before us, in whatever way, has chosen it.
    if library is None and "mlx.core" in sys.modules:
        logger.warning(
            "mlx was imported before videoprism_mlx, so it cannot use OpenBLAS: "
            "matrix products will be many times slower. Import videoprism_mlx first."
        )
        return False
    try:
        library = library or _load(choice)
    except (OSError, MissingLibraryError) as error:
        logger.warning(
            "OpenBLAS cannot be used: %s. Matrix products will be many times slower. "
            "%s=0 silences this.",
            in_words(error),
            VARIABLE,
        )
        return False
    # Each core computes a block of its own. Threads inside matrix products would slow it down.
    if "OPENBLAS_NUM_THREADS" not in os.environ and hasattr(library, "openblas_set_num_threads"):
        library.openblas_set_num_threads(1)
    return True


def loaded() -> ctypes.CDLL | None:
    """The libraries that are loaded for all, if one has the matrix products. MLX takes them."""
    everything = ctypes.CDLL(None)
    return everything if hasattr(everything, "cblas_sgemm") else None


def _load(choice: str) -> ctypes.CDLL:
    """Loads the library that the variable names."""
    if choice:
        return _load_named(choice)
    try:
        from videoprism_mlx.runtime import openblas

        return openblas.load()
    except (OSError, MissingLibraryError) as error:
        try:
            library = ctypes.CDLL(SYSTEM_LIBRARY, mode=os.RTLD_GLOBAL)
        except OSError:
            raise error from None
        logger.info("the system's OpenBLAS is used: %s", in_words(error))
        return library


def _load_named(choice: str) -> ctypes.CDLL:
    """Loads the system's library, or the one with this path."""
    path = SYSTEM_LIBRARY if choice == "system" else os.path.expanduser(choice)
    try:
        library = ctypes.CDLL(path, mode=os.RTLD_GLOBAL)
    except OSError as error:
        raise OSError(
            f"{VARIABLE} is {choice!r}, expected 0, system or the path of a library ({error})"
        ) from None
    if not hasattr(library, "cblas_sgemm"):
        raise OSError(f"{VARIABLE} is {choice!r}, and this library has no cblas_sgemm")
    return library
