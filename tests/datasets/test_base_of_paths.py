"""Which folder the paths in a list are relative to."""

import json
from pathlib import Path
from typing import Any

import pytest

from videoprism_mlx.datasets.captions import read_captions
from videoprism_mlx.datasets.labels import read_labels

# The first entries of the official demo's k400_test_10shot.json, as they are.
OFFICIAL = """[{"file": "vc_data/k400/test/-aU-xCCzkT0_000061_000071.mp4", "label": "abseiling",
"youtube_id": "-aU-xCCzkT0", "label_idx": 0}, {"file":
"vc_data/k400/test/013SMb0SX8I_000020_000030.mp4", "label": "air drumming", "youtube_id":
"013SMb0SX8I", "label_idx": 1}]"""
FILES = ("-aU-xCCzkT0_000061_000071.mp4", "013SMb0SX8I_000020_000030.mp4")


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """The list of the official demo, in the folders of the demo. The videos are not there yet."""
    path = tmp_path / "vc_data" / "k400_examples" / "k400_test_10shot.json"
    path.parent.mkdir(parents=True)
    path.write_text(OFFICIAL)
    return path


def put(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


@pytest.mark.parametrize("there", [FILES, FILES[1:]])
def test_the_official_list_as_it_is(there: tuple[str, ...], demo: Path, tmp_path: Path) -> None:
    put(tmp_path / "vc_data" / "k400" / "test", *there)
    found = read_labels(demo)
    assert [*found.videos] == [tmp_path / "vc_data/k400/test" / name for name in FILES]
    assert (found.labels, found.names) == (((0,), (1,)), ("abseiling", "air drumming"))


def test_a_list_given_by_a_relative_path(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = put(tmp_path / "vc_data" / "k400" / "test", *FILES)
    monkeypatch.chdir(demo.parent)
    assert [*read_labels(demo.name).videos] == videos


def test_the_folder_of_the_list_comes_first(demo: Path, tmp_path: Path) -> None:
    put(tmp_path / "vc_data" / "k400" / "test", *FILES)
    beside = put(demo.parent / "vc_data" / "k400" / "test", FILES[1])[0].parent
    assert [*read_labels(demo).videos] == [beside / name for name in FILES]


def test_missing_videos_are_named_beside_the_list(demo: Path) -> None:
    beside = demo.parent / "vc_data/k400/test"
    assert [*read_labels(demo).videos] == [beside / name for name in FILES]


@pytest.mark.parametrize("value", ["clips/a.mp4", ["clips/a.mp4", "clips/b.mp4"]])
def test_captions_and_lists_of_images(value: Any, tmp_path: Path) -> None:
    put(tmp_path / "clips", "a.mp4", "b.mp4")
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists" / "captions.json"
    rows = [{"files": value, "caption": "a dog"}]
    listed.write_text(json.dumps(rows))
    [pair] = read_captions(listed)
    names = [value] if isinstance(value, str) else value
    expected = tuple(tmp_path / name for name in names)
    assert pair.video == (expected if isinstance(value, list) else expected[0])
