"""Arrays of videos on disk: found again when they are the same, made anew when not."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videoprism_mlx.errors import VideoError
from videoprism_mlx.features.cache import ArrayCache, fill, require_usable
from videoprism_mlx.video.source import Files

RECORD = {"kind": "test", "size": 3}


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    """Files whose names say what is in them; the third is bad."""
    paths = [tmp_path / f"{number}.mp4" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_text("bad" if number == 2 else str(number))
    return paths


class Reader:
    """Reads the number in a file, and counts."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, files: Files) -> np.ndarray:
        path = files if isinstance(files, Path) else files[0]
        self.read.append(path.name)
        try:
            return np.full(3, int(path.read_text()), np.float16)
        except ValueError as error:
            raise VideoError(error) from None


def values(cache: ArrayCache, paths: list[Path | None]) -> list[int | None]:
    return [None if path is None else int(cache.load(path)[0]) for path in paths]


def test_arrays_are_made_once(
    videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, reader = ArrayCache(tmp_path / "cache", RECORD), Reader()
    paths, lines = fill(cache, videos, reader)
    assert values(cache, paths) == [0, 1, None, 3, 4]
    [line] = lines
    assert line.startswith(f"cannot be used: {videos[2]}: invalid literal for int()")
    assert line in capsys.readouterr().err
    assert sorted(reader.read) == [path.name for path in videos]

    again = Reader()
    paths, lines = fill(
        ArrayCache(tmp_path / "cache", dict(reversed(RECORD.items()))), videos, again
    )
    assert values(cache, paths) == [0, 1, None, 3, 4]
    assert again.read == ["2.mp4"] and len(lines) == 1  # It may have been mended.


def test_arrays_are_read_as_they_are_looked_at(videos: list[Path], tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "cache", RECORD)
    paths, _ = fill(cache, videos[:1], Reader())
    assert isinstance(cache.load(paths[0]), np.memmap)
    assert cache.load(paths[0]).dtype == np.float16


def test_what_is_read_is_finished_by_the_caller(videos: list[Path], tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "cache", RECORD)
    paths, _ = fill(cache, videos, Reader(), lambda array: array + 10)
    assert values(cache, paths) == [10, 11, None, 13, 14]


def test_a_video_that_is_listed_twice_is_read_once(videos: list[Path], tmp_path: Path) -> None:
    cache, reader = ArrayCache(tmp_path / "cache", RECORD), Reader()
    paths, lines = fill(cache, [videos[0], videos[2], videos[0], videos[2]], reader)
    assert values(cache, paths) == [0, None, 0, None]
    assert sorted(reader.read) == ["0.mp4", "2.mp4"] and len(lines) == 2


def test_another_version_of_a_video_is_another(videos: list[Path], tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "cache", RECORD)
    before, _ = fill(cache, videos[:1], Reader())
    videos[0].write_text("7")
    os.utime(videos[0], ns=(1, 1))
    after, _ = fill(cache, videos[:1], Reader())
    assert values(cache, after) == [7] and after != before
    assert videos[0].stat().st_size == 1  # It is the time that tells.


def test_another_record_is_another_folder(videos: list[Path], tmp_path: Path) -> None:
    one = ArrayCache(tmp_path / "cache", RECORD)
    other = ArrayCache(tmp_path / "cache", {**RECORD, "size": 4})
    assert one.folder != other.folder
    fill(one, videos[:1], Reader())
    reader = Reader()
    fill(other, videos[:1], reader)
    assert reader.read == ["0.mp4"]
    assert (one.folder / "record.json").read_text() == one.record


def test_images_of_a_folder_are_what_counts(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
    cache = ArrayCache(tmp_path / "cache", RECORD)
    before = cache.path(folder)
    assert before == cache.path((folder / "0.png", folder / "1.png"))
    assert before != cache.path((folder / "1.png", folder / "0.png"))
    os.utime(folder / "1.png", ns=(1, 1))
    assert cache.path(folder) != before


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    videos = [tmp_path / "gone.mp4", (tmp_path / "gone.png",), tmp_path / "empty", Path("a\0b")]
    cache = ArrayCache(tmp_path / "cache", RECORD)
    paths, lines = fill(cache, videos, Reader())
    assert paths == [None] * 4
    for line, name in zip(lines, ["gone.mp4", "gone.png", "empty", "a"], strict=True):
        assert line.startswith("cannot be used: ") and name in line


def test_the_size_is_said_before(
    videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ArrayCache(tmp_path / "cache", RECORD)
    said: list[str] = []

    def read(files: Files) -> np.ndarray:
        said.append(capsys.readouterr().err)
        return np.zeros(3)

    fill(cache, videos[:1], read, what="features", size=2_500_000)
    assert said[0].startswith("features: 1 of 1 video is new, and will take 2.5 MB in ")
    fill(cache, videos[:1], read, what="features", size=2_500_000)
    assert capsys.readouterr().err == ""


def test_only_bad_videos_are_forgiven(videos: list[Path], tmp_path: Path) -> None:
    def broken(array: np.ndarray) -> np.ndarray:
        raise ValueError("not the video's fault")

    with pytest.raises(ValueError, match="not the video's fault"):
        fill(ArrayCache(tmp_path / "cache", RECORD), videos, Reader(), broken)


def test_a_run_that_is_killed_leaves_nothing_half_written(
    videos: list[Path], tmp_path: Path
) -> None:
    script = f"""
import os, signal
from pathlib import Path
import numpy as np
from videoprism_mlx.errors import VideoError
from videoprism_mlx.features.cache import ArrayCache, fill
def save(file, array):
    file.write(b"half")
    file.flush()
    if int(array[0]) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    file.seek(0)
    original(file, array)
original, np.save = np.save, save
videos = [Path({str(tmp_path)!r}) / f"{{n}}.mp4" for n in (0, 1)]
read = lambda path: np.full(3, int(path.read_text()), np.float16)
fill(ArrayCache(Path({str(tmp_path / "cache")!r}), {RECORD!r}), videos, read)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    cache, reader = ArrayCache(tmp_path / "cache", RECORD), Reader()
    paths, _ = fill(cache, videos[:2], reader)
    assert values(cache, paths) == [0, 1] and reader.read == ["1.mp4"]
    left = {path.name for path in cache.folder.rglob("*") if path.is_file()}
    assert left == {"record.json", *(path.name for path in paths)}


def test_a_damaged_array_is_named(videos: list[Path], tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "cache", RECORD)
    [path], _ = fill(cache, videos[:1], Reader())
    for length in (0, 5, 100, path.stat().st_size - 2):
        path.write_bytes(path.read_bytes()[:length].ljust(length, b"\0"))
        with pytest.raises(ValueError, match=rf"{path} is damaged .* remove it"):
            cache.load(path)


def test_too_few_that_can_be_used() -> None:
    require_usable([], 3, skip_bad=False)
    require_usable(["one"], 3, skip_bad=True)
    with pytest.raises(ValueError, match=r"1 of 3 videos cannot be used.*--skip-bad"):
        require_usable(["one"], 3, skip_bad=False)
    with pytest.raises(ValueError, match="1 of 1 video cannot be used"):
        require_usable(["one"], 1, skip_bad=True)
