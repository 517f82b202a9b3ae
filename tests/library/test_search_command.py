"""`videoprism-mlx search`."""

import base64
import io
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from library_media import draw, given, world
from PIL import Image

from videoprism_mlx.cli import main
from videoprism_mlx.cli.library import opening, preview
from videoprism_mlx.cli.library.search import lines
from videoprism_mlx.library.library import Library
from videoprism_mlx.library.moment import Moment
from videoprism_mlx.models import DEMO_MODEL


def searched(*words: str) -> int:
    return main(["search", "--library", str(world().library), *words])


def test_a_line_for_each_video(capsys: pytest.CaptureFixture) -> None:
    assert searched("something", "spinning", "-k", "3") == 0
    found = capsys.readouterr().out.splitlines()
    expected = Library(world().library).search("something spinning", k=3)
    assert len(found) == 3 and max(map(len, found)) <= 80
    for line, each in zip(found, expected, strict=True):
        assert line.split()[:2] == [f"{each.score:.3f}", each.video]


def test_json_and_paths(capsys: pytest.CaptureFixture) -> None:
    expected = Library(world().library).search("something spinning", k=4, moments=True)
    query = ("something spinning", "-k", "4", "--moments")
    assert searched(*query, "--json") == 0
    assert json.loads(capsys.readouterr().out) == [each.as_json() for each in expected]
    paths = list(dict.fromkeys(each.path for each in expected))
    assert searched(*query, "--paths") == 0
    assert capsys.readouterr().out == "".join(f"{path}\n" for path in paths)
    assert searched(*query, "-0") == 0
    assert capsys.readouterr().out == "".join(f"{path}\0" for path in paths)


def test_filters_and_a_clip_with_a_text(capsys: pytest.CaptureFixture) -> None:
    clip, row = world().clips[0], str(world().row.resolve())
    assert searched(f"2:{clip}", "-", "a", "star", "--paths", "-k", "1") == 0
    assert capsys.readouterr().out.strip() == str(clip)
    assert searched("a star", "--longer", "30", "--paths") == 0
    assert capsys.readouterr().out.strip() == row
    assert searched("a star", "--in", row, "--json") == 0
    assert {each["path"] for each in json.loads(capsys.readouterr().out)} == {row}
    assert searched("a star", "--before", "1990") == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "nothing found" in captured.err


