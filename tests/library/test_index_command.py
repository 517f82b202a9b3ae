"""The commands `index` and `library`, as a person uses them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drawn_clips import copy_clips

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.models import DEMO_MODEL


def run(*words: object) -> int:
    """Runs a command in this process, and returns its exit code."""
    return main([str(word) for word in words])


def test_from_a_folder_to_a_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips, place = copy_clips(tmp_path / "clips", 2), ["--library", tmp_path / "library"]
    assert run("index", clips, *place, "--model", DEMO_MODEL) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"2 videos: 2 encoded ({place[1]})",
        f"to search them: videoprism-mlx serve --open --library {place[1]}",
    ]
    assert run("index", clips, *place) == 0
    assert capsys.readouterr().err == f"2 videos: nothing new ({place[1]})\n"
    (clips / "bad.mp4").write_text("no video")
    (clips / "0.mp4").unlink()
    assert run("index", clips, *place, "--json") == 1
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["videos"], result["missing"], [*result["skipped"]]) == (
        *(2, 1, [str(clips / "bad.mp4")]),
    )
    assert printed.err.splitlines()[0].startswith(f"skipped: {clips / 'bad.mp4'} is text")
    assert run("library", "errors", *place) == 0
    assert capsys.readouterr().out.startswith(f"{clips / 'bad.mp4'} is text")
    assert run("library", "info", *place) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["model"] == f"{DEMO_MODEL}, float16"
    assert lines["moments"] == "1"  # Of the video that is there.
    assert lines["videos"] == "1, 2 s" and lines["errors"].startswith("1 file (")
    assert re.fullmatch(r"\d+ kB", lines["size"])
    assert run("library", "info", *place, "--json") == 0
    assert json.loads(capsys.readouterr().out)["missing"] == 1
    assert run("library", "verify", *place) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 file is not there:",
        f"  {clips / '0.mp4'}",
        "2 videos, 2 moments, 1 file that cannot be used: whole",
    ]
    assert run("library", "export", tmp_path / "out.npz", *place) == 0
    assert capsys.readouterr().err == f"1 moment is in {tmp_path / 'out.npz'}\n"
    assert run("library", "prune", *place) == 0
    assert capsys.readouterr().out == f"{clips / '0.mp4'}\n"
    assert run("library", "compact", *place) == 0
    (clips / "1.mp4").unlink()
    assert run("library", "verify", *place) == 1
    assert "1.mp4: the file is not there" in capsys.readouterr().out


def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips, place = copy_clips(tmp_path / "clips", 1), ["--library", tmp_path / "library"]
    for words, said in (
        (["library", "info", *place], "there is no library at"),
        (["index", tmp_path / "nowhere", *place], "no such file or folder"),
        (["index", clips, *place, "--model", "videoprism_public_v1_base"], "has no embedding"),
        (["index", clips, "--library", clips], "holds something other than a library"),
        (["library", "export", tmp_path / "out.txt", *place], "does not end in .npz"),
    ):
        assert run(*words) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert said in line
    assert not (tmp_path / "library").exists()


def test_it_is_stopped_and_continues(tmp_path: Path) -> None:
    clips, library = copy_clips(tmp_path / "clips", 2), tmp_path / "library"
    words = ("index", clips, "--library", library, "--model", DEMO_MODEL, "--watch")
    running = subprocess.Popen(
        [sys.executable, "-m", "videoprism_mlx", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
    )
    ends = time.monotonic() + 120
    while not (library / "moments.lance").exists() and time.monotonic() < ends:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGTERM)
    _, errors = running.communicate()
    assert running.returncode == 143
    assert errors.splitlines()[-2:] == [
        "finished videos are kept; run the same command to continue",
        "videoprism-mlx: stopped",
    ]
    assert [*library.glob("locks/*")] == []
    model = vp.load(DEMO_MODEL)
    vp.Library(library).add(clips, model, progress=False)
    assert vp.Library(library).verify().problems == ()
