"""How a training went, as a picture."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import InputError
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.pictures.sheets import CURVE, FAINT, INK, PAPER, PEAK

# Of what is from 0 to 1, these are no shares.
NOT_SHARES = ("learning_rate", "temperature", "median_rank", "mean_rank")

# Apart for all eyes, in the order of their use: Okabe and Ito's.
COLOURS = (CURVE, PEAK, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

CURVES_FILE = "curves.png"

LOSSES = ("loss", "val_loss")

logger = logging.getLogger(__name__)


def draw_curves(
    folder: Path, history: Sequence[Mapping[str, Any]], best: int | None = None
) -> None:
    """Writes the picture of a run into its folder. Where it cannot be drawn, a line says why."""
    try:
        write_curves(folder / CURVES_FILE, history, best)
    except Exception as error:  # The training went well, whatever it is.
        logger.warning("there is no picture of the training: %s", error)


def write_curves(path: Path, history: Sequence[Mapping[str, Any]], best: int | None = None) -> None:
    """A PNG of what was measured at each epoch: losses above, all that is from 0 to 1 below.

    `history` has a mapping an epoch, with its number as `epoch`. The epoch numbered `best` is
    marked.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise InputError(
            "drawing curves needs matplotlib: pip install 'videoprism_mlx[pictures]'"
        ) from None

    if not history:
        raise InputError("the history is empty: there is nothing to draw")
    epochs = [measured["epoch"] for measured in history]
    names = {name: [measured.get(name) for measured in history] for name in history[-1]}
    curves = {name: values for name, values in names.items() if name not in ("epoch", "step")}
    shares = [
        name
        for name, values in curves.items()
        if name not in LOSSES
        and not name.endswith(NOT_SHARES)
        and all(isinstance(value, float) and 0 <= value <= 1 for value in values)
    ]
    panels = [("loss", [name for name in LOSSES if name in curves]), ("metrics", shares)]
    panels = [(title, drawn) for title, drawn in panels if drawn]

    figure = Figure(figsize=(8, 0.7 + 2.9 * len(panels)), dpi=150, facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)
    for number, (title, drawn) in enumerate(panels):
        axes = figure.add_subplot(len(panels), 1, number + 1, facecolor="white")
        for name, colour in zip(drawn, COLOURS * len(drawn), strict=False):
            marker = "o" if len(epochs) < 40 else None
            label = "training" if name == "loss" else name.replace("_", " ")
            style = dict(marker=marker, markersize=3, linewidth=1.6, color=colour, label=label)
            axes.plot(epochs, curves[name], **style)
        axes.margins(x=0.02)
        if title == "metrics":
            axes.set_ylim(-0.02, 1.02)
        if best is not None:
            axes.axvline(best, color=FAINT, lw=0.8, ls=":")
        axes.set_title(title, loc="left", size=11, weight="bold", color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(colors=FAINT, labelsize=9, length=3)
        axes.grid(axis="y", color="#e6e6e2", linewidth=0.8)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color("#bbbbb6")
        axes.legend(loc="best", fontsize=9, frameon=False, labelcolor=INK)
    axes.set_xlabel("epoch" if best is None else f"epoch (best: {best})", size=9, color=FAINT)
    figure.tight_layout()
    with new_file(path, replace=True) as partial:
        canvas.print_png(str(partial), metadata={"Software": None})
