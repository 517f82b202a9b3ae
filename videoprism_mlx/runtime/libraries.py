"""Libraries that are optional: what needs them, and how they are installed."""

import importlib
import importlib.util
import sys
from typing import Any

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
    "distributed": ("--scheduler and --workers", "videoprism_mlx[machines]"),
    "mteb": ("videoprism_mlx.mteb", "videoprism_mlx[mteb]"),
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


def import_later(package: str) -> None:
    """Puts off what a package imports in its `__init__` until something there is first used.

    Modules inside the package are imported as usual, and do not need it. It is for packages that
    a library imports and hardly uses. It does nothing if the package is imported or missing.
    """
    if package in sys.modules or (spec := importlib.util.find_spec(package)) is None:
        return
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    assert loader is not None  # It has an __init__.

    def look_up(name: str) -> Any:
        """An attribute that is not there yet: now the package is imported."""
        if name.startswith("__"):  # Asked for by the import system and by tools.
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        del module.__dict__["__getattr__"]
        loader.exec_module(module)
        return getattr(module, name)

    module.__dict__["__getattr__"] = look_up
    sys.modules[package] = module
