"""Images have no times: pictures of them show the names of their files."""

from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest
from commands import run
from PIL import Image, ImageDraw

import videoprism_mlx as vp
from videoprism_mlx import pictures
from videoprism_mlx.features.maps import map_features

TINY = ("--model", "videoprism_lvt_demo_tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images: shot_1.png to shot_12.png."""
    root = tmp_path_factory.mktemp("shots")
    for number in range(1, 13):
        Image.fromarray(media.frame(number)).save(root / f"shot_{number}.png")
    return root


def test_names_of_frames(folder: Path) -> None:
    model, processor = vp.load("videoprism_lvt_demo_tiny")
    images = [folder / f"shot_{number}.png" for number in (3, 1, 2)]
    for source, names in (
        (folder, ["shot_1.png", "shot_4.png", "shot_7.png", "shot_10.png"]),
        (images, ["shot_3.png", "shot_3.png", "shot_1.png", "shot_2.png"]),
        (images[0], ["shot_3.png"] * 4),
        (np.stack([media.frame(n) for n in range(8)]), [f"frame {n}" for n in (1, 3, 5, 7)]),
        (media.clip("b.mp4"), None),
    ):
        assert map_features(model, processor, source, 4).names == names


def texts_drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are drawn from now on."""
    drawn: list[str] = []
    real = ImageDraw.ImageDraw.text

    def text(pen: Any, place: Any, said: str, *more: Any, **options: Any) -> None:
        drawn.append(said)
        real(pen, place, said, *more, **options)

    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", text)
    return drawn


def test_show_draws_names_of_images_and_times_of_videos(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = texts_drawn(monkeypatch)
    assert run("show", folder, "-o", tmp_path / "x.png", "--frames", 3, *TINY) == 0
    assert drawn == [folder.name, "shot_1.png", "shot_5.png", "shot_9.png"]
    drawn.clear()
    assert run("show", folder, "-o", tmp_path / "x.mp4", "--fps", 5, *TINY) == 0
    assert drawn == ["shot_1.png", "shot_6.png", "shot_11.png"]
    drawn.clear()
    assert run("show", media.clip("b.mp4"), "-o", tmp_path / "x.png", "--frames", 2, *TINY) == 0
    assert drawn[0] == "b.mp4" and all(text.endswith(" s") for text in drawn[1:])


def test_timeline_says_that_times_are_assumed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for video, said in ((folder, "images have no times: they are taken as 25 f"), ("b.mp4", "")):
        video = video if said else media.clip(video)
        assert run("timeline", video, "--text", "a star", *TINY) == 0
        assert capsys.readouterr().err.startswith(said)
        assert said or "images" not in capsys.readouterr().err


def test_a_long_name_is_cut_to_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = texts_drawn(monkeypatch)
    frames = np.zeros((2, 40, 40, 3), np.uint8)
    pictures.draw_features(frames, frames, names=["x" * 200 + "17.png", "short"])
    assert (
        drawn[0].startswith("…x")
        and drawn[0].endswith("x17.png")
        and len(drawn[0]) < 100
        and drawn[1] == "short"
    )
    with pytest.raises(ValueError, match="2 frames, 2 colours, 1 name; expected"):
        pictures.draw_features(frames, frames, names=["one"])
