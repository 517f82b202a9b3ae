"""Runs that are killed, and runs at the same time: the library ends as after one whole run."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import drawn_clips
import pytest
from drawn_clips import add, contents, copy_clips

import videoprism_mlx as vp
from videoprism_mlx.demo.scenes import draw_scenes
from videoprism_mlx.demo.world import write_world
from videoprism_mlx.files.lock import Claim
from videoprism_mlx.library.indexing.view import View
from videoprism_mlx.library.storage import LOCKS
from videoprism_mlx.library.table import Tables
from videoprism_mlx.models import DEMO_MODEL

SCRIPT = """
import sys, videoprism_mlx as vp
print(vp.Library(sys.argv[1]).add(sys.argv[2], sys.argv[3], progress=False).encoded, flush=True)
"""

# How often `make attack` kills, and the number of its clips.
KILLS, CLIPS = 100, 200


class Killed(BaseException):
    """Ends a run where it is."""


def start(library: Path, clips: Path) -> "subprocess.Popen[str]":
    """Indexes clips in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, str(library), str(clips), DEMO_MODEL]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_after(run: "subprocess.Popen[str]", library: Path, seconds: float) -> None:
    """Kills a run so many seconds after it has made the library."""
    while not (library / "moments.lance" / "_versions").exists() and run.poll() is None:
        time.sleep(0.005)
    time.sleep(seconds)
    run.send_signal(signal.SIGKILL)
    run.communicate()


def require_whole(library: Path, right: drawn_clips.Shown) -> None:
    """A library holds what an unbroken run writes, and nothing else."""
    assert contents(library) == right
    verified = vp.Library(library).verify()
    assert (verified.problems, verified.missing) == ((), ())
    count = sum(map(len, right.values()))
    assert Tables.open(library).moments.count_rows() == count
    assert [*(library / LOCKS).iterdir()] == []


def killed_before(monkeypatch: pytest.MonkeyPatch, method: str, call: int) -> None:
    """Ends a run before a call of a method of View or Tables, and leaves its claims as a kill."""
    owner = View if hasattr(View, method) else Tables
    real: Callable[..., object] = getattr(owner, method)
    calls = iter(range(1000))

    def maybe(*arguments: object) -> object:
        if next(calls) == call:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(owner, method, maybe)
    monkeypatch.setattr(Claim, "release", lambda claim, *_: os.close(claim._descriptor))


@pytest.mark.parametrize(
    ("method", "call"), [("add_moments", 0), ("add_moments", 2), ("put", 0), ("put", 1)]
)
def test_a_run_that_ends_between_two_writes(
    method: str, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = copy_clips(tmp_path / "clips", 3)
    add(tmp_path / "whole", clips)
    right = contents(tmp_path / "whole")
    with monkeypatch.context() as context, pytest.raises(Killed):
        killed_before(context, method, call)
        add(tmp_path / "library", clips)
    assert [*(tmp_path / "library" / LOCKS).iterdir()]
    tables = Tables.open(tmp_path / "library")
    shown = contents(tmp_path / "library")
    assert all(right[path] == moments for path, moments in shown.items())
    orphans = tables.moments.count_rows() - len(shown)
    assert orphans == (method == "put")
    problems = vp.Library(tmp_path / "library").verify().problems
    assert len(problems) == orphans  # And verifying removes no lock.
    assert add(tmp_path / "library", clips).encoded == 3 - len(shown)
    require_whole(tmp_path / "library", right)


def test_a_run_that_ends_before_it_removes_an_earlier_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, library = copy_clips(tmp_path / "clips", 2), tmp_path / "library"
    add(library, clips)
    [other] = copy_clips(tmp_path / "other", 1, first=5).iterdir()
    os.replace(other, clips / "0.mp4")
    add(tmp_path / "whole", clips)
    with monkeypatch.context() as context, pytest.raises(Killed):
        killed_before(context, "remove", 0)
        add(library, clips)
    assert contents(library) == contents(tmp_path / "whole")
    assert Tables.open(library).moments.count_rows() == 3
    assert add(library, clips).encoded == 0
    require_whole(library, contents(tmp_path / "whole"))


def test_moments_without_a_lock_are_removed_by_compact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, library = copy_clips(tmp_path / "clips", 2), tmp_path / "library"
    with monkeypatch.context() as context, pytest.raises(Killed):
        killed_before(context, "put", 1)
        add(library, clips)
    for lock in (library / LOCKS).iterdir():
        lock.unlink()
    assert Tables.open(library).moments.count_rows() == 2
    vp.Library(library).compact()
    assert Tables.open(library).moments.count_rows() == 1
    assert vp.Library(library).verify().is_whole


@pytest.mark.slow
def test_two_at_once_of_which_one_is_killed(tmp_path: Path) -> None:
    clips, library = copy_clips(tmp_path / "clips", 12), tmp_path / "library"
    killed, other = start(library, clips), start(library, clips)
    kill_after(killed, library, 0.3)
    assert int(other.communicate()[0]) <= 12 and other.returncode == 0
    model = vp.load(DEMO_MODEL)
    vp.Library(library).add(clips, model, progress=False)
    vp.Library(tmp_path / "whole").add(clips, model, progress=False)
    require_whole(library, contents(tmp_path / "whole"))


@pytest.mark.attack
def test_a_hundred_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips, draw = tmp_path / "clips", random.Random(0)
    write_world(clips, list(draw_scenes(CLIPS, 0)), 0)
    (clips / "captions.csv").unlink()
    model = vp.load(DEMO_MODEL)
    started = time.monotonic()
    vp.Library(tmp_path / "whole").add(clips, model, progress=False)
    seconds, right = time.monotonic() - started, contents(tmp_path / "whole")
    orphans, done = 0, []
    for number in range(KILLS):
        library = tmp_path / f"killed {number}"
        kill_after(start(library, clips), library, draw.uniform(0, seconds))
        tables = Tables.open(library)
        done.append(tables.videos.count_rows())
        orphans += tables.moments.count_rows() > done[-1]
        added = vp.Library(library).add(clips, model, progress=False)
        assert added.encoded == CLIPS - done[-1]
        require_whole(library, right)
    with capsys.disabled():
        print(f"\n{KILLS} kills, after {min(done)} to {max(done)} clips, {orphans} with orphans")


@pytest.mark.slow
def test_four_at_once_with_kills(tmp_path: Path) -> None:
    clips, library, draw = tmp_path / "clips", tmp_path / "library", random.Random(1)
    write_world(clips, list(draw_scenes(CLIPS, 0)), 0)
    (clips / "captions.csv").unlink()
    runs = [start(library, clips) for _ in range(4)]
    for run in runs[:2]:
        kill_after(run, library, draw.uniform(1, 4))
    runs.append(start(library, clips))
    for run in runs[2:]:
        run.communicate()
        assert run.returncode == 0
    model = vp.load(DEMO_MODEL)
    vp.Library(tmp_path / "whole").add(clips, model, progress=False)
    vp.Library(library).add(clips, model, progress=False)
    require_whole(library, contents(tmp_path / "whole"))
