"""Which folders a command may write to."""

import re
from pathlib import Path

import pytest

from videoprism_mlx.errors import OutputError
from videoprism_mlx.files.output import require_own, visible


def require_demo(folder: Path) -> None:
    require_own(folder, "a demo", ["record.json"])


def require_run(folder: Path) -> None:
    require_own(folder, "a run", ["training", "state"], own={"config.json"})


def test_new_and_empty_folders_are_allowed(tmp_path: Path) -> None:
    for require in (require_demo, require_run):
        require(tmp_path / "missing")
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "empty" / ".DS_Store").touch()
        require(tmp_path / "empty")


def test_a_mark_allows_other_names_unless_they_are_listed(tmp_path: Path) -> None:
    for name in ("record.json", "notes.txt"):
        (tmp_path / name).touch()
    require_demo(tmp_path)

    run = tmp_path / "run"
    (run / "training").mkdir(parents=True)
    (run / "config.json").touch()
    require_run(run)
    (run / "thesis.txt").touch()
    message = re.escape(f"{run} holds something other than a run, such as thesis.txt; name a new")
    with pytest.raises(OutputError, match=message):
        require_run(run)


def test_without_a_mark_even_known_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(OutputError, match=r"such as config\.json"):
        require_run(tmp_path)
    (tmp_path / "state").touch()  # Any of the marks will do.
    require_run(tmp_path)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file; expected a new folder"):
        require_demo(tmp_path / "file")


def test_visible_names(tmp_path: Path) -> None:
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).touch()
    assert visible(tmp_path) == ["a", "b"]
    assert visible(tmp_path / "missing") == visible(tmp_path / "a") == []
