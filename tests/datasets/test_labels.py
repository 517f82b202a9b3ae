"""Lists and folders of labelled videos: what is in them, and what is refused."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from videoprism_mlx.datasets.labels import read_labels, read_names
from videoprism_mlx.errors import InputError


def listed(tmp_path: Path, rows: Any) -> Path:
    path = tmp_path / "list.json"
    path.write_text(json.dumps(rows))
    return path


def folders(root: Path, **classes: list[str]) -> Path:
    """Folders of empty files."""
    for name, files in classes.items():
        (root / name).mkdir(parents=True)
        for file in files:
            (root / name / file).parent.mkdir(exist_ok=True)
            (root / name / file).touch()
    return root


def test_the_list_of_the_official_demo(tmp_path: Path) -> None:
    rows = [
        {"file": "a/one.mp4", "label": "abseiling", "youtube_id": "x", "label_idx": 0},
        {"file": "/data/two.mp4", "label": "zumba", "label_idx": 1},
        {"file": "three.mp4", "label": "abseiling", "label_idx": 0},
    ]
    found = read_labels(listed(tmp_path, rows))
    assert found.videos == (tmp_path / "a/one.mp4", Path("/data/two.mp4"), tmp_path / "three.mp4")
    assert found.labels == ((0,), (1,), (0,))
    assert found.names == ("abseiling", "zumba") and not found.multi_label


def test_several_labels_and_images(tmp_path: Path) -> None:
    rows = [
        {"files": ["f0.png", "f1.png"], "label_idx": [2, 0, 2]},
        {"file": "b.mp4", "label_idx": []},
    ]
    found = read_labels(listed(tmp_path, rows))
    assert found.videos == ((tmp_path / "f0.png", tmp_path / "f1.png"), tmp_path / "b.mp4")
    assert found.labels == ((0, 2), ()) and found.multi_label and found.names is None


@pytest.mark.parametrize(
    "labels",
    [
        [(0, "a"), (2, "c")],  # Class 1 has no name.
        [(0, "a"), (0, "b"), (1, "c")],  # Class 0 has two.
        [(0, "a"), (1, "a")],
        [(0, "a"), (1, None)],
        [(0, "a"), (1, "")],
    ],
)
def test_names_that_do_not_add_up_are_none(labels: list[tuple], tmp_path: Path) -> None:
    rows = [{"file": f"{n}.mp4", "label_idx": i, "label": s} for n, (i, s) in enumerate(labels)]
    assert read_labels(listed(tmp_path, rows)).names is None


def test_lines_and_tables(tmp_path: Path) -> None:
    expected = (tmp_path / "a b.mp4", tmp_path / "c.mp4"), ((0,), (3,))
    (tmp_path / "x.csv").write_text("file,label_idx\na b.mp4,0\nc.mp4,3\n")
    (tmp_path / "x.TSV").write_text("file\tlabel_idx\na b.mp4\t0\nc.mp4\t 3\n")
    lines = [{"file": "a b.mp4", "label_idx": 0}, {"file": "c.mp4", "label_idx": 3}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    for name in ("x.csv", "x.TSV", "x.jsonl"):
        assert read_labels(tmp_path / name)[:2] == expected


def test_given_names_are_all_that_there_may_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"file": "a.mp4", "label": "other", "label_idx": 1}]
    assert read_labels(listed(tmp_path, rows), ["a", "b"]).names == ("a", "b")
    assert "gives class 1 the name 'other', but it is 'b' here" in caplog.text
    with pytest.raises(ValueError, match=r"list.json, entry 1: label_idx is 1; expected 0 to 0"):
        read_labels(listed(tmp_path, rows), ["a"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no entries"),
        ({"file": "a"}, "holds a dict; expected a list"),
        ([3], "entry 1: 3 is not an object"),
        ([{"label_idx": 0}], "entry 1: has 'label_idx'; expected video or file"),
        ([{"file": "a"}], "entry 1: has 'file'; expected label_idx"),
        ([{"file": "", "label_idx": 0}], "entry 1: the video is ''"),
        ([{"files": [], "label_idx": 0}], r"the video is \[\]"),
        ([{"file": "a", "label_idx": 0}, {"file": "b", "label_idx": -1}], "entry 2: .*is -1"),
        ([{"file": "a", "label_idx": 0.0}], "label_idx is 0.0; expected whole numbers from 0"),
        ([{"file": "a", "label_idx": True}], "label_idx is True"),
        ([{"file": "a", "label_idx": "cat"}], "label_idx is 'cat'"),
        ([{"file": "a", "label_idx": [0, -3]}], "label_idx is -3"),
        ([{"file": "a", "label_idx": [[0]]}], r"label_idx is \[0\]"),
        (
            [{"file": "a", "label_idx": 0}, {"file": "b", "label_idx": [0]}],
            r"entry 2: label_idx is \[0\]; expected one class, as in the entries before",
        ),
        (
            [{"file": "a", "label_idx": [0]}, {"file": "b", "label_idx": 0}],
            "entry 2: label_idx is 0; expected a list of classes",
        ),
    ],
)
def test_bad_lists(rows: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_labels(listed(tmp_path, rows))


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_labels(tmp_path / "gone.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        read_labels(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text in UTF-8"):
        read_labels(tmp_path / "x.json")
    (tmp_path / "x.csv").write_text('file,label_idx\n"' + "x" * 200_000 + '",1\n')
    with pytest.raises(ValueError, match=r"x.csv, after line 1: field larger than"):
        read_labels(tmp_path / "x.csv")


def test_a_folder_for_each_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folders(
        tmp_path / "data",
        dog=["clip10.mp4", "clip2.mp4", "deep/x.webm", "notes.txt", "frame.png", ".hidden.mp4"],
        cat=["a.avi"],
        bird=[],
    )
    (root / ".git").mkdir()
    (root / ".git" / "x.mp4").touch()
    (root / "loose.mp4").touch()
    found = read_labels(root)
    assert found.names == ("bird", "cat", "dog")
    assert [str(video.relative_to(root)) for video in found.videos] == [
        "cat/a.avi", "dog/clip2.mp4", "dog/clip10.mp4", "dog/deep/x.webm",
    ]  # fmt: skip
    assert found.labels == ((1,), (2,), (2,), (2,)) and not found.multi_label
    assert (
        "1 video in" in caplog.text and "is left out: not in the folder of a class" in caplog.text
    )


def test_folders_go_by_the_names_that_are_given(tmp_path: Path) -> None:
    root = folders(tmp_path / "data", cat=["a.mp4"], dog=["b.mp4"])
    found = read_labels(root, ["dog", "horse", "cat"])
    assert found.labels == ((2,), (0,)) and found.names == ("dog", "horse", "cat")
    with pytest.raises(ValueError, match="has a folder dog; expected one of the 2 classes: "):
        read_labels(root, ["cat", "horse"])


def test_letters_taken_apart_are_the_same(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "café")
    root = folders(tmp_path / "data", **{apart: ["a.mp4"]})
    (tmp_path / "names.txt").write_text("bar\n" + unicodedata.normalize("NFC", "café"))
    names = read_names(tmp_path / "names.txt")
    assert read_labels(root, names).labels == ((1,),)


@pytest.mark.parametrize("files", [[], ["x.txt"]])
def test_folders_without_videos(files: list[str], tmp_path: Path) -> None:
    root = folders(tmp_path / "data", cat=files)
    with pytest.raises(ValueError, match="has no folders with videos; expected one for each"):
        read_labels(root)


def test_names_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffcat\r\n  dog \r\nred panda\r\n\r\n".encode())
    assert read_names(path) == ("cat", "dog", "red panda")
    path.write_text("cat\n\ndog\n")
    with pytest.raises(ValueError, match=r"names.txt: the name of class 1 is ''"):
        read_names(path)
    path.write_text("cat\ndog\ncat\n")
    with pytest.raises(ValueError, match="classes 0 and 2 are both called 'cat'"):
        read_names(path)
    path.write_text("")
    with pytest.raises(ValueError, match="the name of class 0 is ''"):
        read_names(path)


def test_names_that_cannot_be_written_down(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not text in UTF-8"):
        read_labels(listed(tmp_path, [{"file": "a.mp4", "label": "\ud83d cat"}]))


def test_a_class_number_that_is_a_mistake(tmp_path: Path) -> None:
    rows = [{"file": "a.mp4", "label_idx": 10**9}]
    with pytest.raises(ValueError, match=r"has a class number 1000000000; .*--labels"):
        read_labels(listed(tmp_path, rows))


def test_a_video_of_two_classes_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"file": "a.mp4", "label_idx": 0}, {"file": "./a.mp4", "label_idx": 1}]
    read_labels(listed(tmp_path, rows))
    assert "1 video in" in caplog.text and "different classes" in caplog.text


def test_two_folders_of_one_name_are_one_class(tmp_path: Path) -> None:
    for form, name in (("NFC", "1.mp4"), ("NFD", "2.mp4")):
        folder = tmp_path / unicodedata.normalize(form, "café")
        folder.mkdir(exist_ok=True)  # Some systems have but one of the two.
        (folder / name).touch()
    found = read_labels(tmp_path)
    assert sorted(video.name for video in found.videos) == ["1.mp4", "2.mp4"]
    assert found.names == ("café",) and found.labels == ((0,), (0,))


def test_a_class_number_with_thousands_of_digits(tmp_path: Path) -> None:
    for key in ("label_idx", "label"):
        (tmp_path / "list.csv").write_text(f"file,{key}\na.mp4,{'1' * 5000}\n")
        with pytest.raises(InputError, match=f"line 2: {key} is '111.*; expected whole numbers"):
            read_labels(tmp_path / "list.csv")


def test_json_that_is_nested_too_deep(tmp_path: Path) -> None:
    for name in ("list.json", "list.jsonl"):
        (tmp_path / name).write_text("[" * 200_000)
        with pytest.raises(InputError, match="is not valid JSON"):
            read_labels(tmp_path / name)


@pytest.mark.parametrize("name", ["\ud83d.mp4", "a\0b.mp4"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    for rows in ([{"file": name, "label_idx": 0}], [{"files": [name], "label_idx": 0}]):
        with pytest.raises(InputError, match=r"entry 1: the video is .*; expected a path"):
            read_labels(listed(tmp_path, rows))
