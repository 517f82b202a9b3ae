"""`embed` and a folder that holds something else: another format, or someone's notes."""

import shutil
from pathlib import Path

import media
import pytest
from commands import run

import videoprism_mlx as vp
from videoprism_mlx.errors import OutputError
from videoprism_mlx.features import embed as embedding

TINY = "videoprism_lvt_demo_tiny"


@pytest.mark.parametrize(("first", "then"), [("npz", "jsonl"), ("jsonl", None), ("jsonl", "npz")])
def test_formats_are_not_mixed(
    first: str,
    then: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video, output = shutil.copy(media.clip("b.mp4"), tmp_path / "b.mp4"), tmp_path / "out"
    vp.embed(video, output, TINY, format=first)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    options = () if then is None else ("--format", then)
    wishes = ("embed", video, "-o", output, "--model", TINY, *options)
    with monkeypatch.context() as patched:
        patched.setattr(embedding, "prepare", None)  # Nothing is loaded.
        assert run(*wishes) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert (
        f"{output} holds features in .{first} files, and this run would add .{then or 'npz'}"
        in line
    )
    assert f"give --format {first} " in line and "begin anew with --overwrite" in line
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before

    assert run(*wishes, "--overwrite") == 0
    assert sorted(path.name for path in output.iterdir() if path.name[0] != ".") == [
        f"b.mp4.{then or 'npz'}",
        "record.json",
    ]
    assert run(*wishes) == 0


def test_notes_where_unfinished_features_would_be(tmp_path: Path) -> None:
    video = shutil.copy(media.clip("b.mp4"), tmp_path / "b.mp4")
    for output, folder, advice in (
        (tmp_path / "u.npz", tmp_path / ".u.npz.parts", "move them elsewhere, or name another out"),
        (tmp_path / "v", tmp_path / "v", "name a new or empty folder"),
    ):
        folder.mkdir()
        (folder / "notes.txt").touch()
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"such as notes\.txt; " + advice) as refused:
                vp.embed(video, output, TINY, overwrite=overwrite)
            begin = f"{output} cannot be written: the folder {folder} beside it, for unfinished "
            assert str(refused.value).startswith(begin if output != folder else f"{folder} holds ")
