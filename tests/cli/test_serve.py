"""The command that serves the page of a library."""

import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from commands import command, run
from thinned import thinned

from videoprism_mlx.library.table import Tables

RECORD = {"model": {"name": "tiny"}, "preprocessing": {"window": 4, "fps": 1.0}}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    Tables.create(tmp_path / "library", RECORD, 8)
    return tmp_path / "library"


@pytest.mark.parametrize("stop", thinned([signal.SIGINT, signal.SIGTERM], keep=2))
def test_it_says_where_the_page_is_until_it_is_stopped(library: Path, stop: int) -> None:
    serving = subprocess.Popen(
        command("serve", "--library", library, "--token", "correct-horse"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever started the tests in the background may have ignored it.
        preexec_fn=lambda: signal.signal(stop, signal.SIG_DFL),
    )
    assert serving.stdout is not None
    line = serving.stdout.readline()
    address = line.split()[0]
    assert line == f"{address}  (Ctrl-C ends it)\n" and address.endswith("/?token=correct-horse")
    with urllib.request.urlopen(address, timeout=10) as page:
        assert page.status == 200
    serving.send_signal(stop)
    out, err = serving.communicate(timeout=20)
    assert (out, err) == ("", "videoprism-mlx: stopped\n")
    assert serving.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[stop]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "everybody on the network could see the library; give a token"),
        (["--token", "short"], "the token has to have 8 characters or more"),
        (["--port", "70000"], "cannot listen on 127.0.0.1, port 70000"),
    ],
)
def test_mistakes(
    library: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("serve", "--library", library, *arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == ""


def test_no_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("serve", "--library", tmp_path / "none") == 2
    assert "there is no library at" in capsys.readouterr().err
