"""The demo as one HTML page, without scripts and without other files.

The text and the layout of the page are in templates/. This module prepares their data.

Shapes: S size of a frame.
"""

import base64
import io
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from videoprism_mlx.demo.animation import FPS
from videoprism_mlx.demo.results import Clip, Demo, Hit, Turn
from videoprism_mlx.pictures.drawing import CURVE, FAINT, INK, PAPER

# How many clips the page shows for each query, and in the gallery.
TOP, GALLERY = 4, 60

# The side of a clip, in pixels, among the results and in the gallery.
LARGE, SMALL = 192, 96

# How long the last frame stays, in milliseconds. It shows where the clip ends.
LAST = 700

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Animation(NamedTuple):
    """A clip as an animated image and as a still image, both as data URIs."""

    playing: str
    still: str


class Dot(NamedTuple):
    """A clip on the axis of cosines: its position in percent, and whether it is a right answer."""

    percent: float
    is_right: bool


class Bar(NamedTuple):
    """The cosine of a text as a bar. `percent` is its length relative to the longest bar."""

    text: str
    cosine: float
    percent: float
    is_longest: bool


def page(demo: Demo) -> str:
    """The page as HTML."""
    return TEMPLATES.get_template("page.html").render(
        demo=demo,
        machine=machine(),
        top=min(TOP, len(demo.clips)),
        gallery=demo.clips[:GALLERY],
        large=LARGE,
        small=SMALL,
        colours=dict(paper=PAPER, ink=INK, faint=FAINT, right=CURVE),
        animation=animation,
        dots=lambda hits: dots(hits, *reach(demo)),
        bars=bars,
    )


def machine() -> str:
    """The system, its processor, and the device that the model ran on."""
    system = {"Darwin": "macOS"}.get(platform.system(), platform.system())
    device = "GPU" if mx.default_device().type == mx.gpu else "CPU"
    return f"{system} ({platform.machine()}, {device})"


def reach(demo: Demo) -> tuple[float, float]:
    """The lowest and the highest cosine of all queries and clips."""
    cosines = [hit.cosine for ranking in demo.rankings for hit in ranking.hits]
    return min(cosines), max(cosines)


def dots(hits: Sequence[Hit], lowest: float, highest: float) -> list[Dot]:
    """All clips on an axis from the lowest to the highest cosine. Right answers are drawn last."""
    span = (highest - lowest) or 1.0
    return [
        Dot(1 + 98 * (hit.cosine - lowest) / span, bool(hit.is_right))
        for hit in sorted(hits, key=lambda hit: bool(hit.is_right))
    ]


def bars(turn: Turn) -> list[tuple[Clip, str, list[Bar]]]:
    """For each direction of a clip: the clip, the direction, and a bar for each sentence."""
    longest = max(turn.cosines.max(), 1e-6)
    return [
        (
            clip,
            direction,
            [
                Bar(text, cosine, 100 * max(cosine, 0) / longest, cosine == cosines.max())
                for text, cosine in zip((turn.text, turn.opposite), cosines, strict=True)
            ],
        )
        for clip, direction, cosines in (
            (turn.clip, "forwards", turn.cosines[0]),
            (turn.backwards, "backwards", turn.cosines[1]),
        )
    ]


# Images.


def animation(clip: Clip, side: int) -> Animation:
    """A clip as images of `side` x `side` pixels. The still image shows four frames."""
    frames = [
        Image.fromarray(frame).resize((side, side), Image.Resampling.LANCZOS)
        for frame in clip.frames()
    ]
    return Animation(data_uri(frames), data_uri([four_of(frames)]))


def four_of(frames: Sequence[Image.Image]) -> Image.Image:
    """Four frames, from the first to the last, as the quarters of one image."""
    side = frames[0].width
    sheet = Image.new("RGB", (side, side), PAPER)
    for place, which in enumerate(np.linspace(0, len(frames) - 1, 4).round().astype(int)):
        small = frames[which].resize((side // 2 - 1, side // 2 - 1), Image.Resampling.LANCZOS)
        sheet.paste(small, (place % 2 * (side // 2 + 1), place // 2 * (side // 2 + 1)))
    return sheet


def data_uri(frames: Sequence[Image.Image]) -> str:
    """Frames as an animated WebP image that repeats. One frame gives a still image."""
    written = io.BytesIO()
    settings: dict[str, Any] = dict(quality=50, method=4)
    if len(frames) > 1:
        durations = [1000 // FPS] * (len(frames) - 1) + [LAST]
        settings |= dict(save_all=True, append_images=frames[1:], duration=durations, loop=0)
        settings |= dict(minimize_size=True)
    frames[0].save(written, "webp", **settings)
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"
