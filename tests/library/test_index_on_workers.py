"""Indexing on workers: the rows are those of one process, whatever dies meanwhile."""

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import media
import pytest
import worker_traps as traps
from drawn_clips import add, contents, copy_clips
from PIL import Image

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.errors import InputError, NetworkError
from videoprism_mlx.features.spans import shares
from videoprism_mlx.library.indexing import machines
from videoprism_mlx.library.indexing.add import Added
from videoprism_mlx.library.table import Tables
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.workers import local
from videoprism_mlx.workers.connect import connected

pytest.importorskip("distributed")

# Videos of which all is read, those that are damaged, and long ones, which have spans.
KINDS = ("b.mp4", "raw.h264", "uneven.mp4", "turned90.mp4", "one.mp4")
DAMAGED = ("damaged.mp4", "unfinished.mp4", "short.mp4")
LONG = ("long.mp4", "long.ts")

# The long ones, 30 s, are made with these arguments, and have four spans.
FRAMES, SECONDS = 900, 8.0
H264, MPEG4 = [*media.X264, "-g", "60", "-bf", "3"], ["-c:v", "mpeg4", "-bf", "2"]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A scheduler in this process with two worker processes, which are started again at once."""
    with pytest.MonkeyPatch.context() as patch, connected(2, show=False) as found:
        patch.setattr(local, "SOON", 0.0)
        yield found


@pytest.fixture(autouse=True)
def short_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans of few windows."""
    monkeypatch.setattr(machines, "SECONDS", SECONDS)


def folder_of(where: Path, *names: str) -> Path:
    """A folder with some of the media."""
    where.mkdir()
    for name in names:
        shutil.copy(long_one(name) if name.startswith("long") else media.clip(name), where / name)
    return where


def long_one(name: str) -> Path:
    """A video that is divided."""
    arguments = MPEG4 if name.endswith(".avi") else H264
    return media.made(
        f"divided_{name}",
        lambda path: media.write(path, FRAMES, size=(64, 48), arguments=arguments),
    )


def index(where: Path, paths: Any, client: Any, **options: Any) -> Added:
    """Indexes videos on workers, with the small model."""
    options = {"dtype": "float32", "progress": False, **options}
    return vp.Library(where).add(paths, DEMO_MODEL, client=client, **options)


def rows(where: Path) -> list[dict[str, Any]]:
    """The rows of all videos, but for the number of the take."""
    found = Tables.open(where).rows()
    return sorted(({**row, "take": 0} for row in found), key=lambda row: str(row["path"]))


def require_same(one: Path, other: Path) -> None:
    """Two libraries hold the same, bit for bit."""
    assert rows(one) == rows(other)
    assert contents(one) == contents(other)
    assert vp.Library(one).verify().is_whole


def test_videos_of_many_kinds_have_the_rows_of_one_process(client: Any, tmp_path: Path) -> None:
    clips = folder_of(tmp_path / "clips", *KINDS, *DAMAGED, *LONG)
    stills = clips / "stills"
    stills.mkdir()
    for number in range(6):
        Image.fromarray(media.frame(number)).save(stills / f"{number}.png")
    shutil.copy(clips / "b.mp4", clips / "copy of b.mp4")
    alone = add(tmp_path / "alone", clips, partial=False)
    shared = index(tmp_path / "shared", clips, client)
    assert (shared.encoded, shared.copied, shared.moments) == (
        alone.encoded,
        alone.copied,
        alone.moments,
    )
    assert shared.skipped == alone.skipped and len(shared.skipped) >= 3
    require_same(tmp_path / "shared", tmp_path / "alone")
    again = index(tmp_path / "shared", clips, client)
    assert (again.encoded, again.skipped) == (0, alone.skipped)


