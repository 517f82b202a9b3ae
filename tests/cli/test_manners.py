"""What all commands have in common: fast help, pipes, and how bugs look."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import LINE, command, make_videos, run
from thinned import thinned


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


def modules_of(*arguments: object) -> tuple[int, set[str]]:
    """The exit code of a command, and which heavy modules it imported."""
    script = (
        "import sys; from videoprism_mlx.cli import main\n"
        "try: code = main(sys.argv[1:])\n"
        "except SystemExit as ended: code = ended.code\n"
        "print(code, *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True
    )
    code, *names = done.stderr.splitlines()[-1].split()
    heavy = {"mlx", "numpy", "av", "cv2", "PIL", "safetensors", "huggingface_hub", "matplotlib"}
    return int(code), heavy & set(names)


@pytest.mark.parametrize(
    "name", ["", "embed", "similarity", "classify", "info", "show", "timeline", "convert"]
)
def test_help_imports_nothing_heavy(name: str) -> None:
    assert modules_of(*([name] if name else []), "--help") == (0, set())


def test_mistakes_that_need_no_model_import_nothing_heavy() -> None:
    assert modules_of("embed", "--nonsense") == (2, set())
    assert modules_of("show", "a.mp4", "-o", "x.gif") == (2, set())


def test_whoever_reads_the_results_may_have_enough(folder: Path, searchable: Path) -> None:
    arguments = command("embed", *[folder / "b.mp4"], "-o", "-", "--model", searchable)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(arguments, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_a_closed_stdout(searchable: Path) -> None:
    arguments = ["sh", "-c", 'exec "$@" >&-', "sh", *command("info", searchable)]
    done = subprocess.run(arguments, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


BUG_LINE = (
    r"This is a bug in videoprism_mlx \d+\.\d+\.\d+ \(Python 3\.\d+\.\d+.*, .+\)\. Please report"
)


@pytest.mark.parametrize("bug", [RuntimeError, TypeError, ValueError, MemoryError, KeyError])
@pytest.mark.parametrize("windowing", [(), ("--window", "4")])
def test_a_bug_looks_like_one(
    bug: type[Exception],
    windowing: tuple[str, ...],
    folder: Path,
    searchable: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is no bad video, and no bad input."""

    def broken(*arguments: Any, **options: Any) -> Sequence[Any]:
        raise bug("a bug")

    monkeypatch.setattr("videoprism_mlx.features.encode.video_features", broken)
    monkeypatch.setattr("videoprism_mlx.features.windows.derived_features", broken)
    arguments = ("embed", folder / "b.mp4", "-o", tmp_path / "out.npz", "--model", searchable)
    assert run(*arguments, *windowing) == 1
    printed = capsys.readouterr()
    *_, error, last = printed.err.splitlines()
    assert "Traceback (most recent call last):" in printed.err and printed.out == ""
    assert error.startswith(bug.__name__) and "a bug" in error
    assert re.match(BUG_LINE, last)
    assert "skipped: " not in printed.err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bug", thinned(["TypeError", "ValueError"], keep=2))
def test_a_bug_while_reading_looks_like_one(
    bug: str, folder: Path, searchable: Path, tmp_path: Path
) -> None:
    """In a process of its own, and in a thread that reads videos."""
    script = (
        "import sys\n"
        "from videoprism_mlx.cli import main\n"
        "from videoprism_mlx.features.processor import Processor\n"
        f"def read(*arguments, **options): raise {bug}('a bug')\n"
        "Processor.read = read\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    for arguments in (
        ("embed", folder, "-o", tmp_path / "out.npz"),
        ("similarity", "--video", folder, "--text", LINE),
        ("classify", folder, "--labels", LINE),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments), "--model", str(searchable)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, "")
        *_, error, last = done.stderr.splitlines()
        assert done.stderr.count("Traceback (most recent call last):") == 1
        assert error == f"{bug}: a bug" and re.match(BUG_LINE, last)
        assert "skipped: " not in done.stderr
