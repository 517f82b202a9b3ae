"""What a video file holds, in words and as JSON."""

import json
import shutil
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.cli import main


def test_a_clip() -> None:
    described = vp.describe_video(media.clip("sound.mp4"))
    assert described["container"] == "QuickTime / MOV"
    assert described["codec"].startswith("H.264")
    assert described["size"] == list(media.SIZE)
    assert (described["frames"], described["fps"]) == (media.FRAMES, media.FPS)
    assert described["seconds"] == pytest.approx(media.FRAMES / media.FPS, abs=1e-3)
    assert [one["type"] for one in described["streams"]] == ["audio", "video"]
    assert described["stream"] == 1 and described["damage"] is None


@pytest.mark.parametrize(
    ("tags", "matrix", "colour_range"),
    [
        (["-colorspace", "bt709", "-color_range", "tv"], "bt709", "tv"),
        (["-colorspace", "bt470bg", "-color_range", "pc"], "bt470bg", "pc"),
        ([], None, None),
    ],
)
def test_colours(
    tags: list[str], matrix: str | None, colour_range: str | None, tmp_path: Path
) -> None:
    path = media.write(tmp_path / "a.mp4", frames=3, arguments=[*media.X264, *tags])
    colours = vp.describe_video(path)["colours"]
    assert (colours["matrix"], colours["range"]) == (matrix, colour_range)


def test_the_stream_that_is_asked_for() -> None:
    path = media.clip("two_streams.mkv")
    assert vp.describe_video(path)["frames"] == media.FRAMES
    assert vp.describe_video(path, vp.Decoding(stream=1))["frames"] == 60
    with pytest.raises(vp.VideoPrismError, match=r"no video stream 7; its video streams are: 0, 1"):
        vp.describe_video(path, vp.Decoding(stream=7))


def test_the_rate_of_a_file_that_rounds_its_times() -> None:
    path = media.made("ntsc.mkv", lambda path: media.write(path, frames=60, fps=29.97))
    assert vp.describe_video(path)["fps"] == pytest.approx(29.97, abs=0.02)


def test_the_size_is_as_it_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    described = vp.describe_video(media.clip("wide_turned90.mp4"))
    assert (described["size"], described["aspect"]) == (list(media.SIZE[::-1]), 0.5)
    assert main(["info", str(media.clip("cover.mp4"))]) == 0
    assert "stream 1    video, mjpeg 128 x 96, cover" in capsys.readouterr().out
    assert main(["info", str(media.clip("two_streams.mkv")), "--stream", "1"]) == 0
    assert "frames      60, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stream": -1}, "stream is -1; expected the number of a stream"),
        ({"stream": "a"}, "stream is 'a'; expected a whole number"),
        ({"tone_map": "no"}, "tone_map is 'no'; expected True or False"),
        ({"hardware": "on"}, "hardware is 'on'; expected one of off, auto"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(vp.VideoPrismError, match=message):
        vp.Decoding(**settings)


def test_settings_are_recorded_where_they_differ() -> None:
    assert vp.Decoding().record() == {"reader": "ffmpeg"}
    changed = vp.Decoding(np.int64(2), tone_map=True, hardware="auto")
    assert json.loads(json.dumps(changed.record())) == {
        "reader": "ffmpeg", "stream": 2, "tone_map": True, "hardware": "auto"
    }  # fmt: skip


def test_damage_is_named() -> None:
    described = vp.describe_video(media.clip("short.mp4"))
    assert "cut short" in described["damage"] and described["frames"] < media.FRAMES


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clip.mp4"
    shutil.copy(media.clip("b.mp4"), path)
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == vp.describe_video(path)
    assert main(["info", str(path)]) == 0
    printed = capsys.readouterr().out
    assert (
        "128 x 96" in printed
        and "100, 30 a second" in printed
        and "none in its structure" in printed
    )
    assert max(map(len, printed.splitlines()[1:])) <= 80
    shutil.copy(media.clip("short.mp4"), path)
    assert main(["info", str(path)]) == 1
    assert "cut short" in capsys.readouterr().out
