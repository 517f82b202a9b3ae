"""Libraries that are optional: what needs them, and how they are installed."""

import importlib

from videoprism_mlx.errors import MissingLibraryError

# What needs each library, and what to install for it.
OPTIONAL = {
    "matplotlib": ("timeline, and the curves of train", "videoprism_mlx[pictures]"),
    "argcomplete": ("shell completion", "videoprism_mlx[completion]"),
    "pyarrow": ("Parquet files of embed", "videoprism_mlx[parquet]"),
    "lancedb": ("index, search, library and serve", "videoprism_mlx[library]"),
    "watchfiles": ("index --watch", "videoprism_mlx[library]"),
    "starlette": ("serve", "videoprism_mlx[library]"),
    "uvicorn": ("serve", "videoprism_mlx[library]"),
}


def require_library(module: str, what: str) -> None:
    """Imports a module of an optional library. `what` is what it is needed for.

    Raises MissingLibraryError if it is not installed.
    """
    library = module.partition(".")[0]
    try:
        importlib.import_module(module)
    except ImportError:
        raise MissingLibraryError(
            f"{what} needs {library}: pip install '{OPTIONAL[library][1]}'"
        ) from None
