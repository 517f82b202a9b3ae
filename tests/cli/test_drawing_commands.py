"""`show` and `timeline`: what they draw, print and refuse."""

import contextlib
import io
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import cv2
import media
import numpy as np
import pytest
from commands import LINE, make_videos, run
from PIL import Image

import videoprism_mlx as vp


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


def test_a_picture_of_features(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "maps.png"
    arguments = ("show", folder / "b.mp4", "--model", searchable)
    assert run(*arguments, "-o", output, "--frames", 6, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"output": str(output), "frames": 6}
    image = Image.open(output)
    assert image.format == "PNG" and min(image.size) > 300
    assert run(*arguments, "-o", output) == 0
    assert capsys.readouterr().out == f"{output}\n"


def test_a_film_of_features(folder: Path, searchable: Path, tmp_path: Path) -> None:
    output = tmp_path / "maps.mp4"
    arguments = ("--model", searchable, "-o", output, "--fps", 5, "--start", 1, "--end", 3)
    assert run("show", folder / "b.mp4", *arguments) == 0
    film = cv2.VideoCapture(str(output))
    assert film.get(cv2.CAP_PROP_FPS) == 5
    frames = []
    while (read := film.read())[0]:
        frames.append(read[1])
    assert len(frames) == 10
    width = (frames[0].shape[1] - 8) // 2
    assert [media.number(frame[:288, :width]) for frame in frames] == list(range(30, 90, 6))


def test_the_bar_is_gone_when_a_film_fails(
    searchable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def fail(path: Path, frames: Iterable[object], *_: object) -> None:
        iterator = iter(frames)  # It lives as long as the error's traceback.
        next(iterator)
        raise OSError("the disk has gone")

    monkeypatch.setattr(vp.pictures, "write_feature_video", fail)
    video, output = media.clip("b.mp4"), tmp_path / "maps.mp4"
    with contextlib.redirect_stderr(Terminal()) as terminal:
        assert run("show", video, "--model", searchable, "-o", output, "--end", 1) == 2
    bars, _, message = terminal.getvalue().rpartition("\r")
    assert "writing" in bars and message == "videoprism-mlx: the disk has gone\n"


def test_a_timeline(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "when.png"
    arguments = ("timeline", folder / "b.mp4", "--text", LINE, "a kite", "--model", searchable)
    assert run(*arguments, "-o", output, "--stride", 2, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    model, processor = vp.load(searchable)
    windows = list(
        vp.encode_windows(
            model, folder / "b.mp4", 4, 2, 8, processor=processor, features=["embedding"]
        )
    )
    assert found["windows"] == len(windows)
    texts = vp.embed_texts(model, processor, [LINE, "a kite"])
    scores = np.stack([window.features["embedding"] for window in windows]) @ texts.T
    for number, text in enumerate((LINE, "a kite")):
        best = next(peak for peak in found["peaks"] if peak["text"] == text)
        window = windows[int(scores[:, number].argmax())]
        assert best["cosine"] == pytest.approx(scores[:, number].max(), abs=2e-6)
        assert best["seconds"] == pytest.approx((window.start + window.end) / 2)
    assert Image.open(output).format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "-o", "out.gif"], "does not end in .png or .mp4; name another output"),
        (["show", "-o", "out.png", "--fps", "2"], "--fps is only for an .mp4"),
        (["show", "-o", "out.mp4", "--frames", "2"], "--frames is only for a .png"),
        (["show", "-o", "out.png", "--start", "9"], "outside"),
        (
            ["timeline", "-o", "out.mp4", "--text", LINE],
            "does not end in .png, .csv or .json; name another output",
        ),
        (["timeline", "-o", "out.png", "--text", LINE, "--window", "0"], "window is 0"),
        (["timeline", "-o", "out.png", "--text", LINE, "--stride", "0"], "stride is 0"),
        (["timeline", "-o", "out.png", "--text", LINE, "--fps", "0"], "fps is 0"),
    ],
)
def test_bad_pictures(
    arguments: list[str],
    message: str,
    folder: Path,
    searchable: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *rest = arguments
    assert run(name, folder / "b.mp4", *rest, "--model", searchable) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_does_not_replace_the_video(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clip.mp4"
    shutil.copy(folder / "b.mp4", path)
    before = path.read_bytes()
    assert run("show", path, "-o", tmp_path / "." / "clip.mp4", "--model", searchable) == 2
    assert "is the video itself; name another output" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_broken_video_is_not_drawn(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (folder / "cut.mp4", "-o", tmp_path / "x.png", "--model", searchable)
    assert run("show", *arguments) == 2
    assert "breaks off after" in capsys.readouterr().err
    assert run("timeline", *arguments, "--text", LINE) == 2
    assert list(tmp_path.iterdir()) == []
    assert run("show", *arguments, "--partial") == 0
