"""What a video file holds, in words and as JSON."""

import json
import shutil
from pathlib import Path

import media
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
    assert "128 x 96" in printed and "100, 30 a second" in printed and "none in its" in printed
    assert max(map(len, printed.splitlines()[1:])) <= 100
    shutil.copy(media.clip("short.mp4"), path)
    assert main(["info", str(path)]) == 1
    assert "cut short" in capsys.readouterr().out
