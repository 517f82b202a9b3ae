"""Where things are kept on this machine."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """Where models, tokenizers and features are kept: VIDEOPRISM_MLX_CACHE moves it.

    A cache in ~/.cache, where earlier versions put it on every system, goes on being used.
    """
    if moved := os.environ.get("VIDEOPRISM_MLX_CACHE"):
        return Path(moved).expanduser()
    earlier = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videoprism_mlx"
    if earlier.is_dir():
        return earlier
    from platformdirs import user_cache_path  # Not above: a script that sets the place needs none.

    return user_cache_path("videoprism_mlx", appauthor=False)
