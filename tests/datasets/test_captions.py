"""Lists of videos with captions: what is in them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from videoprism_mlx.datasets.captions import read_captions


def listed(tmp_path: Path, rows: Any) -> Path:
    path = tmp_path / "list.json"
    path.write_text(json.dumps(rows))
    return path


def test_captions_hold_whatever_characters(tmp_path: Path) -> None:
    said = "one\u2028line\x0b, with \x85 odd ends"
    (tmp_path / "x.jsonl").write_text(
        json.dumps({"video": "a.mp4", "caption": said}, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )
    assert read_captions(tmp_path / "x.jsonl")[0].captions == (said,)
    (tmp_path / "x.csv").write_text(f'video,caption\na.mp4,"{said}"\n', encoding="utf-8")
    assert read_captions(tmp_path / "x.csv")[0].captions == (said,)
    (tmp_path / "x.json").write_text('[{"video": "a.mp4", "caption": 3}]')
    with pytest.raises(ValueError, match="entry 1: the caption is 3; expected a text"):
        read_captions(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "video,caption\na.mp4,a dog, running\n",
            r"line 2: has 1 more field .*' running'; put quotes",
        ),
        ('video,caption\na.mp4,"a dog\nb.mp4,a cat\n', "after line"),
        ("video,caption\na.mp4\n", "line 2: has 'video'; expected caption or captions"),
        ("video;caption\na.mp4;a dog\n", "line 2: has 'video;caption'; expected video or file"),
        ("video,caption\n", "has no entries"),
    ],
)
def test_captions_are_not_cut_or_swallowed(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path / "list.csv")


def test_headings_with_spaces(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text('video, caption\nx/../a.mp4,"one, two"\na.mp4,three\n')
    [pair] = read_captions(tmp_path / "list.csv")
    assert pair == (tmp_path / "a.mp4", ("one, two", "three"))


@pytest.mark.parametrize("captions", [[], [""], None])
def test_a_video_without_captions_is_not_dropped(captions: Any, tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "captions": captions}, {"video": "b.mp4", "captions": ["x"]}]
    with pytest.raises(ValueError, match="entry 1"):
        read_captions(listed(tmp_path, rows))


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; expected a CSV with the columns video and"):
        read_captions(tmp_path)
