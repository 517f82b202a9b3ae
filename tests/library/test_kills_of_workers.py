"""Workers that are killed at random while they index: the rows are those of an unbroken run."""

import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import media
import pytest
from drawn_clips import add, contents, copy_clips

import videoprism_mlx as vp
from videoprism_mlx.library.indexing import machines
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.workers import local
from videoprism_mlx.workers.connect import connected

pytest.importorskip("distributed")

# How many runs have a worker killed, and how often workers are killed in the last one.
RUNS, STORM = 50, 20


class Killer:
    """Kills a random worker after each of some times, until it is stopped."""

    def __init__(self, client: Any, draw: random.Random, pauses: list[float]):
        self._client, self._draw, self._pauses = client, draw, pauses
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills = 0

    def _run(self) -> None:
        for pause in self._pauses:
            if self._stop.wait(pause):
                return
            pids = list(self._client.run(os.getpid, on_error="ignore").values())
            if pids:
                self.kills += 1
                os.kill(self._draw.choice(pids), signal.SIGKILL)

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.attack
def test_kills_of_workers_change_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in a storm, in which a video may be blamed: it is named, and read once it is touched."""
    monkeypatch.setattr(machines, "SECONDS", 20.0)
    monkeypatch.setattr(local, "SOON", 0.0)
    clips, draw = copy_clips(tmp_path / "clips", 12), random.Random(0)
    for name in ("long.mp4", "long.ts", "damaged.mp4"):
        shutil.copy(media.clip(name), clips)
    alone = add(tmp_path / "alone", clips)
    right, kills = contents(tmp_path / "alone"), 0
    options: dict[str, Any] = dict(dtype="float32", progress=False)
    with connected(2, show=False) as client:
        options["client"] = client
        started = time.monotonic()
        vp.Library(tmp_path / "unbroken").add(clips, DEMO_MODEL, **options)
        seconds = time.monotonic() - started
        for run in range(RUNS):
            library = vp.Library(tmp_path / f"run {run}")
            with Killer(client, draw, [draw.uniform(0, seconds)]) as killer:
                added = library.add(clips, DEMO_MODEL, **options)
            kills += killer.kills
            assert added.skipped == alone.skipped
            assert contents(library.where) == right and library.verify().is_whole
        library = vp.Library(tmp_path / "storm")
        with Killer(client, draw, [draw.uniform(0, 1) for _ in range(STORM)]) as killer:
            blamed = library.add(clips, DEMO_MODEL, **options).skipped.keys() - alone.skipped
        for path in blamed:
            os.utime(path)
        library.add(clips, DEMO_MODEL, **options)
        assert {path: right[path] for path in right} == contents(library.where)
    with capsys.disabled():
        print(f"\n{kills} kills in {RUNS} runs, and {killer.kills} in one: {len(blamed)} blamed")
