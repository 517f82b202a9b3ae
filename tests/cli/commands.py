"""What the tests of commands share: running them, and videos to run them on."""

import shutil
import sys
from pathlib import Path

import media
import numpy as np

import videoprism_mlx as vp
from videoprism_mlx.cli import main

GOOD = ["b.mp4", "uneven.mkv", "vp9.webm", "mpeg4.avi"]
LINE = "a red cat runs"

# The good videos by name, in the order in which they are found.
STORED = ["b.mp4", "mpeg4.avi", "uneven.mkv", "deeper/vp9.webm"]


def make_videos(root: Path) -> Path:
    """Videos in a folder and another in it, with three bad ones among them."""
    (root / "deeper").mkdir()
    for name in GOOD:
        shutil.copy(media.clip(name), root / ("deeper" if name == "vp9.webm" else ".") / name)
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("no video\n" * 100)
    shutil.copy(media.clip("short.mp4"), root / "cut.mp4")
    (root / "notes.txt").write_text("not a video, and not called like one")
    return root


def run(*arguments: object) -> int:
    """Runs a command in this process, and returns its exit code."""
    return main([str(argument) for argument in arguments])


def command(*arguments: object) -> list[str]:
    """A command for a process of its own."""
    return [sys.executable, "-m", "videoprism_mlx", *map(str, arguments)]


def expected_embedding(model_directory: Path, path: Path) -> np.ndarray:
    """The embedding of a video, from a call of the model."""
    model, processor = vp.load(model_directory)
    return np.array(model(**processor(videos=[path]))[0][0])
