"""Keeping a library up to date while files appear."""

import threading
import time
from pathlib import Path

import pytest
from drawn_clips import MISSING, OK, copy_clips, model, statuses, world

import videoprism_mlx as vp
from videoprism_mlx.errors import NotFoundError
from videoprism_mlx.library.indexing.add import Added
from videoprism_mlx.library.indexing.scan import look
from videoprism_mlx.library.indexing.watch import Stillness, folder_of


def wait_for(results: list[Added], number: str, count: int) -> None:
    """Waits until so many videos were encoded, or marked."""
    ends = time.monotonic() + 60
    while sum(getattr(one, number) for one in results) < count:
        assert time.monotonic() < ends, results
        time.sleep(0.02)


def test_files_that_appear_grow_and_vanish(tmp_path: Path) -> None:
    clips, library = tmp_path / "clips", tmp_path / "clips" / "library"
    clips.mkdir()
    stop, results = threading.Event(), list[Added]()

    def run() -> None:
        options = dict(progress=False, stop=stop, quiet=0.3)
        for added in vp.Library(library).watch(clips, model(), **options):
            results.append(added)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while not results:
            time.sleep(0.02)
        assert (results[0].videos, library.exists()) == (0, False)
        content = sorted(world().iterdir())[0].read_bytes()
        with open(clips / "grows.mp4", "wb") as file:
            for part in range(4):
                file.write(content[len(content) * part // 4 : len(content) * (part + 1) // 4])
                file.flush()
                time.sleep(0.15)
        wait_for(results, "encoded", 1)
        assert not any(one.skipped for one in results)
        copy_clips(clips / "deeper", 1, first=1)
        wait_for(results, "encoded", 2)
        (clips / "grows.mp4").unlink()
        wait_for(results, "missing", 1)
    finally:
        stop.set()
        thread.join()
    assert statuses(library) == {"1.mp4": OK, "grows.mp4": MISSING}
    assert sum(one.encoded for one in results) == 2


def test_a_file_is_still_when_it_has_not_changed_for_long_enough(tmp_path: Path) -> None:
    path, is_still = tmp_path / "clip.mp4", Stillness(0.2)
    path.write_bytes(b"a")
    assert not is_still(look(path))
    time.sleep(0.1)
    path.write_bytes(b"ab")
    assert not is_still(look(path))
    time.sleep(0.25)
    assert is_still(look(path))


def test_where_files_and_glob_patterns_are_watched(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "a[1].mp4").touch()
    for path, folder in [
        ("clips", "clips"),
        ("clips/*.mp4", "clips"),
        ("*/**/*.mp4", "."),
        ("a[1].mp4", "."),
    ]:
        assert folder_of(tmp_path / path) == tmp_path / folder
    with pytest.raises(NotFoundError, match="no such file or folder"):
        folder_of(tmp_path / "gone")
