"""What all pictures share: colours of lines and paper, sizes, captions, and how axes look."""

import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from videoprism_mlx.errors import InputError
from videoprism_mlx.runtime.libraries import require_library

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg

Pixels = npt.NDArray[np.uint8]

PAPER, INK, FAINT = "#fcfcfa", "#222222", "#6b6b6b"
GRID, SPINE = "#e6e6e2", "#bbbbb6"

# Blue and vermilion, from the palette of Okabe and Ito, which colour-blind people can tell apart.
CURVE, PEAK = "#0072b2", "#d55e00"


def checked_images(images: npt.ArrayLike, what: str) -> Pixels:
    """The images as an array. Raises InputError unless they are uint8 (T, H, W, 3)."""
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape or array.dtype != np.uint8:
        raise InputError(
            f"the {what} are {array.dtype} {array.shape}; expected uint8 (T, height, width, 3)"
        )
    return array


def resized(image: npt.ArrayLike, size: tuple[int, int]) -> Image.Image:
    """An image (H, W, 3), resized to (width, height) with bicubic interpolation."""
    size = max(size[0], 1), max(size[1], 1)
    return Image.fromarray(np.asarray(image, np.uint8)).resize(size, Image.Resampling.BICUBIC)


def fitted(text: str, length: Callable[[str], float], room: float) -> str:
    """The text as one line, cut and ended with an ellipsis if it is longer than `room`."""
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


def fitted_end(text: str, length: Callable[[str], float], room: float) -> str:
    """As `fitted`, but the beginning is cut: names of files often differ at their end."""
    return fitted(text[::-1], lambda part: length(part[::-1]), room)[::-1]


def stamp(seconds: float, longest: float | None = None) -> str:
    """A time as `0.5 s`, or as `1:02.5` if `longest` (default: the time) is a minute or more."""
    if round(seconds if longest is None else longest, 1) < 60:
        return f"{seconds:.1f} s"
    return clock(seconds, 1)


def clock(seconds: float, decimals: int = 0) -> str:
    """A time as `1:02` or `1:00:02`, with `decimals` decimals of a second."""
    units = 10**decimals
    minutes, rest = divmod(round(seconds * units), 60 * units)
    hours, minutes = divmod(minutes, 60)
    second = f"{rest / units:0{3 + decimals if decimals else 2}.{decimals}f}"
    return f"{hours}:{minutes:02}:{second}" if hours else f"{minutes}:{second}"


def require_matplotlib(what: str) -> None:
    """Raises MissingLibraryError if matplotlib is not installed, which `what` needs."""
    for module in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        require_library(module, what)


def new_canvas(width: float, height: float, dpi: float, what: str) -> "FigureCanvasAgg":
    """A canvas with an empty matplotlib figure of so many inches. `what` is to be drawn on it.

    Raises MissingLibraryError if matplotlib is not installed.
    """
    require_matplotlib(f"drawing {what}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, facecolor=PAPER)
    return FigureCanvasAgg(figure)


def write_png(canvas: "FigureCanvasAgg", path: Any) -> None:
    """Writes a canvas to a PNG file, without the name of the software that drew it."""
    canvas.print_png(path, metadata={"Software": None})  # type: ignore[no-untyped-call]  # matplotlib's


def style_axes(axes: "Axes") -> None:
    """Thin lines, faint numbers, a horizontal grid, and no frame above or to the right."""
    axes.tick_params(colors=FAINT, labelsize=9, length=3)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(SPINE)


def font_families() -> list[str]:
    """Those fonts of this machine that cover Latin and then other scripts, in order of use."""
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
