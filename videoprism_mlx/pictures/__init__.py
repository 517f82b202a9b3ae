"""Features, similarity and training as pictures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videoprism_mlx.pictures.colours import feature_colours, principal_components
    from videoprism_mlx.pictures.curves import draw_curves, write_curves
    from videoprism_mlx.pictures.film import write_feature_video
    from videoprism_mlx.pictures.probes import write_probes
    from videoprism_mlx.pictures.sheets import draw_features, draw_search
    from videoprism_mlx.pictures.timeline import draw_timeline, find_peaks

__all__ = [
    "draw_curves",
    "draw_features",
    "draw_search",
    "draw_timeline",
    "feature_colours",
    "find_peaks",
    "principal_components",
    "write_curves",
    "write_feature_video",
    "write_probes",
]

# The module of each name. It is imported when the name is first used.
_HOME_OF = {
    "draw_curves": "curves",
    "draw_features": "sheets",
    "draw_search": "sheets",
    "draw_timeline": "timeline",
    "feature_colours": "colours",
    "find_peaks": "timeline",
    "principal_components": "colours",
    "write_curves": "curves",
    "write_feature_video": "film",
    "write_probes": "probes",
}


if not TYPE_CHECKING:  # To a type checker it would say that every name exists, with any type.

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
