"""Sheets of images: frames beside their features as colours, and the results of a search.

Shapes: T frames, H height, W width. Images are RGB, 0-255.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from videoprism_mlx.errors import InputError, counted
from videoprism_mlx.pictures.drawing import (
    CURVE,
    FAINT,
    INK,
    PAPER,
    PEAK,
    Pixels,
    checked_images,
    fitted,
    fitted_end,
    resized,
    stamp,
)

# The most pairs on a sheet. With more, they would be too small to see.
MOST_PAIRS = 16

# A clip that was found: its frames (T, H, W, 3), a caption, and whether it is right, if known.
Found = tuple[Pixels, str, bool | None]

# A sheet of features, in pixels: its margin, the gap between pairs, and the height of a caption.
MARGIN, GAP, CAPTION = 28, 20, 30

# A sheet of results, in pixels: its width and margin, the gaps between strips and between frames of
# a strip; the heights of a query and of a caption, and the space between rows.
SEARCH_WIDTH, SEARCH_MARGIN, SEARCH_GAP, SEAM = 1600, 40, 32, 4
QUERY_HEIGHT, STRIP_CAPTION, ROW_SPACE = 60, 46, 24


def draw_features(
    frames: npt.ArrayLike,
    colours: npt.ArrayLike,
    times: Sequence[float] | npt.NDArray[np.floating] | None = None,
    title: str | None = None,
    names: Sequence[str] | None = None,
) -> Pixels:
    """An image of frames (T, H, W, 3), each above or beside its colours (T, rows, columns, 3).

    Below each pair is its time; `times` are in seconds. With `names`, its name is there instead.
    If there are more than 16 frames, 16 of them are shown, evenly spaced from the first to the
    last.
    """
    frames, colours = checked_images(frames, "frames"), checked_images(colours, "colours")
    given = [(each, what) for each, what in ((times, "time"), (names, "name")) if each is not None]
    if len({len(frames), len(colours), *(len(each) for each, _ in given)}) > 1:
        count = "".join(f", {counted(len(each), what)}" for each, what in given)
        raise InputError(
            f"there are {counted(len(frames), 'frame')}, {counted(len(colours), 'colour')}{count}; "
            "expected the same number of each"
        )
    shown = np.unique(np.linspace(0, len(frames) - 1, MOST_PAIRS).round().astype(int))

    height, width = frames.shape[1:3]
    columns, beside = _layout(len(shown), width / height)
    across = columns * (1 + beside)
    scale = min(400 / width, 1800 / across / width, 640 / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    step = (size[0] + 4, 0) if beside else (0, size[1] + 4)  # From a frame to its colours.
    pair = max(size[0] + step[0], 90), size[1] + step[1]

    top = MARGIN + (52 if title else 0)
    rows = math.ceil(len(shown) / columns)
    sheet = Image.new(
        "RGB",
        (
            2 * MARGIN + columns * (pair[0] + GAP) - GAP,
            top + rows * (pair[1] + CAPTION + GAP) - GAP + MARGIN // 2,
        ),
        PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    if title:
        _write(pen, (MARGIN, MARGIN), title, 28, sheet.width - 2 * MARGIN)
    font = ImageFont.load_default(18)
    for place, i in enumerate(shown):
        row, column = divmod(place, columns)
        x = MARGIN + column * (pair[0] + GAP)
        y = top + row * (pair[1] + CAPTION + GAP)
        left = x + (pair[0] - size[0] - step[0]) // 2
        sheet.paste(resized(frames[i], size), (left, y))
        sheet.paste(resized(colours[i], size), (left + step[0], y + step[1]))
        said = f"frame {i + 1}" if times is None else stamp(times[i], max(times))
        said = said if names is None else fitted_end(names[i], font.getlength, pair[0] + GAP / 2)
        pen.text((x + pair[0] / 2, y + pair[1] + 6), said, FAINT, font, anchor="ma")
    return np.array(sheet)


def draw_search(
    rows: Sequence[tuple[str, Sequence[Found]]], frames: int = 4, title: str | None = None
) -> Pixels:
    """An image of queries, each above the clips that were found for it.

    A clip is a strip of `frames` frames with a caption below. Before the caption is a tick or a
    cross, if it is known whether the clip is right.
    """
    if not rows or not all(found for _, found in rows):
        raise InputError(
            "there are no queries, or one has no results; expected a result for each query"
        )
    room = SEARCH_WIDTH - 2 * SEARCH_MARGIN
    across = max(len(found) for _, found in rows)
    strip = (room - (across - 1) * SEARCH_GAP) // across
    side = (strip - (frames - 1) * SEAM) // frames
    top = SEARCH_MARGIN + (72 if title else 0)
    row = QUERY_HEIGHT + side + STRIP_CAPTION + ROW_SPACE
    height = top + len(rows) * row - ROW_SPACE + SEARCH_MARGIN // 2
    sheet = Image.new("RGB", (SEARCH_WIDTH, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        _write(pen, (SEARCH_MARGIN, SEARCH_MARGIN), title, 42, room)
    for number, (query, found) in enumerate(rows):
        y = top + number * row
        _write(pen, (SEARCH_MARGIN, y), query, 34, room, CURVE)
        for place, each in enumerate(found):
            x = SEARCH_MARGIN + place * (strip + SEARCH_GAP)
            _draw_strip(sheet, (x, y + QUERY_HEIGHT), each, frames, side, strip)
    return np.array(sheet)


def _draw_strip(
    sheet: Image.Image, place: tuple[int, int], found: Found, frames: int, side: int, width: int
) -> None:
    """Draws square frames of `side` pixels next to each other, with a mark and a caption below."""
    x, y = place
    clip, said, is_right = found
    clip = checked_images(clip, "frames")
    for i, which in enumerate(np.linspace(0, len(clip) - 1, frames).round().astype(int)):
        sheet.paste(resized(clip[which], (side, side)), (x + i * (side + SEAM), y))
    pen = ImageDraw.Draw(sheet)
    middle = y + side + STRIP_CAPTION // 2
    indent = 0
    if is_right is not None:
        _draw_mark(pen, x, middle, is_right)
        indent = 30
    _write(pen, (x + indent, middle), said, 25, width - indent, anchor="lm")


def _draw_mark(pen: ImageDraw.ImageDraw, x: int, y: int, is_right: bool) -> None:
    """Draws a tick or a cross, 18 pixels wide, right of `x` and at the height of `y`."""
    lines = [[(0, 0), (6, 7), (18, -8)]] if is_right else [[(1, -7), (15, 7)], [(15, -7), (1, 7)]]
    for line in lines:
        moved = [(x + dx, y + dy) for dx, dy in line]
        pen.line(moved, CURVE if is_right else PEAK, 4, joint="curve")


def _write(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    room: float,
    colour: str = INK,
    anchor: str | None = None,
) -> None:
    """Writes a line of text, cut to `room` pixels."""
    font = ImageFont.load_default(size)
    pen.text(place, fitted(text, font.getlength, room), colour, font, anchor=anchor)


def _layout(count: int, aspect: float) -> tuple[int, bool]:
    """How many columns of pairs, and whether the images of a pair are side by side."""

    def cost(layout: tuple[int, bool]) -> float:
        columns, beside = layout
        rows = math.ceil(count / columns)
        pair = aspect * 2 if beside else aspect / 2
        return abs(math.log(columns * pair / rows / 1.7)) + 3 * (rows * columns - count) / count

    return min(((n, beside) for beside in (False, True) for n in range(1, count + 1)), key=cost)
