"""Videos that are trained on and validated on are warned of."""

import logging
from pathlib import Path

import pytest

from videoprism_mlx.datasets.overlap import warn_of_overlap


def test_overlap_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    warn_of_overlap([tmp_path / "a.mp4"], [tmp_path / "b.mp4"])
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        warn_of_overlap([tmp_path / "a.mp4"], [tmp_path / "link.mp4", tmp_path / "b.mp4"])
    assert "1 of 2 videos to validate on is trained on as well" in caplog.text
