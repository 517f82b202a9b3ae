"""What every training does: where it may write, and which videos it can use."""

from pathlib import Path

import pytest

from videoprism_mlx.errors import InputError, OutputError
from videoprism_mlx.training.session import Source, check_output, fill_all


def test_where_a_run_may_write(tmp_path: Path) -> None:
    output = tmp_path / "out"
    check_output(output, ["labels.json"])
    (output / "training").mkdir(parents=True)
    for name in (".DS_Store", "config.json", "labels.json", "training/last.safetensors"):
        (output / name).touch()
    check_output(output, ["labels.json"])
    (output / "training" / "notes.txt").touch()
    with pytest.raises(
        OutputError, match=r"training holds something other than .* such as notes.txt"
    ):
        check_output(output, ["labels.json"])
    (output / "training" / "notes.txt").unlink()
    with pytest.raises(OutputError, match=r"such as labels.json; name a new or empty folder"):
        check_output(output, [])
    with pytest.raises(OutputError, match=r"is a file; expected a new folder"):
        check_output(output / "config.json", [])
    (tmp_path / "model").mkdir()
    check_output(tmp_path / "model", [])
    (tmp_path / "model" / "config.json").touch()  # A model that no run made.
    with pytest.raises(OutputError, match=r"such as config.json"):
        check_output(tmp_path / "model", [])


def test_a_file_where_the_run_should_be(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "training").touch()
    with pytest.raises(OutputError, match="training is a file; expected a new folder"):
        check_output(tmp_path / "out", [])


def source(name: str, good: int, bad: int) -> Source:
    paths = [Path(f"{name}{number}.npy") for number in range(good)] + [None] * bad
    return Source(name, lambda: (paths, [f"{name}: bad"] * bad))


def test_bad_videos_of_all_sources_are_counted() -> None:
    with pytest.raises(InputError, match="3 of 7 videos cannot be used"):
        fill_all([source("one", 3, 1), source("two", 1, 2)], skip_bad=False)
    paths, skipped = fill_all([source("one", 3, 1), source("two", 1, 2)], skip_bad=True)
    assert [len(each) for each in paths] == [4, 3]
    assert skipped == ["one: bad", "two: bad", "two: bad"]


def test_a_source_without_a_good_video_is_named() -> None:
    with pytest.raises(InputError, match="none of the 2 videos of two can be used"):
        fill_all([source("one", 3, 1), source("two", 0, 2)], skip_bad=True)
    with pytest.raises(InputError, match="3 of 6 videos cannot be used"):
        fill_all([source("one", 3, 1), source("two", 0, 2)], skip_bad=False)
