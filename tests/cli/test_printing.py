"""Names cannot steer the terminal; signals and full disks leave nothing behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import media
import pytest
from commands import command, run
from full_disk import largest_file

import videoprism_mlx as vp
from videoprism_mlx.cli import shared
from videoprism_mlx.errors import (
    EXPECTED,
    OutputError,
    VideoPrismError,
    printable,
    printable_lines,
)
from videoprism_mlx.features.cache import ArrayCache
from videoprism_mlx.features.formats import read_record
from videoprism_mlx.files.atomic import new_directory, new_file

EVIL = "\x1b]0;title\x07\x9b31m\u202egpj.\n"
SHOWN = r"\x1b]0;title\x07\x9b31m\u202egpj.\n"
BROKEN = re.compile(r"gpj\.\n *(\.\w|cat|/|:)")
MODEL = vp.models.DEMO_MODEL


def is_harmless(text: str) -> bool:
    return not set("\x1b\x07\x9b\u202e") & set(text)


def test_printable() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("vidéo 影片 🎬 👩‍👩‍👧 a\\b.mp4") == "vidéo 影片 🎬 👩‍👩‍👧 a\\b.mp4"
    assert printable(os.fsdecode(b"\xff")) == r"\udcff"
    assert printable_lines("one\ntwo\x1b") == "one\ntwo\\x1b"


def test_json_keeps_names(capsys: pytest.CaptureFixture[str]) -> None:
    shared.print_json({EVIL: [EVIL, "é\udcff"]})
    [line] = capsys.readouterr().out.splitlines()
    assert is_harmless(line)
    assert json.loads(line) == {EVIL: [EVIL, "é\udcff"]}


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A folder with a good and a bad video of such names."""
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(media.clip("b.mp4"), folder / f"good{EVIL}.mp4")
    (folder / f"bad{EVIL}.mp4").touch()
    return folder


