"""Names of videos and texts with bytes that are not UTF-8, as Linux allows them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import media
import pytest
from commands import LINE, command, make_videos, run
from PIL import Image

from videoprism_mlx.features.formats import read_record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


NOT_TEXT = os.fsdecode(b"caf\xe9 \xff.png")
AS_PRINTED = r"caf\udce9 \udcff.png"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A video of one frame, with a name that is not UTF-8."""
    try:
        Image.fromarray(media.frame(7)).save(tmp_path / NOT_TEXT)
    except OSError:
        pytest.skip("this file system has no such names")
    return tmp_path / NOT_TEXT


def results_of(*arguments: object, code: int = 0) -> str:
    """What a command prints to a pipe in UTF-8."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [os.fsencode(part) for part in command(*arguments)], capture_output=True, env=environment
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert done.returncode == code
    return done.stdout.decode("utf-8")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("code", ["print_json", "print"])
def test_names_that_are_not_text_are_printed(encoding: str, code: str) -> None:
    """The JSON is read back as it was, whatever stdout is."""
    name = NOT_TEXT + " 影"
    script = (
        "import argparse, sys\n"
        "from videoprism_mlx import cli\n"
        "from videoprism_mlx.cli import shared\n"
        "name = sys.stdin.read().encode().decode('unicode_escape')\n"
        "cli.info.run = lambda options: "
        + ("shared.print_json({'video': name})" if code == "print_json" else "print(name)")
        + " or 0\nsys.exit(cli.main(['info', 'x']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=name.encode("unicode_escape"),
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    if code == "print_json":
        assert json.loads(done.stdout.decode(encoding)) == {"video": name}
    else:
        expected = (name + "\n").encode(encoding, "backslashreplace")
        assert done.stdout == expected


@pytest.mark.slow
def test_commands_on_a_video_whose_name_is_not_text(
    image: Path, folder: Path, searchable: Path, tmp_path: Path
) -> None:
    bad = tmp_path / os.fsdecode(b"bad \xff.mp4")
    bad.touch()
    model = ("--model", searchable)

    labels = ("--labels", "a cat", "a dog")
    printed = results_of("classify", image, bad, *labels, *model, code=1)
    assert printed.splitlines()[0] == AS_PRINTED
    printed = results_of("classify", image, *labels, *model, "--json")
    assert json.loads(printed)["video"] == NOT_TEXT
    printed = results_of("similarity", "--video", image, "--text", LINE, *model)
    assert printed.splitlines()[0] == AS_PRINTED
    printed = results_of("similarity", "--video", image, "--text", LINE, *model, "--json")
    assert json.loads(printed)["video"] == NOT_TEXT

    printed = results_of("embed", image, "-o", "-", *model)
    assert json.loads(printed)["video"] == NOT_TEXT
    for name in ("out.npz", "out.safetensors", "out.jsonl", "out"):
        output = tmp_path / name
        for _ in range(2 if name == "out" else 1):  # The second time all is there.
            printed = results_of("embed", image, bad, "-o", output, *model, "--json", code=1)
            assert json.loads(printed)["videos"] == 1
            assert json.loads(printed)["skipped"].keys() == {bad.name}
        if output.is_file():
            assert [video["name"] for video in read_record(output)["videos"]] == [NOT_TEXT]

    picture = tmp_path / os.fsdecode(b"\xff.png")
    assert results_of("show", image, "-o", picture, *model) == (f"{tmp_path}/\\udcff.png\n")
    printed = results_of(
        "timeline", folder / "b.mp4", "--text", LINE, "-o", picture, *model, "--json"
    )
    assert json.loads(printed)["output"] == str(picture)


@pytest.mark.parametrize(
    "arguments",
    [
        ("similarity", "--text", "a \udcff cat", "--video"),
        ("classify", "--labels", "a \udcff cat", "--"),
        ("timeline", "--text", "a \udcff cat", "-o", "x.png", "--"),
    ],
)
def test_texts_that_are_not_text(
    arguments: tuple[str, ...],
    folder: Path,
    searchable: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, *rest = arguments
    assert run(name, "--model", searchable, *rest, folder / "b.mp4") == 2
    assert r"'a \udcff cat' is not text: it has bytes that are not UTF-8" in capsys.readouterr().err
