"""Draws the pictures of the page of a library, with Chromium. It needs playwright.

python docs/draw_page.py
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import videoprism_mlx as vp
from videoprism_mlx.demo.animation import FPS, draw_clip
from videoprism_mlx.demo.queries import choose_scenes
from videoprism_mlx.demo.world import clip_random, write_clip
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.video.ffmpeg.write import write_video

IMAGES = Path(__file__).resolve().parent / "images"
COUNT, LONG = 40, 24  # Clips, and how many of them the long video shows.
SIZE, COLOURS = (1200, 840), 192  # Of a picture. Few colours keep its file small.
NAME = "a long day.mp4"


def write_clips(folder: Path) -> None:
    """The clips of the demo, and a long video of some of them."""
    folder.mkdir()
    clips = [draw_clip(scene, clip_random(0, i)) for i, scene in enumerate(choose_scenes(COUNT, 0))]
    for number, clip in enumerate(clips, 1):
        write_clip(folder / f"clip{number:02}.mp4", clip)
    write_video(
        folder / NAME, np.concatenate([np.concatenate([one, one]) for one in clips[:LONG]]), FPS
    )


def take(browser: Browser, address: str, scheme: str, output: str) -> None:
    """A picture of the page at an address."""
    width, height = SIZE
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": height})
    page.goto(address)
    page.locator(".card .name, .film img").first.wait_for()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)
    picture = IMAGES / output
    page.screenshot(path=picture)
    small = Image.open(picture).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(picture, optimize=True)
    page.close()


def main() -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as root, sync_playwright() as playwright:
        folder, library = Path(root) / "clips", Path(root) / "library"
        write_clips(folder)
        vp.Library(library).add(folder, DEMO_MODEL)
        [video] = [row for row in vp.Library(library).tables().rows() if NAME in row["path"]]
        command = [sys.executable, "-m", "videoprism_mlx", "serve", "--library", str(library)]
        serving = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert serving.stdout is not None
        address = serving.stdout.readline().split()[0]
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            browser.new_page().goto(f"{address}?q=a+circle")  # The first search loads the model.
            take(browser, f"{address}?q=something+spinning", "light", "serve.png")
            query = f"?q=a+yellow+heart&v={video['id']}&t=57"
            take(browser, f"{address}{query}", "dark", "serve_video.png")
        finally:
            browser.close()
            serving.terminate()
            serving.wait()


if __name__ == "__main__":
    main()