def test_a_folder_is_indexed_first(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is new in it is found, and nothing of other folders. The model is loaded once."""
    first, second = (
        draw(tmp_path / name, world().scenes[place : place + 2], seed)
        for seed, (name, place) in enumerate((("first", 0), ("second", 2)))
    )
    library = ["--library", str(tmp_path / "library")]
    assert main(["index", str(tmp_path / "first"), *library, "--model", DEMO_MODEL]) == 0
    capsys.readouterr()
    with monkeypatch.context() as context:
        for module in ("library", "searcher"):
            context.setattr(f"videoprism_mlx.library.{module}.load_recorded", None)
        assert main(["search", str(tmp_path / "second"), "a star", *library, "--paths"]) == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(map(str, second))
    assert main(["search", "a star", *library, "--paths"]) == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(map(str, [*first, *second]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x", "+"], "has no part after it"),
        (["gone.mp4"], "there is no file gone.mp4"),
        (["x", "-k", "0"], "-k is 0; expected 1 or more"),
        (["x", "--in", "/gone"], "there is no folder /gone"),
        (["x", "--after", "soon"], "'soon' is not a date"),
        (["x", "--longer", "5", "--shorter", "3"], "no video fits both"),
        (["x", "--json", "-0"], "leave one of them out"),
        (["/", "x", "--in", "/"], "leave one of them out"),
        (["x", "--model", "y"], "begin with a folder"),
        (["/"], "is a folder, and there is no query"),
        (["gone/", "a star"], "there is no folder gone/"),
        (["x", "--export", "/dev/null"], "is no folder"),
    ],
)
def test_mistakes_are_named_before_the_model_is_loaded(
    words: list[str], said: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videoprism_mlx.library.searcher.load_recorded", None)
    assert searched(*words) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_clips_are_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = world().folder / "clips"
    command = ["a star", "-k", "2", "--in", str(folder), "--export", str(tmp_path / "out")]
    assert searched(*command) == 0
    assert "2 clips in" in capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("clip* 0m00.0s-0m02.0s.mp4"))) == 2


def test_long_and_strange_names_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Moment(video, video, start, start + 4, 0.1234, "", 0)
        for video, start in (
            ("a" * 200 + ".mp4", 0.0),
            ("x\x1b[2J\n.mp4", 36000.0),
            ("日本" * 30, 1),
        )
    ]
    printed = lines(found)
    assert all(len(line) <= 80 and line.isprintable() for line in printed)
    assert printed[0].endswith("0:00.0 - 0:04.0") and "10:00:00.0" in printed[1]


def test_equal_names_are_told_apart() -> None:
    found = [
        Moment("clip.mp4", f"/videos/{folder}/clip.mp4", 0.0, 4.0, 0.5, "", 0)
        for folder in ("sea", "land")
    ]
    assert [line.split()[1] for line in lines(found)] == ["sea/clip.mp4", "land/clip.mp4"]


def test_a_folder_alone_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "star").mkdir()
    monkeypatch.chdir(tmp_path)
    assert searched("star", "--json", "-k", "1") == 0
    printed = capsys.readouterr()
    expected = Library(world().library).search("star", k=1)
    assert json.loads(printed.out) == [each.as_json() for each in expected]
    assert "'star' is searched for as text; to search the folder" in printed.err


def test_json_has_times_in_milliseconds() -> None:
    moment = Moment("a", "a", 1 / 3, 1.9999999999999991, 0.5, "", 0).as_json()
    assert (moment["start"], moment["end"]) == (0.333, 2.0)


def test_the_player_that_can_begin_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(opening, "ON_MAC", {})
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(FileNotFoundError, match=r"no program to open .* install mpv or VLC"):
        opening.command("/a {b}.mp4", 12.5)
    expected = {
        "xdg-open": ["/a {path}.mp4"],
        "vlc": ["--start-time=12.50", "/a {path}.mp4"],
        "mpv": ["--start=12.50", "/a {path}.mp4"],
    }
    for name, arguments in expected.items():
        program = tmp_path / name
        program.write_text("#!/bin/sh\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        assert opening.command("/a {path}.mp4", 12.5) == [str(program), *arguments]


def test_a_program_that_cannot_open_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "xdg-open"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(opening, "PLAYERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.mp4").touch()
    with pytest.raises(FileNotFoundError, match=r"^xdg-open could not open .* with 3"):
        opening.open_at(str(tmp_path / "a.mp4"), 1)


@pytest.fixture
def jpeg() -> bytes:
    """A picture, red above blue."""
    pixels = np.zeros((90, 160, 3), np.uint8)
    pixels[:45, :, 0] = pixels[45:, :, 2] = 255
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "jpeg", quality=95)
    return written.getvalue()


def test_pictures_for_terminals(jpeg: bytes) -> None:
    said = preview.iterm(jpeg)
    assert base64.b64decode(said.partition(":")[2].rstrip("\a")) == jpeg
    pieces = preview.kitty(jpeg).split("\x1b\\")[:-1]
    encoded = "".join(piece.partition(";")[2] for piece in pieces)
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
        assert picture.format == "PNG" and picture.size == (160, 90)
    assert "m=0;" in pieces[-1] and all("m=1;" in piece for piece in pieces[:-1])


def test_sixels_are_the_picture(jpeg: bytes) -> None:
    """Decoded as a terminal does it."""
    import re

    said = preview.sixel(jpeg)
    assert said.startswith("\x1bPq") and said.endswith("\x1b\\")
    width, height = map(int, re.findall(r'"1;1;(\d+);(\d+)', said)[0])
    pixels = np.zeros((height + 6, width, 3))
    palette: dict[int, list[int]] = {}
    top = column = colour = 0
    body = said[said.index("#") : -2]
    for token in re.findall(r"#\d+;2;\d+;\d+;\d+|#\d+|!\d+.|[$-]|[?-~]", body):
        if token.startswith("#"):
            colour, *rgb = map(int, token[1:].split(";"))
            if rgb:
                palette[colour] = rgb[1:]
        elif token == "$":
            column = 0
        elif token == "-":
            top, column = top + 6, 0
        else:
            count = int(token[1:-1]) if token.startswith("!") else 1
            for row in range(6):
                if ord(token[-1]) - 63 >> row & 1:
                    pixels[top + row, column : column + count] = palette[colour]
            column += count
    assert np.abs(pixels[5, width // 2] - [100, 0, 0]).max() < 8
    assert np.abs(pixels[height - 5, width // 2] - [0, 0, 100]).max() < 8


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM_PROGRAM": "iTerm.app"}, preview.iterm),
        ({"TERM_PROGRAM": "WezTerm", "TMUX": "1"}, None),
        ({"TERM": "xterm-kitty"}, preview.kitty),
        ({"TERM": "foot"}, preview.sixel),
    ],
)
def test_terminals_are_known_by_the_environment(environment: dict, expected: object) -> None:
    assert preview.protocol(environment) == expected


def test_no_preview_where_stdout_is_no_terminal(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "TERM_PROGRAM", "iTerm.app")
    assert searched("a star", "-k", "1", "--preview") == 0
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out and "no preview: stdout is no terminal" in captured.err


def test_a_library_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["search", "x", "--library", str(tmp_path / "none")]) == 2
    assert "make one with `videoprism-mlx index FOLDER`" in capsys.readouterr().err
    given(tmp_path / "vectors", {"/a.mp4": np.eye(8, dtype=np.float32)})
    assert main(["search", "a star", "--library", str(tmp_path / "vectors")]) == 2
    assert "another model" in capsys.readouterr().err
