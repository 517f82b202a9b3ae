"""A picture of a training run: losses and metrics by epoch."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.errors import EXPECTED, InputError
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.pictures.drawing import (
    CURVE,
    FAINT,
    INK,
    PEAK,
    new_canvas,
    style_axes,
    write_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES_FILE = "curves.png"

LOSSES = ("loss", "val_loss")

# Names that end like this are not drawn as metrics, even if all their values are from 0 to 1.
NOT_METRICS = ("learning_rate", "temperature", "median_rank", "mean_rank")

# The metrics that are drawn if a run has some of them. Of other metrics, the first FEW are drawn.
MAIN_METRICS = (
    *("top1", "map", "mean_class_accuracy"),
    *("mean/recall@1", "text_to_video/recall@1", "video_to_text/recall@1"),
)
FEW = 4

# The colours of the curves, in order, from the palette of Okabe and Ito for colour-blind people,
# and the dashes of further curves, in the same colours.
COLOURS = (CURVE, PEAK, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", ":", "-.")

logger = logging.getLogger(__name__)


def draw_curves(
    folder: Path,
    history: Sequence[Mapping[str, Any]],
    best: int | None = None,
    titles: Mapping[str, str] | None = None,
) -> None:
    """Writes the picture of a training run into its folder. If that fails, it logs a warning."""
    try:
        write_curves(folder / CURVES_FILE, history, best, titles)
    except Exception as error:  # A picture that fails must not stop the training run.
        is_bug = not isinstance(error, EXPECTED)
        logger.warning("the training curves could not be drawn: %s", error, exc_info=is_bug)


def write_curves(
    path: Path,
    history: Sequence[Mapping[str, Any]],
    best: int | None = None,
    titles: Mapping[str, str] | None = None,
    *,
    all_metrics: bool = False,
) -> None:
    """Writes a PNG of the measurements of each epoch: losses above, metrics from 0 to 1 below.

    `history` has one mapping per epoch, which holds its number as `epoch`. The epoch with the
    number `best` is marked. `titles` are the names of metrics in the picture. It shows the main
    metrics or, with `all_metrics`, all of them.
    """
    if not history:
        raise InputError("the history is empty: there is nothing to draw")
    epochs = [measured["epoch"] for measured in history]
    panels = _panels(history, all_metrics)
    if not panels:
        raise InputError("the history has no loss and no metric: there is nothing to draw")

    canvas = new_canvas(8, 0.7 + 2.9 * len(panels), 150, "curves")
    figure = canvas.figure
    for number, (title, curves) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(len(panels), 1, number, facecolor="white")
        named = {(titles or {}).get(name, name): row for name, row in curves.items()}
        _draw_panel(axes, title, epochs, named, best)
    axes.set_xlabel("epoch" if best is None else f"epoch (best: {best})", size=9, color=FAINT)
    figure.tight_layout()
    with new_file(path, replace=True) as partial:
        write_png(canvas, str(partial))


def _panels(
    history: Sequence[Mapping[str, Any]], all_metrics: bool = False
) -> dict[str, dict[str, list[Any]]]:
    """The panels by title, one of losses and one of metrics: the values of each curve by name."""
    values = {
        name: [measured.get(name) for measured in history]
        for name in history[-1]
        if name not in ("epoch", "step")
    }
    metrics = {
        name: row
        for name, row in values.items()
        if name not in LOSSES
        and not name.endswith(NOT_METRICS)
        and all(isinstance(value, float) and 0 <= value <= 1 for value in row)
    }
    if not all_metrics:
        main = [name for name in metrics if name in MAIN_METRICS] or list(metrics)[:FEW]
        metrics = {name: metrics[name] for name in main}
    losses = {name: values[name] for name in LOSSES if name in values}
    return {title: rows for title, rows in (("loss", losses), ("metrics", metrics)) if rows}


def _draw_panel(
    axes: "Axes",
    title: str,
    epochs: Sequence[int],
    curves: Mapping[str, list[Any]],
    best: int | None,
) -> None:
    """Draws curves over epochs, with a legend and a line at the best epoch."""
    from matplotlib.ticker import MaxNLocator

    marker = "o" if len(epochs) < 40 else None
    for (name, values), (dash, colour) in zip(
        curves.items(), itertools.cycle(itertools.product(DASHES, COLOURS)), strict=False
    ):
        label = "training" if name == "loss" else name.replace("_", " ").replace("/", " ")
        axes.plot(
            epochs,
            values,
            dash,
            marker=marker,
            markersize=3,
            linewidth=1.6,
            color=colour,
            label=label,
        )
    axes.margins(x=0.02)
    if title == "metrics":
        axes.set_ylim(-0.02, 1.02)
    if best is not None:
        axes.axvline(best, color=FAINT, lw=0.8, ls=":")
    axes.set_title(title, loc="left", size=11, weight="bold", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style_axes(axes)
    axes.legend(loc="best", fontsize=9, frameon=False, labelcolor=INK)
