"""Copies of drawn clips are found, and clips that show the same elsewhere are not."""

import json
from pathlib import Path

import media
import numpy as np
import pytest
from library_media import draw, filled, world

from videoprism_mlx.cli import main
from videoprism_mlx.library import table
from videoprism_mlx.library.filters import Where
from videoprism_mlx.library.library import Library
from videoprism_mlx.library.search import duplicates as module
from videoprism_mlx.library.search.alike import best_difference

X264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p"]

# How each copy is made of a clip.
COPIES = {
    "recoded": ["-crf", "38"],
    "resized": ["-vf", "scale=96:80"],
    "trimmed": ["-ss", "0.5", "-t", "1.25"],
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips with a copy each, one of them with two, and all scenes with things elsewhere."""
    folder = tmp_path_factory.mktemp("duplicates")
    scenes = world().scenes[:3]
    clips = draw(folder / "clips", scenes, seed=1)
    draw(folder / "others", scenes, seed=2)
    (folder / "copies").mkdir()
    for clip, (name, how) in zip(clips, COPIES.items(), strict=True):
        media.ffmpeg("-i", clip, *how, *X264, folder / "copies" / f"{name}.mp4")
    media.ffmpeg("-i", clips[0], "-vf", "hue=s=0.5", *X264, folder / "copies" / "paler.mp4")
    filled(folder / "library", [folder / name for name in ("clips", "others", "copies")])
    return folder


def test_copies_are_found_and_nothing_else(library: Path) -> None:
    groups = Library(library / "library").duplicates(progress=False)
    names = [[Path(one.path).name for one in group.videos] for group in groups]
    assert sorted(names) == [
        ["clip00000.mp4", "paler.mp4", "recoded.mp4"],
        ["clip00001.mp4", "resized.mp4"],
        ["clip00002.mp4", "trimmed.mp4"],
    ]
    assert all(0.5 <= group.sure <= 1 for group in groups)
    assert [group.sure for group in groups] == sorted((g.sure for g in groups), reverse=True)


def test_the_command(library: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["library", "duplicates", "--library", str(library / "library")]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 3 and list(found[0]) == ["sure", "videos"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + 7 and lines[0].endswith("% sure")
    assert main([*command, "--in", str(library / "clips")]) == 0
    assert capsys.readouterr().out == "no video is a copy of another\n"


def test_memory_is_bounded_and_files_may_be_gone(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a video and two moments at a time, the groups are the same."""
    expected = Library(library / "library").duplicates(progress=False)
    monkeypatch.setattr(module, "VIDEOS_AT_ONCE", 1)
    monkeypatch.setattr(table, "BATCH_ROWS", 2)
    assert Library(library / "library").duplicates(progress=False) == expected
    (library / "clips" / "clip00001.mp4").rename(library / "away.mp4")
    try:
        groups = Library(library / "library").duplicates(progress=False)
        assert len(groups) == 2
    finally:
        (library / "away.mp4").rename(library / "clips" / "clip00001.mp4")
    where = Where(library / "copies")
    assert Library(library / "library").duplicates(where, progress=False) != expected


def test_the_shift_with_the_least_difference() -> None:
    random = np.random.default_rng(0)
    shown = random.uniform(0, 255, size=(40, 32, 32)).astype(np.float32)
    instants = np.arange(40) / 16
    assert best_difference(shown[10:26:2], instants[10:26:2] + 5, shown, instants) == 0
    assert best_difference(shown[34:], instants[34:], shown[:36], instants[:36]) > 20
    assert best_difference(random.uniform(0, 255, (8, 32, 32)), instants[:8], shown, instants) > 20
