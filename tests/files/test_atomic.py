"""Files and directories that appear complete or not at all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from videoprism_mlx.errors import AlreadyExistsError, VideoPrismError
from videoprism_mlx.files import atomic


def test_a_new_file_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "x.txt"
    with atomic.new_file(target) as partial:
        partial.write_text("whole")
        assert not target.exists() and partial.parent == target.parent
        assert partial.suffix == ".txt"  # Some libraries choose the format by it.
    assert target.read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["x.txt"]


def test_a_block_that_raises_leaves_nothing_not_even_folders(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic.new_file(tmp_path / "new" / "x") as partial:
        partial.write_text("half")
        raise KeyError
    with pytest.raises(KeyError), atomic.new_directory(tmp_path / "other" / "d") as partial:
        (partial / "file").write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_folders_that_hold_something_else_meanwhile_stay(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic.new_file(tmp_path / "new" / "x"):
        (tmp_path / "new" / "of another").write_text("kept")
        raise KeyError
    assert (tmp_path / "new" / "of another").read_text() == "kept"


def test_what_exists_is_replaced_only_if_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("mine")
    with (
        pytest.raises(FileExistsError, match="name another output or remove it") as raised,
        atomic.new_file(target),
    ):
        raise AssertionError("the block must not run")
    assert isinstance(raised.value, VideoPrismError)
    with pytest.raises(KeyError), atomic.new_file(target, replace=True) as partial:
        partial.write_text("theirs")
        raise KeyError
    assert target.read_text() == "mine"
    with atomic.new_file(target, replace=True) as partial:
        partial.write_text("theirs")
    assert target.read_text() == "theirs"


def test_a_file_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(AlreadyExistsError), atomic.new_file(tmp_path / "x") as partial:
        partial.write_text("second")
        (tmp_path / "x").write_text("first")
    assert (tmp_path / "x").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_link_to_nothing_counts_as_something(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AlreadyExistsError):
        atomic.require_new_file(tmp_path / "x")
    with pytest.raises(AlreadyExistsError):
        atomic.require_new_directory(tmp_path / "x")


def test_a_new_directory_replaces_an_empty_one_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with atomic.new_directory(tmp_path / "empty") as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "file").write_text("whole")
    assert (tmp_path / "empty" / "inner" / "file").read_text() == "whole"
    (tmp_path / "file").write_text("mine")
    for taken in ("empty", "file"):
        with pytest.raises(AlreadyExistsError), atomic.new_directory(tmp_path / taken):
            raise AssertionError("the block must not run")


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    with atomic.new_directory(tmp_path / "m") as first:
        (first / "file").write_text("first")
        with atomic.new_directory(tmp_path / "m") as second:
            (second / "file").write_text("second")
        assert (first / "file").exists()
        # The second was quicker: the first finds it and says so.
        with pytest.raises(FileExistsError):
            atomic.require_new_directory(tmp_path / "m")
        (tmp_path / "m" / "file").unlink()
    assert (tmp_path / "m" / "file").read_text() == "first"


@pytest.mark.parametrize("kind", ["new_file", "new_directory"])
def test_what_a_killed_process_left_is_removed_by_the_next(kind: str, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from videoprism_mlx.files import atomic\n"
        f"with atomic.{kind}(sys.argv[1]) as partial:\n"
        "    path = partial / 'file' if partial.is_dir() else partial\n"
        "    path.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "x").exists() and len(list(tmp_path.iterdir())) == 1
    with getattr(atomic, kind)(tmp_path / "x") as partial:
        (partial / "file" if partial.is_dir() else partial).write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["n" * 250, "é" * 120, "short." + "s" * 200])
def test_names_as_long_as_file_systems_allow(name: str, tmp_path: Path) -> None:
    with atomic.new_file(tmp_path / name) as partial:
        partial.write_text("whole")
    assert (tmp_path / name).read_text() == "whole"


def test_short_names_of_different_names_differ() -> None:
    names = [atomic.short_name(f"{'n' * 300}{number}", 100) for number in range(3)]
    assert len(set(names)) == 3 and all(len(os.fsencode(name)) <= 100 for name in names)
    assert atomic.short_name("as it is", 100) == "as it is"


def test_a_link_to_a_directory_that_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").touch()
    (tmp_path / "link").symlink_to("there")
    with atomic.replaced_directory(tmp_path / "link") as new:
        new.mkdir()
        (new / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["new"]


def test_a_directory_that_cannot_be_replaced_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "file").write_text("earlier")
    rename = os.rename

    def second_fails(source: Path, target: Path) -> None:
        if (Path(source) / "new").exists():
            raise OSError(errno.EIO, "injected", str(source))
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OSError, match="injected"), atomic.replaced_directory(tmp_path / "m") as new:
        new.mkdir()
        (new / "new").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert (tmp_path / "m" / "file").read_text() == "earlier"


@pytest.mark.parametrize("kind", ["new_directory", "replaced_directory"])
def test_a_kill_between_the_renames_loses_nothing(kind: str, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "file").write_text("earlier")
    script = (
        "import os, signal, sys\n"
        "from videoprism_mlx.files import atomic\n"
        "rename = os.rename\n"
        "os.rename = lambda *names: (rename(*names), os.kill(os.getpid(), signal.SIGKILL))\n"
        "with atomic.replaced_directory(sys.argv[1]) as new: new.mkdir()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "m")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "m").exists()
    with pytest.raises(KeyError), getattr(atomic, kind)(tmp_path / "m"):
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert (tmp_path / "m" / "file").read_text() == "earlier"