def test_long_videos_are_divided(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = folder_of(tmp_path / "clips", "long.mp4")
    counted: list[str] = []
    task = shares.Task

    def counting(key: str, function: Any, *more: Any) -> Any:
        counted.append(function.__name__)
        return task(key, function, *more)

    monkeypatch.setattr(shares, "Task", counting)
    index(tmp_path / "library", clips, client)
    assert sorted(counted) == ["encode", *["encode_span"] * 3]


@pytest.mark.parametrize("changes", [dict(stride=2), dict(window=5, stride=3, fps=2.0)])
def test_overlapping_windows_have_the_same_rows(
    client: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    clips = folder_of(tmp_path / "clips", "long.mkv")
    add(tmp_path / "alone", clips, **changes)
    index(tmp_path / "shared", clips, client, **changes)
    require_same(tmp_path / "shared", tmp_path / "alone")


def test_what_is_wrong_with_a_span_is_found_out_as_on_one_machine(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is damaged in the middle, and one that one worker alone could not read."""
    clips = folder_of(tmp_path / "clips", "long.mp4")
    media.damage(long_one("long.avi"), clips / "damaged.avi", at=0.7, length=0.01)
    alone = add(tmp_path / "alone", clips)
    assert list(alone.skipped) == [str(clips / "damaged.avi")]
    assert index(tmp_path / "shared", clips, client).skipped == alone.skipped
    require_same(tmp_path / "shared", tmp_path / "alone")
    monkeypatch.setattr(machines, "encode_span", traps.fail_span)
    assert index(tmp_path / "failed", clips, client).skipped == alone.skipped
    require_same(tmp_path / "failed", tmp_path / "alone")


def test_a_video_that_kills_two_workers_is_bad_until_it_changes(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = copy_clips(tmp_path / "clips", 8)
    (clips / "3.mp4").rename(deadly := clips / f"{traps.DEADLY}.mp4")
    with monkeypatch.context() as context:
        context.setattr(machines, "encode", traps.encode_or_die)
        added = index(tmp_path / "library", clips, client)
        assert added.encoded == 7 and list(added.skipped) == [str(deadly)]
        said = added.skipped[str(deadly)]
        assert said.startswith(f"{deadly} was being read by a worker that died, 2 times (")
        again = index(tmp_path / "library", clips, client)
        assert (again.encoded, again.skipped) == (0, {str(deadly): said})
        assert Path(f"{deadly}.deaths").read_text() == "xx"
    [failed] = [row for row in rows(tmp_path / "library") if row["error"]]
    assert (failed["path"], failed["error"]) == (str(deadly), said)
    os.utime(deadly)
    assert index(tmp_path / "library", clips, client).encoded == 1
    add(tmp_path / "alone", clips)
    assert contents(tmp_path / "library") == contents(tmp_path / "alone")


@pytest.mark.attack
def test_a_span_that_kills_two_workers_makes_the_video_bad(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them would. The others are not tried."""
    clips = folder_of(tmp_path / "clips", "long.mp4", "b.mp4")
    monkeypatch.setattr(machines, "encode_span", traps.die_in_span)
    added = index(tmp_path / "library", clips, client)
    assert added.encoded == 1 and list(added.skipped) == [str(clips / "long.mp4")]
    assert 2 <= len((clips / "long.mp4.deaths").read_text()) <= 3


def kill_one(client: Any, seconds: float) -> None:
    """Kills a worker after a while."""
    time.sleep(seconds)
    while not (pids := list(client.run(os.getpid, on_error="ignore").values())):
        time.sleep(0.01)
    os.kill(pids[0], signal.SIGKILL)


def test_a_worker_that_is_killed_changes_nothing(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = copy_clips(tmp_path / "clips", 12)
    shutil.copy(long_one("long.mp4"), clips)
    add(tmp_path / "alone", clips)
    monkeypatch.setattr(machines, "encode", traps.slowly)
    killing = threading.Thread(target=kill_one, args=(client, 0.3))
    killing.start()
    added = index(tmp_path / "shared", clips, client)
    killing.join()
    assert added.encoded == 13 and not added.skipped
    require_same(tmp_path / "shared", tmp_path / "alone")


def test_a_file_that_changes_while_it_is_read_is_named(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = copy_clips(tmp_path / "clips", 1)
    monkeypatch.setattr(machines, "encode", traps.encode_and_change)
    added = index(tmp_path / "library", clips, client)
    path = str(clips / "0.mp4")
    assert added.skipped == {path: f"{path} was changed while it was read; index it again"}


def test_workers_find_files_in_mapped_folders(client: Any, tmp_path: Path) -> None:
    """Here the files have the right size alone, there they are the videos."""
    there = folder_of(tmp_path / "there", "b.mp4", "damaged.mp4")
    here = Path(shutil.copytree(there, tmp_path / "here"))
    for path in here.iterdir():
        path.write_bytes(bytes(path.stat().st_size - 1) + path.name[:1].encode())
    added = index(tmp_path / "library", here, client, mapping={str(here): str(there)})
    assert added.encoded == 1
    [(path, said)] = added.skipped.items()
    assert path == str(here / "damaged.mp4")
    assert said.startswith(f"{path} breaks off after 56 frames") and str(there) not in said


def test_watching_shares_what_appears(client: Any, tmp_path: Path) -> None:
    clips, stop = copy_clips(tmp_path / "clips", 2), threading.Event()
    library = vp.Library(tmp_path / "library")
    counts = []
    for added in library.watch(
        clips, DEMO_MODEL, stop=stop, quiet=0.1, client=client, progress=False
    ):
        counts.append(added.encoded)
        if sum(counts) == 2:
            copy_clips(clips, 1, first=5)
        if sum(counts) == 3:
            stop.set()
    assert sum(counts) == 3


def test_wrong_machines_are_named_before_anything_is_made(tmp_path: Path) -> None:
    library, clips = vp.Library(tmp_path / "library"), copy_clips(tmp_path / "clips", 1)
    with pytest.raises(InputError, match="the number of workers"):
        library.add(clips, DEMO_MODEL, client=0)
    with pytest.raises(NetworkError, match="start one with `dask scheduler`"):
        library.add(clips, DEMO_MODEL, client="tcp://127.0.0.1:9")
    with pytest.raises(InputError, match="give client as well"):
        library.add(clips, DEMO_MODEL, mapping={"/a": "/b"})
    assert not Path(library.where).exists()


@pytest.mark.parametrize(
    "options, said",
    [
        (["--workers", "0"], "the number of workers (--workers) is 0; expected 1 or more"),
        (["--workers", "2", "--scheduler", "tcp://mac1:8786"], "give one of them"),
        (["--map", "/a=/b"], "--map is for workers; give --scheduler (or --workers) as well"),
        (["--workers", "2", "--map", "/a"], "expected FROM=TO, such as /Volumes/nas=/mnt/nas"),
        (["--scheduler", "mac1"], "has no host, or no number of a port"),
    ],
)
def test_wrong_options_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["index", str(tmp_path), "--library", str(tmp_path / "library"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "library").exists()


def test_the_command_says_what_each_worker_has_done(
    client: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips, library = copy_clips(tmp_path / "clips", 3), tmp_path / "library"
    words = ["index", clips, "--library", library, "--model", DEMO_MODEL]
    words += ["--scheduler", client.scheduler.address]
    assert main([str(word) for word in words]) == 0
    first, *each, last, _ = capsys.readouterr().err.splitlines()
    assert first.startswith("Dask's dashboard: http://127.0.0.1:")
    assert all(
        re.match(r"worker [01]: \d tasks?, \d s of video, .*x real time$", one) for one in each
    )
    assert sum(int(one.split()[2]) for one in each) == 3
    assert last == f"3 videos: 3 encoded ({library})"
