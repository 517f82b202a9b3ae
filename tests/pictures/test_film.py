"""Films of frames beside their colours."""

from pathlib import Path

import media
import numpy as np
import pytest

from videoprism_mlx.pictures import write_feature_video
from videoprism_mlx.video.ffmpeg.reader import VideoFile


def tinted(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames and colours, all of one colour."""
    return np.full((count, 32, 32, 3), 90, np.uint8), np.full((count, 4, 4, 3), 50, np.uint8)


@pytest.mark.parametrize("size", [(96, 128), (97, 129)])
def test_a_film(size: tuple[int, int], tmp_path: Path) -> None:
    frames = np.stack([media.frame(n, size[1], size[0]) for n in range(20)])
    colours = np.zeros((20, 4, 4, 3), np.uint8)
    colours[..., 1] = (np.arange(20) * 12)[:, None, None]
    write_feature_video(tmp_path / "film.mp4", frames, colours, fps=5)
    film = VideoFile(tmp_path / "film.mp4")
    np.testing.assert_allclose(film.times, np.arange(20) / 5)
    for number, page in enumerate(film.fetch(range(20))):
        assert media.number(page[: size[0], : size[1]]) == number
        side = page[: size[0], size[1] + 8 : 2 * size[1] + 8]
        assert abs(side[..., 1].mean() - 12 * number) < 4
    film.close()


@pytest.mark.parametrize(
    ("name", "counts", "fps", "message"),
    [
        ("film.avi", (2, 2), 8, r"film\.avi does not end in \.mp4"),
        ("film.mp4", (2, 3), 8, "differ in number: one ends after 2"),
        ("film.mp4", (0, 0), 8, "no frames to write"),
        ("film.mp4", (2, 2), 0, "fps is 0; expected a number above zero"),
    ],
)
def test_bad_films(
    name: str, counts: tuple[int, int], fps: float, message: str, tmp_path: Path
) -> None:
    frames, colours = tinted(max(counts))
    with pytest.raises(ValueError, match=message):
        write_feature_video(tmp_path / name, frames[: counts[0]], colours[: counts[1]], fps=fps)


def test_a_film_that_cannot_be_written(tmp_path: Path) -> None:
    frames, colours = tinted(2)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        write_feature_video(tmp_path / "missing" / "film.mp4", frames, colours)
