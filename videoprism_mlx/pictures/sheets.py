"""Pictures of what a model makes of a video: features as colours, similarity along time.

Shapes: T frames, H height, W width, D features, N windows, Q queries. Images are RGB, 0-255.
"""

import math
import os
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from videoprism_mlx.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A sheet of more pairs would be too small to read.
MOST_PAIRS = 16

# No player shows more frames a second.
FASTEST_FILM = 1000

PAPER, INK, FAINT = "#fcfcfa", "#222222", "#6b6b6b"

# Blue and vermilion are told apart by all eyes.
CURVE, PEAK = "#0072b2", "#d55e00"

# What one unit of each component adds to red, green and blue: light, then yellow or blue, then
# red or green, so that the strongest differences are those that all eyes see.
COLOUR_AXES = np.array([[0.28, 0.34, 0.30], [0.28, 0.10, -0.45], [0.34, -0.22, 0.16]])

# Features are taken so many at a time in double precision, which for a long video saves memory.
BLOCK = 4096

# Frames (T, H, W, 3) of what was found, a caption, and whether it is right, None if nobody knows.
Found = tuple[np.ndarray, str, bool | None]

_SMALLEST_VARIANCE = 1e-12  # Of the mean square. Less than that is rounding.


def feature_colours(features: np.ndarray) -> np.ndarray:
    """Colours (T, rows, columns, 3) of features (T, rows, columns, D): what is alike looks alike.

    The components that all frames share, each stretched over its 1st to 99th percentile, weak
    ones less, become lightness, yellow to blue, and red to green. Features all alike are grey.
    """
    components = principal_components(features)
    flat = components.reshape(-1, 3)
    low, high = np.percentile(flat, [1, 99], axis=0)
    reach = np.maximum((high - low) / 2, flat.std(axis=0))  # Percentiles miss what is very small.
    reach = np.maximum(reach, reach[0] / 20)
    reach[reach == 0] = 1
    units = np.clip((components - (low + high) / 2) / reach, -1, 1)
    return np.round(255 * np.clip(0.5 + units @ COLOUR_AXES, 0, 1)).astype(np.uint8)


def principal_components(features: np.ndarray) -> np.ndarray:
    """The three strongest components (T, rows, columns, 3) of features (T, rows, columns, D).

    They are float64, have mean 0, and come from one basis for all frames. Its directions point
    to the longer tail: what is rare is positive. Components that are not there are 0.
    """
    features = np.asarray(features)
    if features.ndim != 4 or 0 in features.shape:
        raise InputError(f"the features are {features.shape}; expected (T, rows, columns, D)")
    flat = features.reshape(-1, features.shape[-1])
    if not np.isfinite(flat).all():
        raise InputError("the features hold NaN or infinity: there is nothing to draw")

    mean = flat.mean(axis=0, dtype=np.float64)
    size = flat.shape[1]
    covariance = np.zeros((size, size))
    for block in _blocks(flat):
        block = block - mean
        covariance += block.T @ block / len(flat)
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1][:3], axes[:, ::-1][:, :3]
    there = variances > _SMALLEST_VARIANCE * (np.trace(covariance) + mean @ mean)
    axes = _settled(variances[there], axes[:, there])

    components = np.concatenate([(block - mean) @ axes for block in _blocks(flat)])
    # The axis itself decides, faintly, where both tails are alike.
    signs = np.where(_skewness(components) + (axes**3).sum(axis=0) < 0, -1.0, 1.0)
    components = np.pad(components * signs, ((0, 0), (0, 3 - len(signs))))
    return components.reshape(*features.shape[:3], 3)


