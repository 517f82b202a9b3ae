"""Similarity along time: the scores of texts in the windows of a long video, and their peaks.

Shapes: N windows, Q queries, H height, W width. Images are RGB, 0-255.
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import InputError
from videoprism_mlx.pictures.drawing import (
    CURVE,
    FAINT,
    INK,
    PEAK,
    Pixels,
    clock,
    fitted,
    font_families,
    new_canvas,
    resized,
    style_axes,
    write_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Doubles = npt.NDArray[np.float64]

# A moment of a query: the query's number, seconds, score, and image (H, W, 3).
Thumbnail = tuple[int, float, float, Pixels]

# Lengths on the page, in inches. A panel is a heading, thumbnails with captions, and a curve.
WIDTH, LEFT, RIGHT = 12.0, 0.75, 11.7
HEADING, CAPTION, LEADER, SPACE = 0.36, 0.24, 0.25, 0.3
PICTURE, CURVE_HEIGHT = 1.1, 1.25
SMALL_PICTURE, SMALL_CURVE = 0.8, 0.8  # For more than three queries.

# A long page gets fewer dots per inch: image formats have a largest height.
DPI, MOST_PIXELS = 150, 30000

# Steps between two times on the axis, in seconds.
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)


def find_peaks(
    scores: npt.ArrayLike, starts: npt.ArrayLike, ends: npt.ArrayLike, most: int = 3
) -> list[int]:
    """The windows with the best local maxima of `scores` (N,), best first. At least one.

    These windows do not overlap, and their centres are at least a twentieth of the video apart. A
    run of equal scores counts once, at its middle.
    """
    scores, starts, ends = (np.asarray(each, np.float64) for each in (scores, starts, ends))
    if scores.ndim != 1 or not len(scores) or not scores.shape == starts.shape == ends.shape:
        raise InputError(
            f"scores are {scores.shape}, starts {starts.shape}, ends {ends.shape}; expected (N,)"
        )
    _require_finite(scores)

    edges = np.flatnonzero(np.diff(scores)) + 1
    first, last = np.r_[0, edges], np.r_[edges, len(scores)] - 1
    level = np.r_[-np.inf, scores[first], -np.inf]
    tops = (level[1:-1] > level[:-2]) & (level[1:-1] > level[2:])
    candidates = (first[tops] + last[tops]) // 2

    centres, apart = (starts + ends) / 2, (ends.max() - starts.min()) / 20
    chosen: list[int] = []
    for i in candidates[np.argsort(-scores[candidates], kind="stable")]:
        if all(
            abs(centres[i] - centres[j]) >= apart and (starts[i] >= ends[j] or starts[j] >= ends[i])
            for j in chosen
        ):
            chosen.append(int(i))
    return chosen[: max(most, 1)]


def draw_timeline(
    path: str | Path,
    starts: npt.ArrayLike,
    ends: npt.ArrayLike,
    scores: npt.ArrayLike,
    queries: Sequence[str],
    thumbnails: Sequence[Thumbnail],
    title: str | None = None,
) -> None:
    """Writes a PNG of the scores (N, Q) of queries in windows from `starts` to `ends`, in seconds.

    Each query has a panel, all of one scale, with its thumbnails above the moments they are from.
    A query without thumbnails has its best moment marked.
    """
    starts, ends, scores = (np.asarray(each, np.float64) for each in (starts, ends, scores))
    if scores.shape != (len(starts), len(queries)) or ends.shape != starts.shape or not scores.size:
        raise InputError(
            f"scores are {scores.shape}; expected a row for each of {len(starts)} starts and "
            f"{len(ends)} ends, and a column for each of {len(queries)} queries"
        )
    _require_finite(scores)

    shown = [[each for each in thumbnails if each[0] == q] for q in range(len(queries))]
    page = _Page(starts, ends, scores, shown, 0.75 if title else 0.2)
    with warnings.catch_warnings():
        # A character that no font has is drawn as a box.
        warnings.filterwarnings("ignore", message=r"(?s).*Glyph \d+")
        if title:
            page.write_heading(0.5, title, 15)
        for query in queries:
            page.draw_panel(query)
        page.write(path)


class _Page:
    """The page while its panels are drawn, from top to bottom. Lengths are in inches."""

    def __init__(
        self,
        starts: Doubles,
        ends: Doubles,
        scores: Doubles,
        shown: list[list[Thumbnail]],
        top: float,
    ):
        few = len(shown) <= 3
        self.picture, self.curve = (PICTURE, CURVE_HEIGHT) if few else (SMALL_PICTURE, SMALL_CURVE)
        over_curve = CAPTION + self.picture + LEADER
        self.above = [HEADING + (over_curve if images else 0.05) for images in shown]
        self.height = top + sum(self.above) + len(shown) * (self.curve + SPACE) + 0.3
        self.top = top  # The top of the next panel.
        self.panels: list[Axes] = []

        self.scores, self.shown = scores, shown
        self.centres = (starts + ends) / 2
        self.moments = np.r_[starts[0], self.centres, ends[-1]]
        self.span = starts.min(), max(ends.max(), starts.min() + 1e-3)
        reach = max(np.ptp(scores), 0.02)
        self.low, self.high = scores.min() - 0.1 * reach, scores.max() + 0.15 * reach
        self.ticks, self.decimals = _ticks(*self.span)

        dpi = min(DPI, MOST_PIXELS / self.height)
        self.canvas = new_canvas(WIDTH, self.height, dpi, "a timeline")
        self.figure = self.canvas.figure
        self.dpi = dpi
        # Axes over the whole page, whose units are inches from the top left corner.
        self.page = self.figure.add_axes(
            (0, 0, 1, 1), zorder=2, xlim=(0, WIDTH), ylim=(self.height, 0)
        )
        self.page.axis("off")
        self.plain: dict[str, Any] = dict(parse_math=False, family=font_families())

    def write_heading(self, y: float, text: str, size: float) -> None:
        """Writes a line of text at the left, cut to the width of the page."""
        line = self.page.text(LEFT, y, "", size=size, weight="bold", color=INK, **self.plain)

        def length(text: str) -> float:
            line.set_text(text)
            renderer = self.canvas.get_renderer()  # type: ignore[no-untyped-call]  # matplotlib's
            return line.get_window_extent(renderer).width / self.dpi

        line.set_text(fitted(text, length, RIGHT - LEFT))

    def draw_panel(self, query: str) -> None:
        """Draws the next query: its heading, its curve, and its thumbnails or best moment."""
        q = len(self.panels)
        scores, shown = self.scores[:, q], self.shown[q]
        self.write_heading(self.top + 0.22, query, 12)
        floor = self.top + self.above[q] + self.curve
        box = (
            LEFT / WIDTH,
            1 - floor / self.height,
            (RIGHT - LEFT) / WIDTH,
            self.curve / self.height,
        )
        limits = (self.low, self.high)
        axes = self.figure.add_axes(box, facecolor="white", xlim=self.span, ylim=limits)
        axes.set_xticks(self.ticks, [])
        _draw_curve(axes, self.moments, np.r_[scores[0], scores, scores[-1]])
        if q == 0:
            where = LEFT - 0.1, floor - self.curve - 0.12
            self.page.text(*where, "cosine", size=9, color=FAINT, ha="right", **self.plain)

        best = int(scores.argmax())
        peaks = [(seconds, score) for _, seconds, score, _ in shown]
        self._draw_peaks(
            peaks or [(self.centres[best], scores[best])], [each[3] for each in shown], floor
        )
        self.panels.append(axes)
        self.top = floor + SPACE

    def _draw_peaks(
        self, peaks: list[tuple[float, float]], images: list[Pixels], floor: float
    ) -> None:
        """Draws dots at (seconds, score) on a curve above `floor`, each with its image if any."""
        start, end = self.span
        strongest = max(range(len(peaks)), key=lambda i: peaks[i][1])
        xs = [LEFT + (x - start) / (end - start) * (RIGHT - LEFT) for x, _ in peaks]
        ys = [floor - (y - self.low) / (self.high - self.low) * self.curve for _, y in peaks]
        colours = [PEAK if i == strongest else FAINT for i in range(len(peaks))]
        base = floor - self.curve - LEADER
        for i, (middle, wide, tall) in enumerate(_slots(xs, images, self.picture, LEFT, RIGHT)):
            edges = middle - wide / 2, middle + wide / 2, base, base - tall
            pixels = round(wide * self.dpi), round(tall * self.dpi)
            image = resized(images[i], pixels)
            self.page.imshow(image, extent=edges, aspect="auto", zorder=3)
            outline = np.take(edges, [0, 1, 1, 0, 0]), np.take(edges, [2, 2, 3, 3, 2])
            self.page.plot(*outline, color=colours[i], linewidth=2, zorder=4)
            self.page.plot([middle, xs[i]], [base, ys[i]], color=colours[i], linewidth=1, zorder=3)
            said = f"{clock(peaks[i][0], self.decimals)}  ·  {peaks[i][1]:.3f}"
            y = base - tall - 0.06
            self.page.text(middle, y, said, size=9, color=INK, ha="center", **self.plain)
        self.page.scatter(xs, ys, s=55, c=colours, edgecolors="white", zorder=5)

    def write(self, path: str | Path) -> None:
        """Writes the times below the last panel, and the page to a PNG file."""
        self.panels[-1].set_xticklabels([clock(tick, self.decimals) for tick in self.ticks])
        self.page.set(xlim=(0, WIDTH), ylim=(self.height, 0))  # Images have moved the limits.
        write_png(self.canvas, path)


def _require_finite(scores: Doubles) -> None:
    """Raises InputError if a score is NaN or infinite."""
    if not np.isfinite(scores).all():
        raise InputError("the scores hold NaN or infinity")


def _draw_curve(axes: "Axes", moments: Doubles, values: Doubles) -> None:
    """Draws a curve over a shaded area, and styles the axes."""
    width = 1.6 if len(moments) < 1000 else 1.0
    axes.fill_between(moments, values, axes.get_ylim()[0], color=CURVE, alpha=0.14, linewidth=0)
    axes.plot(moments, values, color=CURVE, linewidth=width, solid_joinstyle="round")
    axes.locator_params(axis="y", nbins=4)
    style_axes(axes)


def _ticks(start: float, end: float) -> tuple[npt.NDArray[Any], int]:
    """Round times from start to end, twelve at most, and how many decimals they need."""
    step = next((each for each in STEPS if (end - start) / each <= 11), None)
    if step is None:
        step = 3600 * math.ceil((end - start) / 11 / 3600)
    ticks = step * np.arange(math.ceil(start / step - 1e-9), math.floor(end / step + 1e-9) + 1)
    return ticks, int(step < 1)


def _slots(
    places: Sequence[float], images: Sequence[Pixels], height: float, left: float, right: float
) -> list[tuple[float, float, float]]:
    """The middle, width and height of each image: near its place, and none over another."""
    if not images:
        return []
    aspects = np.array([image.shape[1] / image.shape[0] for image in images])
    heights = height * np.minimum(1, 2.2 / aspects)
    caption, gap = 1.1, 0.1
    rooms = np.maximum(heights * aspects, caption) + gap
    crowd = min(1, (right - left) / rooms.sum())
    heights, rooms = heights * crowd, rooms * crowd

    order = np.argsort(places, kind="stable")
    ordered, rooms = np.array(places)[order], rooms[order]
    rightwards = _spread(ordered, rooms, left, right)
    leftwards = -_spread(-ordered[::-1], rooms[::-1], -right, -left)[::-1]
    middles = np.empty(len(images))
    middles[order] = (rightwards + leftwards) / 2
    return list(zip(middles.tolist(), (heights * aspects).tolist(), heights.tolist(), strict=True))


def _spread(places: Doubles, rooms: Doubles, left: float, right: float) -> Doubles:
    """Ascending places, moved right until each has its room, and back from the right end."""
    offsets = np.cumsum(rooms) - rooms / 2
    moved = np.maximum.accumulate(np.maximum(places - offsets, left))
    spread: Doubles = np.minimum(moved, right - rooms.sum()) + offsets
    return spread
