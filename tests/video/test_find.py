"""Finding videos, whatever they are called."""

import shutil
from pathlib import Path
from typing import Any

import media
import pytest

from videoprism_mlx.errors import InputError, VideoError
from videoprism_mlx.video.find import find_videos, natural_order
from videoprism_mlx.video.sampling import read_video


def numbers(source: Any, num_frames: int | None = None, **options: Any) -> list[int]:
    """The numbers of the frames that are read, in full size."""
    return media.numbers(read_video(source, num_frames, size=None, **options))


NAMES = [
    "a clip.mp4",
    "vidéo 影片 🎬.mp4",
    "frame_%03d.mp4",
    "frame_001.mp4",
    "-i.mp4",
    "--help",
    "concat:a.mp4",
    "file:b.mp4",
    "http:c.mp4",
    "data:d.mp4",
    "a|b.mp4",
    "what?[1]*.mp4",
    "back\\slash.mp4",
    "line\nbreak.mp4",
    "$HOME '\".mp4",
    "~tilde.mp4",
    "CLIP.MP4",
    "ending",
    "wrong.mkv",
    ".hidden",
    "x" * 240 + ".mp4",
]


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    shutil.copy(media.clip("two.mp4"), path)
    assert numbers(path) == [0, 1]
    assert numbers(str(path)) == [0, 1]
    (tmp_path / "link.mp4").symlink_to(path)
    assert numbers(tmp_path / "link.mp4") == [0, 1]
    assert find_videos([path]) == {name: path}
    monkeypatch.chdir(tmp_path)
    assert numbers(name) == [0, 1]
    assert find_videos([name]) == {name: Path(name)}


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(media.clip("two.mp4"), tmp_path / "clip.mp4")
    assert numbers("~/clip.mp4") == [0, 1]
    assert find_videos(["~/*.mp4"]) == {"clip.mp4": tmp_path / "clip.mp4"}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder of files that are called like videos."""
    names = (
        *("clip_10.mp4", "clip_2.mp4", "b/clip_2.MKV", "b/c/deep.webm", "b/._clip.mp4"),
        *("notes.txt", "still.png", ".secret.mp4", "b/scan.MOV"),
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    return tmp_path


def test_videos_of_a_folder(library: Path) -> None:
    found = find_videos([library])
    assert list(found) == [
        *("clip_2.mp4", "clip_10.mp4", "b/clip_2.MKV", "b/scan.MOV", "b/c/deep.webm")
    ]
    assert all(path == library / name for name, path in found.items())
    assert find_videos([library / "b"]).keys() == {"clip_2.MKV", "scan.MOV", "c/deep.webm"}
    assert find_videos([str(library) + "/", library]) == found


def test_videos_by_pattern(library: Path) -> None:
    found = find_videos([f"{library}/*.mp4"])
    assert list(found) == ["clip_2.mp4", "clip_10.mp4"]
    assert find_videos([f"{library}/**/clip_*"]).keys() == {
        *("clip_2.mp4", "clip_10.mp4", "clip_2.MKV")
    }
    assert find_videos([f"{library}/clip_?.mp4"]).keys() == {"clip_2.mp4"}
    assert find_videos([f"{library}/notes.*"]).keys() == {"notes.txt"}


def test_videos_by_name(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(library)
    found = find_videos(["clip_10.mp4", "notes.txt", library / "clip_10.mp4", "./clip_10.mp4"])
    assert found == {"clip_10.mp4": Path("clip_10.mp4"), "notes.txt": Path("notes.txt")}
    assert find_videos(["missing.mp4"]) == {"missing.mp4": Path("missing.mp4")}
    assert find_videos([]) == {}


def test_a_name_that_looks_like_a_pattern(tmp_path: Path) -> None:
    for name in ("a[1].mp4", "a1.mp4"):
        (tmp_path / name).touch()
    assert find_videos([tmp_path / "a[1].mp4"]).keys() == {"a[1].mp4"}


def test_names_that_collide(library: Path) -> None:
    (library / "b/clip_10.mp4").touch()
    with pytest.raises(ValueError, match=r"would have the same name, clip_10\.mp4"):
        find_videos([library / "clip_10.mp4", library / "b/clip_10.mp4"])
    with pytest.raises(ValueError, match=r"would have the same name, clip_10\.mp4"):
        find_videos([f"{library}/**/*.mp4"])


def test_nothing_found(library: Path) -> None:
    (library / "empty").mkdir()
    (library / "empty/._clip.mp4").touch()
    with pytest.raises(VideoError, match="and its subfolders hold no videos"):
        find_videos([library / "empty"])
    for pattern in ("*.avi", "empty/*.mp4", "folder.*"):
        with pytest.raises(VideoError, match="no file matches"):
            find_videos([f"{library}/{pattern}"])


def test_links_that_lead_in_a_circle(library: Path) -> None:
    (library / "b" / "up").symlink_to(library)
    (library / "elsewhere").mkdir()
    (library / "elsewhere" / "linked.mp4").touch()
    (library / "b" / "over").symlink_to(library / "elsewhere")
    found = find_videos([library / "b"])
    assert {"clip_2.MKV", "scan.MOV", "c/deep.webm", "over/linked.mp4"} <= set(found)


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "10.png"],
        ["a1b9.png", "a1b10.png", "a2b1.png"],
        ["1²3.png", "1²4.png"],
        ["٣.png", "4.png"],
    ],
)
def test_natural_order(names: list[str]) -> None:
    paths = [Path(name) for name in reversed(names)]
    assert [path.name for path in sorted(paths, key=natural_order)] == names


def test_a_name_with_a_very_long_number() -> None:
    name = "1" * 5000 + ".mp4"
    assert find_videos([name]) == {name: Path(name)}
    paths = [Path("9" * 5000), Path("1" * 5001), Path("2")]
    assert sorted(paths, key=natural_order)[0] == Path("2")


@pytest.mark.parametrize("name", ["a\0b.mp4", "\ud83d.mp4", "~\0", "~\ud83d", "a\0*"])
def test_names_that_no_file_can_have(name: str) -> None:
    for read in (read_video, lambda name: read_video([name]), lambda name: find_videos([name])):
        with pytest.raises(InputError, match=r"'.*' is not a valid path; correct it"):
            read(name)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Two folders of images, and a file that is neither image nor video."""
    for name in ("one/1.png", "one/2.png", "deep/two/1.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_of_images_is_a_video(frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_videos([frames / "one"]) == {"one": frames / "one"}
    both = {"one": frames / "one", "deep/two": frames / "deep/two"}
    assert find_videos([frames]) == both
    assert find_videos([f"{frames}/o*"]) == {"one": frames / "one"}
    monkeypatch.chdir(frames / "one")
    assert find_videos(["."]) == {"one": Path(".")}
    (frames / "clip.mp4").touch()  # Beside videos, images are no frames.
    assert find_videos([frames]) == {"clip.mp4": frames / "clip.mp4"}


def test_names_are_as_long_as_it_takes(tmp_path: Path) -> None:
    for name in ("x/b/clip.mp4", "y/b/clip.mp4", "y/other.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    paths = [tmp_path / name for name in ("x/b/clip.mp4", "y/b/clip.mp4", "y/other.mp4")]
    expected = ["x/b/clip.mp4", "y/b/clip.mp4", "other.mp4"]
    assert find_videos(paths, lengthen=True) == dict(zip(expected, paths, strict=True))
    found = find_videos([tmp_path / "x", tmp_path / "y"], lengthen=True)
    assert sorted(found) == sorted(expected)
