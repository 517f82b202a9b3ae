"""A film of a video beside its features as colours.

Shapes: H height, W width. Images are RGB, 0-255.
"""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from videoprism_mlx.errors import InputError
from videoprism_mlx.pictures.drawing import (
    INK,
    PAPER,
    Pixels,
    checked_images,
    fitted_end,
    resized,
    stamp,
)
from videoprism_mlx.video.ffmpeg.write import write_video


def write_feature_video(
    path: str | Path,
    frames: Iterable[Pixels],
    colours: Iterable[Pixels],
    times: Iterable[float] | None = None,
    fps: float = 8.0,
    names: Iterable[str] | None = None,
) -> None:
    """Writes an .mp4 of frames (H, W, 3), each left of its colours (rows, columns, 3).

    The time of each frame is below it. `times` are in seconds; by default `fps` gives them. With
    `names`, the name of each frame is there instead.
    """
    said = (stamp(time) for time in times) if names is None and times is not None else names
    write_video(path, _pages(frames, colours, said, fps), fps)


def _pages(
    frames: Iterable[Pixels],
    colours: Iterable[Pixels],
    captions: Iterable[str] | None,
    fps: float,
) -> Iterator[Pixels]:
    """The images of the film. Raises InputError if one of the inputs ends before the others."""
    several = [frames, colours] if captions is None else [frames, colours, captions]
    for count, (frame, colour, *said) in enumerate(zip_longest(*several)):
        if frame is None or colour is None or None in said:
            raise InputError(f"frames, colours and times differ in number: one ends after {count}")
        yield _page(frame, colour, said[0] if said else stamp(count / fps))


def _page(frame: Pixels, colour: Pixels, said: str) -> Pixels:
    """A frame (H, W, 3), its colours to the right and a text below. Height and width are even."""
    [frame], [colour] = checked_images([frame], "frames"), checked_images([colour], "colours")
    height, width = frame.shape[:2]
    text = min(max(height // 16, 12), 36)
    page = Image.new("RGB", (2 * width + 8, height + 2 * text + height % 2), PAPER)
    page.paste(Image.fromarray(frame), (0, 0))
    page.paste(resized(colour, (width, height)), (width + 8, 0))
    place = text // 2, height + text
    font = ImageFont.load_default(text)
    said = fitted_end(said, font.getlength, page.width - text)
    ImageDraw.Draw(page).text(place, said, INK, font, anchor="lm")
    return np.array(page)
