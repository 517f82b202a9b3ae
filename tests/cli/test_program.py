"""The program as a whole: version, help, examples, how much it says, and completion."""

import argparse
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import media
import pytest
from commands import command, run

import videoprism_mlx as vp
from videoprism_mlx import progress
from videoprism_mlx.cli import build_parser, shared
from videoprism_mlx.cli.program.parser import HelpOf, all_parsers
from videoprism_mlx.files.record import own_version

PARSERS = {each.prog: each for each in all_parsers(build_parser())}


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("--version")
    assert (stopped.value.code, capsys.readouterr().out) == (0, f"videoprism-mlx {own_version()}\n")
    assert vp.__version__ == own_version()


@pytest.mark.parametrize("words", [(), ("train",), ("evaluate",)])
def test_without_the_name_of_a_command_the_help_is_printed(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"usage: {' '.join(['videoprism-mlx', *words])} [-h]")
    assert printed.err == ""


@pytest.mark.parametrize("name", PARSERS)
def test_every_help_has_an_example_that_parses(name: str) -> None:
    parser = PARSERS[name]
    _, _, examples = parser.format_help().partition("\nexample")
    lines = re.findall(r"^  (videoprism-mlx\b.*)$", examples, re.MULTILINE)
    assert lines, f"{name} --help has no example"
    for line in lines:
        assert len(line) <= 100
        words = shlex.split(line)
        options = build_parser().parse_args(words[1:])
        assert not isinstance(options.run, HelpOf) or line == name
        assert line.startswith(name) or isinstance(parser.get_default("run"), HelpOf)


@pytest.mark.parametrize("name", PARSERS)
def test_every_help_is_in_whole_phrases(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = PARSERS[name]
    assert parser.description and parser.description.endswith(".")
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            assert action.help, f"{name}: {action.dest} has no help"
    text = parser.format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert "default: None" not in text
    quiet = "  --quiet " if "-q, --quantize" in text else "-q, --quiet"
    assert quiet in text and "-v, --verbose" in text


def test_older_names_of_options_go_on_working_and_are_not_shown() -> None:
    start = ["train", "retrieval", "--data", "x", "-o", "y"]
    older = [*start, "--clip", "2", "--decay", "constant", "--at-once", "3", "--recompute"]
    newer = [*start, "--max-grad-norm", "2", "--lr-schedule", "constant"]
    newer += ["--micro-batch-size", "3", "--grad-checkpoint"]
    parsed = [vars(build_parser().parse_args(words)) for words in (older, newer)]
    assert parsed[0] == parsed[1] != vars(build_parser().parse_args(start))
    text = PARSERS["videoprism-mlx train retrieval"].format_help()
    assert not re.search(r"--(clip|decay|at-once|recompute)\b", text)
    assert "--lr-schedule {constant,cosine}" in text
    assert "--dtype {float32,bfloat16,float16}" in text


class Terminal(io.StringIO):
    """A stderr that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_hidden_bars_and_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    for hide in (False, True):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress.hidden(hide):
            assert list(progress.bar([1, 2, 3], "counting", "step")) == [1, 2, 3]
            progress.note("a note")
            progress.write("a problem")
        said = terminal.getvalue()
        assert ("counting" in said, "a note" in said) == (not hide, not hide)
        assert "a problem" in said


def test_quiet_and_verbose(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    wishes = ("embed", tmp_path, "-o", tmp_path / "o.npz", "--model", "videoprism_lvt_demo_tiny")
    said = {}
    for loudness in ("", "-q", "-v"):
        done = subprocess.run(
            command(*filter(None, [loudness]), *wishes), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        said[loudness] = done.stderr.splitlines()
    skipped, summary = said[""]
    assert skipped.startswith("skipped: ") and summary == "0 of 1 video is embedded, 1 skipped"
    assert said["-q"] == [skipped]
    loaded, *plain, last = said["-v"]
    assert re.search(r", in float16 on the (CPU|GPU)$", loaded)
    assert loaded.startswith("videoprism_lvt_demo_tiny: a FactorizedVideoCLIP from ")
    assert plain == said[""] and re.fullmatch(r"done in \d+\.\d s", last)


def test_quiet_hides_what_is_said_about_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "texts.txt").write_text("a zebra")
    wishes = ("embed", "--text", tmp_path / "texts.txt", "--model", "videoprism_lvt_demo_tiny")
    for number, (loudness, said) in enumerate([((), True), (("-q",), False), ((), True)]):
        caplog.clear()
        assert run(*wishes, "-o", tmp_path / f"{number}.npz", *loudness) == 0
        assert ("'zebra' is not among" in caplog.text) == said


def test_verbose_says_where_an_error_comes_from(caplog: pytest.LogCaptureFixture) -> None:
    assert run("info", "nothing") == 2 and caplog.records == []
    assert run("info", "nothing", "--verbose") == 2
    [record] = caplog.records
    assert record.exc_info is not None and "no model is called" in str(record.exc_info[1])


def completions(line: str, tmp_path: Path) -> list[str]:
    """What the shell is offered at the end of this line."""
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    environment = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
    }  # fmt: skip
    script = "import sys; from videoprism_mlx.cli import main; main()"
    subprocess.run([sys.executable, "-c", script], env={**os.environ, **environment}, check=True)
    return [word.strip() for word in answer.read_text().split("\n") if word]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("videoprism-mlx train retr", "retrieval"),
        ("videoprism-mlx embed clips --dtype b", "bfloat16"),
        ("videoprism-mlx embed clips --model videoprism_lvt_d", "videoprism_lvt_demo_tiny"),
    ],
)
def test_completion(line: str, offered: str, tmp_path: Path) -> None:
    assert completions(line, tmp_path) == [offered]


def test_what_takes_long_has_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shows = {
        ("show", "-o", "x.mp4"): ["reading", "encoding", "writing"],
        ("show", "-o", "x.png"): ["reading", "encoding"],
        ("timeline", "--text", "a ball", "-o", "x.png"): ["window", "frames"],
        ("similarity", "--text", "a ball"): ["video"],
    }
    monkeypatch.chdir(tmp_path)
    for (name, *options), words in shows.items():
        for loudness in ([], ["--quiet"]):
            terminal = Terminal()
            monkeypatch.setattr(sys, "stderr", terminal)
            model = ("--model", "videoprism_lvt_demo_tiny", *loudness)
            assert run(name, media.clip("b.mp4"), *options, *model) == 0
            said = terminal.getvalue()
            assert [word for word in words if word in said] == ([] if loudness else words)


@pytest.mark.parametrize("there_is_one", [True, False])
def test_opening_the_page(
    there_is_one: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda page: opened.append(page) or there_is_one)
    shared.open_page((tmp_path / "a page.html").as_uri())
    assert opened == [f"{tmp_path.as_uri()}/a%20page.html"]
    assert (opened[0] in capsys.readouterr().err) != there_is_one
