"""Files with several names, odd times, and names and folders that cannot be read."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from drawn_clips import add, contents, copy_clips

import videoprism_mlx as vp
from videoprism_mlx.errors import InputError
from videoprism_mlx.files.places import real_path
from videoprism_mlx.library.indexing.scan import scan
from videoprism_mlx.library.table import Tables


def test_a_file_that_got_another_name_and_was_changed_stays_one_entry(tmp_path: Path) -> None:
    clips, library = copy_clips(tmp_path / "clips", 1), tmp_path / "library"
    known, link = clips / "0.mp4", clips / "-before.mp4"
    add(library, clips)
    os.link(known, link)
    [other] = copy_clips(tmp_path / "other", 1, first=5).iterdir()
    known.write_bytes(other.read_bytes())
    assert os.path.samefile(known, link)
    assert add(library, clips).encoded == 1
    assert add(library, clips).encoded == 0
    add(tmp_path / "whole", other)
    [moments] = contents(tmp_path / "whole").values()
    assert contents(library) == {str(known): moments}


def test_a_folder_in_another_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Mac finds `MOVIES` as `Movies`. Here a link stands for that, which no list shows."""
    clips, library = copy_clips(tmp_path / "Movies", 2), tmp_path / "library"
    (tmp_path / "MOVIES").symlink_to(clips)
    listed, resolved = os.listdir, os.path.realpath
    absolute = lambda path, **_: os.path.abspath(path)  # noqa: E731
    monkeypatch.setattr("videoprism_mlx.files.places.sys.platform", "darwin")
    monkeypatch.setattr(
        "videoprism_mlx.files.places.os.listdir",
        lambda folder: [name for name in listed(folder) if name != "MOVIES"],
    )
    monkeypatch.setattr(os.path, "realpath", absolute)
    add(library, clips)
    again = add(library, tmp_path / "MOVIES")
    assert (again.videos, again.encoded, again.moved) == (2, 0, 0)
    everywhere, typed = vp.Where(), vp.Where(folder=tmp_path / "MOVIES")
    found = [
        {moment.path for moment in vp.Library(library).search("a star", where=where)}
        for where in (everywhere, typed)
    ]
    assert found == [{str(clips / "0.mp4"), str(clips / "1.mp4")}] * 2
    monkeypatch.setattr(os.path, "realpath", resolved)
    assert real_path(tmp_path / "Gone" / "x") == str(tmp_path / "Gone" / "x")


def test_the_date_follows_the_time_of_a_file_that_has_no_other(tmp_path: Path) -> None:
    clips, library = copy_clips(tmp_path / "clips", 1), tmp_path / "library"
    clip = clips / "0.mp4"
    for time in (1e9, 1.5e9):
        os.utime(clip, (time, time))
        add(library, clips)
        assert [row["date"] for row in Tables.open(library).rows()] == [time]
    clip.rename(clips / "moved.mp4")
    os.utime(clips / "moved.mp4", (1.25e9, 1.25e9))
    assert add(library, clips).moved == 1
    assert [row["date"] for row in Tables.open(library).rows()] == [1.25e9]


def test_a_time_that_no_table_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, library = copy_clips(tmp_path / "clips", 2), tmp_path / "library"
    real = os.stat

    def late(path: str | Path, **options: Any) -> Any:
        seen = real(path, **options)
        values = {name: getattr(seen, name) for name in dir(seen) if name.startswith("st_")}
        time = 2**65 if str(path).endswith("0.mp4") else seen.st_mtime_ns
        return SimpleNamespace(**values | {"st_mtime_ns": time})

    monkeypatch.setattr(os, "stat", late)
    assert add(library, clips).encoded == 2
    assert add(library, clips).encoded == 0


def test_a_folder_whose_files_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_clips(tmp_path / "clips" / "closed", 2)
    copy_clips(tmp_path / "clips" / "open", 1)
    real = Path.is_file

    def is_file(path: Path) -> bool:
        if path.parent.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    found = scan([tmp_path / "clips"])
    assert [file.path.parent.name for file in found.files] == ["open"]
    closed = str(tmp_path / "clips" / "closed")
    assert found.unreadable == {closed: f"{closed}: there is no permission to read or write it"}
    assert not found.covers(f"{closed}/0.mp4")


def test_a_folder_that_is_no_text(tmp_path: Path) -> None:
    add(tmp_path / "library", copy_clips(tmp_path / "clips", 1))
    where = vp.Where(folder=os.fsdecode(os.fsencode(tmp_path) + b"/d\xfe"))
    with pytest.raises(InputError, match="is not UTF-8, so no library holds it; rename it"):
        vp.Library(tmp_path / "library").search("a red ball", where=where)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip.mp4")
    found = scan([tmp_path / "clip.mp4"])
    assert found.files == []
    [why] = found.problems.values()
    assert why == f"{tmp_path / 'clip.mp4'} is neither a file nor a folder, but a pipe or device"