def draw_features(
    frames: np.ndarray,
    colours: np.ndarray,
    times: Sequence[float] | None = None,
    title: str | None = None,
) -> np.ndarray:
    """An image of frames (T, H, W, 3) over, or left of, their colours (T, rows, columns, 3).

    Each pair has its time, in seconds, below it. Of more than 16 frames, 16 are shown, evenly
    chosen, the first and the last among them.
    """
    frames, colours = _images(frames, "frames"), _images(colours, "colours")
    if len(frames) != len(colours) or (times is not None and len(times) != len(frames)):
        count = "" if times is None else f", {len(times)} times"
        raise InputError(f"{len(frames)} frames, {len(colours)} colours{count}: not as many")
    shown = np.unique(np.linspace(0, len(frames) - 1, MOST_PAIRS).round().astype(int))

    height, width = frames.shape[1:3]
    columns, beside = _layout(len(shown), width / height)
    across = columns * (1 + beside)
    scale = min(400 / width, 1800 / across / width, 640 / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    step = (size[0] + 4, 0) if beside else (0, size[1] + 4)
    pair = max(size[0] + step[0], 90), size[1] + step[1]

    margin, gap, caption = 28, 20, 30
    top = margin + (52 if title else 0)
    rows = math.ceil(len(shown) / columns)
    sheet = Image.new(
        "RGB",
        (
            2 * margin + columns * (pair[0] + gap) - gap,
            top + rows * (pair[1] + caption + gap) - gap + margin // 2,
        ),
        PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    if title:
        font = ImageFont.load_default(28)
        room = sheet.width - 2 * margin
        pen.text((margin, margin), _fitted(title, font.getlength, room), INK, font)
    font = ImageFont.load_default(18)
    for place, i in enumerate(shown):
        row, column = divmod(place, columns)
        x = margin + column * (pair[0] + gap)
        y = top + row * (pair[1] + caption + gap)
        left = x + (pair[0] - size[0] - step[0]) // 2
        sheet.paste(_resized(frames[i], size), (left, y))
        sheet.paste(_resized(colours[i], size), (left + step[0], y + step[1]))
        said = f"frame {i + 1}" if times is None else _stamp(times[i], max(times))
        pen.text((x + pair[0] / 2, y + pair[1] + 6), said, FAINT, font, anchor="ma")
    return np.array(sheet)


def write_feature_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    colours: Iterable[np.ndarray],
    times: Iterable[float] | None = None,
    fps: float = 8.0,
) -> None:
    """An .mp4 of frames (H, W, 3), each left of its colours (rows, columns, 3), with its time.

    `times` are in seconds, by default what `fps` makes them.
    """
    import cv2

    if Path(path).suffix.lower() != ".mp4":
        raise InputError(f"{path} does not end in .mp4")
    if not 0 < fps <= FASTEST_FILM:
        raise InputError(f"fps is {fps}; expected a number above zero, {FASTEST_FILM} at most")
    several = [frames, colours] if times is None else [frames, colours, times]
    writer, count = None, 0
    try:
        for frame, colour, *time in zip_longest(*several):
            if frame is None or colour is None or None in time:
                raise InputError(f"frames, colours and times are not as many: one ends at {count}")
            page = _film_page(frame, colour, _stamp(time[0] if time else count / fps))
            if writer is None:
                shape = page.shape
                code = cv2.VideoWriter.fourcc(*"mp4v")
                writer = cv2.VideoWriter(str(path), code, fps, (shape[1], shape[0]))
                if not writer.isOpened():
                    raise OSError(f"OpenCV cannot write {path}: is its folder there and writable?")
            if page.shape != shape:
                raise InputError(f"frame {count} is {frame.shape}, unlike those before it")
            writer.write(cv2.cvtColor(page, cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    if count == 0:
        raise InputError("there are no frames to write")
    # The writer does not say when the disk is full.
    size = os.path.getsize(path) if os.path.exists(path) else 0
    written = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)) if size else 0
    if written != count:
        raise OSError(f"{path} came out with {written} of {count} frames: is the disk full?")


def draw_search(
    rows: Sequence[tuple[str, Sequence[Found]]], frames: int = 4, title: str | None = None
) -> np.ndarray:
    """An image of queries, each over what was found for it, as strips of so many frames.

    A strip has a caption, after a tick or a cross where it is known to be right or wrong.
    """
    width, margin, gap, seam = 1600, 40, 32, 4
    heading, caption, space = 60, 46, 24
    if not rows or not all(found for _, found in rows):
        raise InputError("there is nothing to draw; expected queries, and something found for each")
    across = max(len(found) for _, found in rows)
    strip = (width - 2 * margin - (across - 1) * gap) // across
    side = (strip - (frames - 1) * seam) // frames
    top = margin + (72 if title else 0)
    row = heading + side + caption + space
    sheet = Image.new("RGB", (width, top + len(rows) * row - space + margin // 2), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        font = ImageFont.load_default(42)
        pen.text((margin, margin), _fitted(title, font.getlength, width - 2 * margin), INK, font)
    large, small = ImageFont.load_default(34), ImageFont.load_default(25)
    for number, (query, found) in enumerate(rows):
        y = top + number * row
        pen.text((margin, y), _fitted(query, large.getlength, width - 2 * margin), CURVE, large)
        for place, (clip, said, is_right) in enumerate(found):
            x = margin + place * (strip + gap)
            clip = _images(clip, "frames")
            for i, which in enumerate(np.linspace(0, len(clip) - 1, frames).round().astype(int)):
                where = x + i * (side + seam), y + heading
                sheet.paste(_resized(clip[which], (side, side)), where)
            middle = y + heading + side + caption // 2
            indent = 0
            if is_right is not None:
                _draw_mark(pen, x, middle, is_right)
                indent = 30
            said = _fitted(said, small.getlength, strip - indent)
            pen.text((x + indent, middle), said, INK, small, anchor="lm")
    return np.array(sheet)


def _draw_mark(pen: ImageDraw.ImageDraw, x: int, y: int, is_right: bool) -> None:
    """A tick or a cross, 18 pixels wide, from x on and about y."""
    lines = [[(0, 0), (6, 7), (18, -8)]] if is_right else [[(1, -7), (15, 7)], [(15, -7), (1, 7)]]
    for line in lines:
        moved = [(x + dx, y + dy) for dx, dy in line]
        pen.line(moved, CURVE if is_right else PEAK, 4, joint="curve")


def find_peaks(
    scores: np.ndarray, starts: Sequence[float], ends: Sequence[float], most: int = 3
) -> list[int]:
    """The windows of the best local maxima of `scores` (N,), best first: at least one.

    Their windows do not overlap, and are no closer than a twentieth of the video. A level stretch
    counts once, at its middle.
    """
    scores, starts, ends = (np.asarray(each, np.float64) for each in (scores, starts, ends))
    if scores.ndim != 1 or not len(scores) or not scores.shape == starts.shape == ends.shape:
        raise InputError(
            f"scores are {scores.shape}, starts {starts.shape}, ends {ends.shape}; expected (N,)"
        )
    if not np.isfinite(scores).all():
        raise InputError("the scores hold NaN or infinity")

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
    starts: Sequence[float],
    ends: Sequence[float],
    scores: np.ndarray,
    queries: Sequence[str],
    thumbnails: Sequence[tuple[int, float, float, np.ndarray]],
    title: str | None = None,
) -> None:
    """A PNG of the scores (N, Q) of queries in windows from `starts` to `ends`, in seconds.

    A panel for each query, all to one scale, with its thumbnails (query, seconds, score, image)
    above the moments they are from. The best moment is marked in any case.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(
            "drawing a timeline needs matplotlib: pip install 'videoprism_mlx[pictures]'"
        ) from None

    starts, ends, scores = (np.asarray(each, np.float64) for each in (starts, ends, scores))
    if scores.shape != (len(starts), len(queries)) or ends.shape != starts.shape or not scores.size:
        raise InputError(
            f"scores are {scores.shape}; expected a row for each of {len(starts)} starts and "
            f"{len(ends)} ends, and a column for each of {len(queries)} queries"
        )
    if not np.isfinite(scores).all():
        raise InputError("the scores hold NaN or infinity")

    # All in inches, from the top: a title, then panels of a heading, thumbnails and a curve.
    width, left, right = 12.0, 0.75, 11.7
    picture, curve = (1.1, 1.25) if len(queries) <= 3 else (0.8, 0.8)
    heading, caption, leader, space = 0.36, 0.24, 0.25, 0.3
    top = 0.75 if title else 0.2
    shown = [[each for each in thumbnails if each[0] == q] for q in range(len(queries))]
    above = [heading + (caption + picture + leader if some else 0.05) for some in shown]
    height = top + sum(above) + len(queries) * (curve + space) + 0.3

    figure = Figure(figsize=(width, height), dpi=min(150, 30000 / height), facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)
    page = figure.add_axes((0, 0, 1, 1), zorder=2, xlim=(0, width), ylim=(height, 0))
    page.axis("off")
    plain = dict(parse_math=False, family=_families())

    def write_heading(y: float, text: str, size: float) -> None:
        line = page.text(left, y, "", size=size, weight="bold", color=INK, **plain)

        def length(text: str) -> float:
            line.set_text(text)
            return line.get_window_extent(canvas.get_renderer()).width / figure.dpi

        line.set_text(_fitted(text, length, right - left))

    centres = (starts + ends) / 2
    moments = np.r_[starts[0], centres, ends[-1]]
    span = starts.min(), max(ends.max(), starts.min() + 1e-3)
    reach = max(np.ptp(scores), 0.02)
    low, high = scores.min() - 0.1 * reach, scores.max() + 0.15 * reach
    ticks, decimals = _ticks(*span)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*Glyph \d+")  # It is drawn as a box.
        if title:
            write_heading(0.5, title, 15)
        for q, query in enumerate(queries):
            write_heading(top + 0.22, query, 12)
            floor = top + above[q] + curve
            box = left / width, 1 - floor / height, (right - left) / width, curve / height
            axes = figure.add_axes(box, facecolor="white", xlim=span, ylim=(low, high))
            axes.set_xticks(ticks, [])
            _draw_curve(axes, moments, np.r_[scores[0, q], scores[:, q], scores[-1, q]])
            if q == 0:
                where = left - 0.1, floor - curve - 0.12
                page.text(*where, "cosine", size=9, color=FAINT, ha="right", **plain)

            best = int(scores[:, q].argmax())
            peaks = [each[1:3] for each in shown[q]] or [(centres[best], scores[best, q])]
            strongest = max(range(len(peaks)), key=lambda i: peaks[i][1])
            xs = [left + (x - span[0]) / (span[1] - span[0]) * (right - left) for x, _ in peaks]
            ys = [floor - (y - low) / (high - low) * curve for _, y in peaks]
            colours = [PEAK if i == strongest else FAINT for i in range(len(peaks))]
            images = [each[3] for each in shown[q]]
            slots = _slots(xs, images, picture, left, right)
            for i, (middle, wide, tall) in enumerate(slots):
                base = floor - curve - leader
                edges = middle - wide / 2, middle + wide / 2, base, base - tall
                pixels = round(wide * figure.dpi), round(tall * figure.dpi)
                image = _resized(images[i], pixels)
                page.imshow(image, extent=edges, aspect="auto", zorder=3)
                outline = np.take(edges, [0, 1, 1, 0, 0]), np.take(edges, [2, 2, 3, 3, 2])
                page.plot(*outline, color=colours[i], linewidth=2, zorder=4)
                page.plot([middle, xs[i]], [base, ys[i]], color=colours[i], linewidth=1, zorder=3)
                said = f"{_clock(peaks[i][0], decimals)}  ·  {peaks[i][1]:.3f}"
                page.text(middle, base - tall - 0.06, said, size=9, color=INK, ha="center", **plain)
            dots = dict(s=55, c=colours, edgecolors="white", zorder=5)
            page.scatter(xs, ys, **dots)
            top = floor + space
        axes.set_xticklabels([_clock(tick, decimals) for tick in ticks])
        page.set(xlim=(0, width), ylim=(height, 0))  # Images have moved the limits.
        canvas.print_png(path, metadata={"Software": None})


def _draw_curve(axes: "Axes", moments: np.ndarray, values: np.ndarray) -> None:
    """A curve with the area below it, and the axes' look."""
    width = 1.6 if len(moments) < 1000 else 1.0
    axes.fill_between(moments, values, axes.get_ylim()[0], color=CURVE, alpha=0.14, linewidth=0)
    axes.plot(moments, values, color=CURVE, linewidth=width, solid_joinstyle="round")
    axes.locator_params(axis="y", nbins=4)
    axes.tick_params(colors=FAINT, labelsize=9, length=3)
    axes.grid(axis="y", color="#e6e6e2", linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#bbbbb6")


def _blocks(flat: np.ndarray) -> Iterable[np.ndarray]:
    for first in range(0, len(flat), BLOCK):
        yield flat[first : first + BLOCK].astype(np.float64)


def _settled(variances: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Eigenvectors, turned where the smallest change to the data would turn them anyhow.

    Axes of nearly equal variance may come out as any rotation of each other. A number of power
    iterations from fixed directions leaves those of clear order as they are, and makes of the
    others a mixture that changes as little as their plane does.
    """
    size, count = axes.shape
    if count == 0:
        return axes
    turn = axes.T @ np.cos(np.outer(np.arange(size), np.arange(1, count + 1)))
    for _ in range(32):
        turn, _ = np.linalg.qr(variances[:, None] / variances[0] * turn)
    return axes @ turn


def _skewness(values: np.ndarray) -> np.ndarray:
    """Of columns of mean 0."""
    return (values**3).mean(axis=0) / (values**2).mean(axis=0) ** 1.5


def _images(images: np.ndarray, what: str) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape or images.dtype != np.uint8:
        raise InputError(
            f"the {what} are {images.dtype} {images.shape}; expected uint8 (T, height, width, 3)"
        )
    return images


def _layout(count: int, aspect: float) -> tuple[int, bool]:
    """How many columns of pairs, and whether the two stand beside each other."""

    def cost(layout: tuple[int, bool]) -> float:
        columns, beside = layout
        rows = math.ceil(count / columns)
        pair = aspect * 2 if beside else aspect / 2
        return abs(math.log(columns * pair / rows / 1.7)) + 3 * (rows * columns - count) / count

    return min(((n, beside) for beside in (False, True) for n in range(1, count + 1)), key=cost)


def _film_page(frame: np.ndarray, colour: np.ndarray, said: str) -> np.ndarray:
    """A frame (H, W, 3), its colours to the right and its time below: even height and width."""
    [frame], [colour] = _images([frame], "frames"), _images([colour], "colours")
    height, width = frame.shape[:2]
    text = min(max(height // 16, 12), 36)
    page = Image.new("RGB", (2 * width + 8, height + 2 * text + height % 2), PAPER)
    page.paste(Image.fromarray(frame), (0, 0))
    page.paste(_resized(colour, (width, height)), (width + 8, 0))
    place = text // 2, height + text
    ImageDraw.Draw(page).text(place, said, INK, ImageFont.load_default(text), anchor="lm")
    return np.array(page)


def _resized(image: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """An image as one of (width, height), smoothly."""
    size = max(size[0], 1), max(size[1], 1)
    return Image.fromarray(np.asarray(image, np.uint8)).resize(size, Image.Resampling.BICUBIC)


def _fitted(text: str, length: Callable[[str], float], room: float) -> str:
    """The text in one line, cut to end in an ellipsis if it is longer than there is room."""
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)
    text = " ".join(text.split())
    if length(text) <= room:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if length(text[:middle] + "…") <= room:
            fits = middle
        else:
            too_long = middle
    return text[:fits].rstrip() + "…"


def _stamp(seconds: float, longest: float | None = None) -> str:
    """`0.5 s`, or `1:02.5` where the longest is a minute or more."""
    if round(seconds if longest is None else longest, 1) < 60:
        return f"{seconds:.1f} s"
    return _clock(seconds, 1)


def _clock(seconds: float, decimals: int = 0) -> str:
    """`1:02` or `1:00:02`, with decimals of seconds."""
    units = 10**decimals
    minutes, rest = divmod(round(seconds * units), 60 * units)
    hours, minutes = divmod(minutes, 60)
    second = f"{rest / units:0{3 + decimals if decimals else 2}.{decimals}f}"
    return f"{hours}:{minutes:02}:{second}" if hours else f"{minutes}:{second}"


def _ticks(start: float, end: float) -> tuple[np.ndarray, int]:
    """Round moments from start to end, twelve at most, and how many decimals they have."""
    steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200]
    step = next((each for each in steps if (end - start) / each <= 11), None)
    if step is None:
        step = 3600 * math.ceil((end - start) / 11 / 3600)
    ticks = step * np.arange(math.ceil(start / step - 1e-9), math.floor(end / step + 1e-9) + 1)
    return ticks, int(step < 1)


def _slots(
    places: list[float], images: list[np.ndarray], height: float, left: float, right: float
) -> list[tuple[float, float, float]]:
    """The middle, width and height of each image: near its place, none over another."""
    if not images:
        return []
    aspects = np.array([image.shape[1] / image.shape[0] for image in images])
    heights = height * np.minimum(1, 2.2 / aspects)
    caption, gap = 1.1, 0.1
    rooms = np.maximum(heights * aspects, caption) + gap
    crowd = min(1, (right - left) / rooms.sum())
    heights, rooms = heights * crowd, rooms * crowd

    order = np.argsort(places, kind="stable")
    places, rooms = np.array(places)[order], rooms[order]
    rightwards = _apart(places, rooms, left, right)
    leftwards = -_apart(-places[::-1], rooms[::-1], -right, -left)[::-1]
    middles = np.empty(len(images))
    middles[order] = (rightwards + leftwards) / 2
    return list(zip(middles.tolist(), (heights * aspects).tolist(), heights.tolist(), strict=True))


def _apart(places: np.ndarray, rooms: np.ndarray, left: float, right: float) -> np.ndarray:
    """Ascending places, moved right until each has its room, and back from the right end."""
    offsets = np.cumsum(rooms) - rooms / 2
    moved = np.maximum.accumulate(np.maximum(places - offsets, left))
    return np.minimum(moved, right - rooms.sum()) + offsets


def _families() -> list[str]:
    """Fonts that this machine has, for one glyph after another: Latin, then other scripts."""
    from matplotlib import font_manager

    wanted = [
        "DejaVu Sans",
        "Hiragino Sans",
        "PingFang SC",
        "Apple SD Gothic Neo",
        "Noto Sans CJK JP",
        "Arial Unicode MS",
    ]
    found = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in wanted if name in found]
