"""The columns of a list that say which classes a video has: by name, or by number."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from videoprism_mlx.datasets.labels import Labelled, read_labels


def write_csv(path: Path, *rows: Sequence[Any]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_labels_by_name(tmp_path: Path) -> None:
    rows = [["video", "label"], ["a.mp4", "run"], ["b.mp4", "cafe\u0301 visit"], ["c.mp4", "run "]]
    path = write_csv(tmp_path / "list.csv", *rows)
    found = read_labels(path)
    assert found.names == ("caf\u00e9 visit", "run")
    assert found.labels == ((1,), (0,), (1,)) and not found.multi_label
    assert found.videos[0] == tmp_path / "a.mp4"
    names = ("jump", "run", "caf\u00e9 visit")
    assert read_labels(path, names).labels == ((1,), (2,), (1,))
    assert read_labels(path, names).names == names
    with pytest.raises(ValueError, match=r"line 3: label is .* or one of jump, run"):
        read_labels(path, ("jump", "run"))
    several = tmp_path / "list.json"
    several.write_text(json.dumps([{"file": "a.mp4", "label": ["run", "jump"]}]))
    assert read_labels(several).labels == ((0, 1),) and read_labels(several).multi_label


def test_labels_by_number(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["video", "label"], ["a.mp4", "3"], ["b.mp4", "0"])
    assert read_labels(path)._replace(videos=()) == Labelled((), ((3,), (0,)), False, None)
    assert read_labels(path, ["a", "b", "c", "d"]).labels == ((3,), (0,))
    with pytest.raises(ValueError, match="label is 3; expected 0 to 1 or one of a, b"):
        read_labels(path, ["a", "b"])
    both = [["video", "label_idx", "label"], ["a.mp4", "1", "run"], ["b.mp4", "0", "jump"]]
    assert read_labels(write_csv(tmp_path / "b.csv", *both)).names == ("jump", "run")
    assert read_labels(write_csv(tmp_path / "b.csv", *both)).labels == ((1,), (0,))
    mixed = write_csv(tmp_path / "c.csv", ["video", "label"], ["a.mp4", "2010"], ["b.mp4", "run"])
    assert read_labels(mixed).names == ("2010", "run")
    with pytest.raises(ValueError, match="has 'video', 'caption'; expected label_idx or label"):
        read_labels(write_csv(tmp_path / "d.csv", ["video", "caption"], ["a.mp4", "run"]))