def test_commands_print_names_without_commands_to_the_terminal(
    evil: Path,
    tmp_path: Path,
    converted: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = ("--model", MODEL)
    classifier = shutil.copytree(converted("classifier_mild"), tmp_path / "classifier")
    names = [EVIL.strip(), *"abcdef"]
    labels = {"labels": names, "multi_label": False}
    (classifier / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    for number in range(2):
        shutil.copy(media.clip("b.mp4"), evil / f"{number}.mp4")
    rows = [{"file": f"{number}.mp4", "label_idx": number} for number in range(2)]
    (evil / "list.json").write_text(json.dumps(rows))
    output = tmp_path / f"x{EVIL}"
    for code, arguments in (
        (1, ("similarity", "--video", evil, "--text", f"a{EVIL} cat", *model)),
        (1, ("classify", evil, "--labels", f"a{EVIL} cat", "dog", *model)),
        (1, ("classify", evil, "--model", classifier)),
        (1, ("embed", evil, "-o", f"{output}.npz", *model)),
        (1, ("embed", evil, "-o", f"{output}.npz", "--json", *model)),
        (2, ("embed", tmp_path / EVIL, "-o", f"{output}.jsonl", "--model", EVIL)),
        (2, ("similarity", evil, "--text-file", f"{output}.txt", *model)),
        (2, ("info", f"{output}.mp4")),
        (2, ("train", "classifier", "--data", f"{output}.csv", "-o", f"{output}.d")),
        (2, ("convert", f"{output}.npz", "-o", f"{output}.d")),
        (2, ("fuse", "--adapters", f"{output}.d", "-o", f"{output}.e")),
        (0, ("show", evil / f"good{EVIL}.mp4", "-o", f"{output}.png", *model)),
        (0, ("info", evil / f"good{EVIL}.mp4")),
        (0, ("evaluate", "classifier", "--data", evil / "list.json", "--model", classifier)),
    ):
        assert run(*arguments) == code, arguments
        printed = capsys.readouterr()
        assert is_harmless(printed.out + printed.err), arguments
        assert "title" in printed.out + printed.err
        # The end of a line in a name ends no line.
        assert not BROKEN.search(printed.out + printed.err), arguments


def test_warnings_and_bugs_are_printed_without_commands_to_the_terminal() -> None:
    script = (
        "import logging, sys\nfrom videoprism_mlx import cli\n"
        f"evil = {EVIL!r}\n"
        "def run(options):\n"
        "    logging.getLogger('videoprism_mlx.x').warning('about %s', evil)\n"
        "    logging.getLogger('huggingface_hub').warning('once')\n"
        "    raise ZeroDivisionError(evil)\n"
        "cli.info.run = run\nsys.exit(cli.main(['info', 'x']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and is_harmless(done.stderr)
    assert f"about {SHOWN}" in done.stderr and r"ZeroDivisionError: \x1b]0" in done.stderr


def test_errors_are_one_line_in_python_too(tmp_path: Path) -> None:
    for use in (
        lambda: vp.load_model(tmp_path / EVIL),
        lambda: vp.read_video(f"x{EVIL}.mp4"),
        lambda: vp.convert.flax_to_mlx(tmp_path / EVIL, tmp_path / "m"),
    ):
        with pytest.raises(EXPECTED) as caught:
            use()
        assert SHOWN in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("info", "--json", "a", f"b{EVIL}.mp4")
    [error, hint] = capsys.readouterr().err.splitlines()
    assert SHOWN in error and "--help" in hint


@pytest.mark.parametrize("kind", ["pipe", "device", "list.txt"])
def test_a_file_in_the_place_of_a_text(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_text("a cat\n")
    shutil.copy(media.clip("b.mp4"), tmp_path / "b.mp4")
    for name in (path, kind):
        for arguments in (("classify", "b.mp4", "--labels"), ("similarity", "b.mp4", "--text")):
            assert run(*arguments, "a dog", name, "--model", MODEL) == 2
            [line] = capsys.readouterr().err.splitlines()
            assert f"{name} is a file, and would be taken as a text; the option ending" in line
            if kind != "list.txt":
                assert run(*arguments[:2], f"{arguments[2]}-file", name, "--model", MODEL) == 2
                [line] = capsys.readouterr().err.splitlines()
                assert f"{name} is no regular file; expected a file" in line
    (tmp_path / "cat").mkdir()  # Someone's folder of videos of cats, and a file without an ending.
    (tmp_path / "dog").touch()
    shared.require_words(["cat", "dog", "a kite. And a ball"])


def test_names_that_are_no_utf8_go_to_json_files(tmp_path: Path, searchable: Path) -> None:
    folder = tmp_path / os.fsdecode(b"d\xff")
    folder.mkdir()
    for number in range(2):
        shutil.copy(media.clip("b.mp4"), folder / f"{number}.mp4")
    (folder / "p.csv").write_text("video,caption\n0.mp4,a cat\n1.mp4,a ball\n")
    arguments = ("evaluate", "retrieval", "--data", folder / "p.csv", "--model", searchable)
    assert run(*arguments, "-o", tmp_path / "r.json", "--cache", tmp_path / "c", "--json") == 0
    assert json.loads((tmp_path / "r.json").read_text())["settings"]["data"]["path"].endswith("csv")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_as_ctrl_c_does(number: int, tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from videoprism_mlx import cli\nfrom videoprism_mlx.files.atomic import new_file\n"
        "def run(options):\n"
        "    with new_file(options.model) as partial:\n"
        "        partial.write_text('half')\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "cli.info.run = run\nsys.exit(cli.main(['info', sys.argv[1]]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (143, "videoprism-mlx: stopped\n")
    assert list(tmp_path.iterdir()) == []


def test_signals_are_as_before_after_a_command() -> None:
    assert run("info", MODEL) == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_directory_in_the_place_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    with new_directory(tmp_path / "link") as partial:
        (partial / "file").write_text("whole")
    assert (tmp_path / "empty/file").read_text() == "whole"
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "link"]
    with pytest.raises(FileExistsError), new_directory(tmp_path / "link"):
        pass


@pytest.mark.parametrize("has_record", [False, True])
def test_files_of_others_among_the_parts_stay(has_record: bool, tmp_path: Path) -> None:
    video = shutil.copy(media.clip("b.mp4"), tmp_path / "b.mp4")
    parts = tmp_path / ".u.npz.parts"
    (parts / "mine").mkdir(parents=True)
    (parts / "mine" / "notes.txt").write_text("months of work")
    if has_record:  # As from a run that was stopped.
        vp.embed(video, tmp_path / "other", MODEL)
        shutil.copy(tmp_path / "other/record.json", parts)
        vp.embed(video, tmp_path / "u.npz", MODEL)
        assert [each["name"] for each in read_record(tmp_path / "u.npz")["videos"]] == ["b.mp4"]
    else:
        with pytest.raises(OutputError, match="holds files other than features"):
            vp.embed(video, tmp_path / "u.npz", MODEL)
    assert (parts / "mine" / "notes.txt").read_text() == "months of work"
    left = {path.name for path in parts.rglob("*")}
    assert left == {"mine", "notes.txt"}


@pytest.mark.parametrize("name", ["mine.npz", "mine.safetensors", "notes.txt", "record.json"])
def test_a_refusal_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    video = shutil.copy(media.clip("b.mp4"), tmp_path / "b.mp4")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / name).write_text("months of work")
    with pytest.raises(VideoPrismError):
        vp.embed(video, tmp_path / "foreign", MODEL)
    assert os.listdir(tmp_path / "foreign") == [name]


@pytest.mark.parametrize("name", ["record.json", "mine.safetensors"])
def test_a_refusal_deletes_nothing(name: str, tmp_path: Path) -> None:
    video = shutil.copy(media.clip("b.mp4"), tmp_path / "b.mp4")
    (tmp_path / ".u.npz.parts").mkdir()
    (tmp_path / ".u.npz.parts" / name).write_text("months of work")
    with pytest.raises(VideoPrismError):
        vp.embed(video, tmp_path / "u.npz", MODEL)
    assert (tmp_path / ".u.npz.parts" / name).read_text() == "months of work"


FULL = (
    r"the file is too large for the disk; [\d,]+ MB are free on the disk: "
    r"make room or write elsewhere: '{}'$"
)


def test_a_full_cache_disk_is_named(tmp_path: Path) -> None:
    import numpy as np

    cache = ArrayCache(tmp_path, {"kind": "test"})
    path = cache.folder / "ab" / "array.npy"
    with largest_file(4032), pytest.raises(OSError, match=FULL.format(path)):
        cache.store(path, np.zeros(6144, np.uint8))
    assert not path.parent.exists()
    cache.store(path, np.arange(6144))
    np.save(tmp_path / "expected.npy", np.arange(6144))
    assert path.read_bytes() == (tmp_path / "expected.npy").read_bytes()


@pytest.mark.parametrize("size", [500, 3000])
def test_a_demo_on_a_full_disk_names_the_folder(
    size: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with largest_file(size):
        assert run("demo", "-o", tmp_path / "demo") == 2
    said = capfd.readouterr().err
    line = said.splitlines()[-1]
    said = f"videoprism-mlx: {tmp_path / 'demo/clips'}: the file is too large for the disk; "
    assert line.startswith(said) and line.endswith("make room or write elsewhere")
    assert line.count("make room") == 1
    assert "PyAV" not in said and "Traceback" not in said


def test_an_error_inside_a_new_directory_is_explained_once(tmp_path: Path) -> None:
    with (
        largest_file(10),
        pytest.raises(OSError, match=FULL.format(tmp_path / "outer")) as full,
        new_directory(tmp_path / "outer") as outer,
        new_file(outer / "inner.txt") as inner,
    ):
        inner.write_text("more than ten bytes")
    assert str(full.value).count("make room") == 1


def test_a_stopped_embed_leaves_no_hidden_files(tmp_path: Path) -> None:
    for number in range(40):
        shutil.copy(media.clip("b.mp4"), tmp_path / f"{number}.mp4")
    arguments = command("embed", tmp_path, "-o", tmp_path / "out", "--model", MODEL)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(timeout=30) in (0, 143)
    assert not [path for path in tmp_path.rglob("*") if ".partial-" in path.name]
