"""`import videoprism_mlx.pictures` costs next to nothing."""

import subprocess
import sys

import pytest

from videoprism_mlx import pictures


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, videoprism_mlx.pictures\n"
        "heavy = {'PIL', 'av', 'cv2', 'matplotlib', 'mlx', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from videoprism_mlx.pictures import draw_features, feature_colours\n"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    assert all(callable(getattr(pictures, name)) for name in pictures.__all__)
    with pytest.raises(AttributeError, match="no attribute 'draw_nothing'"):
        pictures.draw_nothing  # noqa: B018
