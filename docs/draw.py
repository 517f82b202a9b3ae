"""Draws the pictures of the docs with the small model that ships, and prints the outputs in them.

python docs/draw.py
"""

import os
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from videoprism_mlx import cli
from videoprism_mlx.demo.animation import draw_clip
from videoprism_mlx.demo.scenes import Scene, Thing
from videoprism_mlx.demo.world import clip_random, write_clip

IMAGES = Path(__file__).resolve().parent / "images"
MODEL = "videoprism_lvt_demo_tiny"
WIDTH, QUALITY = 1000, 85  # Of an image, to keep it small.

CLIPS = {
    "star.mp4": Scene((Thing("star", "blue", "large", "plain", "left"),), "night sky"),
    "heart.mp4": Scene((Thing("heart", "yellow", "large", "plain", "still"),), "sand"),
    "cross.mp4": Scene((Thing("cross", "green", "large", "striped", "spinning"),), "white"),
}


def write_clips() -> None:
    """A clip of each scene, and all of them one after another as three.mp4."""
    frames = [draw_clip(scene, clip_random(0, i)) for i, scene in enumerate(CLIPS.values())]
    for name, clip in zip(CLIPS, frames, strict=True):
        write_clip(Path(name), clip)
    write_clip(Path("three.mp4"), np.concatenate(frames))


def keep_small(picture: str) -> None:
    """Writes a picture to the docs, with fewer pixels and as a JPEG."""
    image = Image.open(picture).convert("RGB")
    image = image.resize((WIDTH, round(image.height * WIDTH / image.width)))
    image.save(IMAGES / f"{Path(picture).stem}.jpg", quality=QUALITY, optimize=True)


def run(line: str) -> None:
    """Runs a command with the small model and shows it."""
    line = f"videoprism-mlx {line} --model {MODEL}"
    print("$", line, flush=True)
    if cli.main(shlex.split(line)[1:]):
        sys.exit(1)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_clips()
        run("show three.mp4 -o show.png --frames 6")
        run(
            "timeline three.mp4 --text 'something spinning' 'a yellow heart' 'at night' "
            "-o timeline.png --fps 4 --stride 1"
        )
        for picture in ("show.png", "timeline.png"):
            keep_small(picture)
        run("similarity --video star.mp4 heart.mp4 --text 'a star moves left' 'a yellow heart'")
        run("classify star.mp4 heart.mp4 cross.mp4 --labels star heart cross")
        os.chdir(IMAGES)


if __name__ == "__main__":
    main()
