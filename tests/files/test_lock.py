"""One process at a time holds the lock of a folder."""

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from videoprism_mlx.errors import OutputError
from videoprism_mlx.files import lock
from videoprism_mlx.files.lock import LOCK_FILE, locked

HOLDER = """
import sys
from pathlib import Path
from videoprism_mlx.files.lock import locked
with locked(Path(sys.argv[1]), Path("there")):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process, which holds the lock of `folder` until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_two_processes_exclude_each_other(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as process:
        with (
            pytest.raises(OutputError, match="another run is writing to the output; wait for it"),
            locked(tmp_path / "run", Path("the output")),
        ):
            raise AssertionError("the block must not run")
        process.communicate("end\n")
        with locked(tmp_path / "run", tmp_path):
            pass


def test_a_killed_process_releases_its_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(tmp_path, tmp_path):
            pass


def test_within_one_process_as_well(tmp_path: Path) -> None:
    with locked(tmp_path, tmp_path), pytest.raises(OutputError), locked(tmp_path, tmp_path):
        raise AssertionError("the block must not run")
    with pytest.raises(KeyError), locked(tmp_path, tmp_path):
        raise KeyError
    with locked(tmp_path, tmp_path):
        pass


def test_the_folder_may_be_removed_by_whoever_holds_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path / "run", tmp_path):
        shutil.rmtree(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def removing(folder: Path, times: int) -> type:
    """A FileLock that finds its folder removed the first `times` that it has been acquired."""
    left = [times]

    class Removing(lock.FileLock):
        def acquire(self, *arguments: object, **keywords: object) -> object:
            acquired = super().acquire(*arguments, **keywords)
            if left[0]:
                left[0] -= 1
                shutil.rmtree(folder)
            return acquired

    return Removing


def test_a_folder_removed_between_opening_and_locking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "FileLock", removing(tmp_path / "run", 2))
    with locked(tmp_path / "run", tmp_path):
        assert (tmp_path / "run" / LOCK_FILE).exists()  # The lock is on a file others can see.
        monkeypatch.undo()
        with pytest.raises(OutputError), locked(tmp_path / "run", tmp_path):
            raise AssertionError("the block must not run")


def test_many_that_remove_the_folder_when_they_are_done(tmp_path: Path) -> None:
    inside, most, failures = [0], [0], []

    def work() -> None:
        for _ in range(50):
            try:
                with locked(tmp_path / "run", tmp_path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
                    shutil.rmtree(tmp_path / "run", ignore_errors=True)
            except OutputError:
                continue
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and most[0] == 1


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(FileExistsError), locked(tmp_path / "run", tmp_path):
        raise AssertionError("the block must not run")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsupported(lock.FileLock):
        def acquire(self, *arguments: object, **keywords: object) -> object:
            raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(lock, "FileLock", Unsupported)
    with pytest.raises(OutputError, match="does not support locks"), locked(tmp_path, tmp_path):
        raise AssertionError("the block must not run")


def test_a_link_to_nothing_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for folder in (tmp_path / "link", tmp_path / "link" / "run"):
        with pytest.raises(FileExistsError), locked(folder, tmp_path):
            raise AssertionError("the block must not run")
