"""A picture of probes: what they reach, by the size of the training set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import InputError
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.pictures.curves import COLOURS
from videoprism_mlx.pictures.drawing import FAINT, INK, new_canvas, style_axes, write_png


def write_probes(
    path: Path,
    sizes: Sequence[Mapping[str, Any]],
    titles: Mapping[str, str] | None = None,
    published: Mapping[str, float] | None = None,
) -> None:
    """Writes a PNG of the metrics of probes, over the number of videos to train on.

    `sizes` are those in the result of `evaluate_probe`: lines join the means, bars show the spread,
    and a dot is a probe. `titles` are the names of metrics in the picture. `published` figures are
    dashed lines in the colour of their metric.
    """
    if not sizes:
        raise InputError("there are no probes to draw")
    canvas = new_canvas(8, 4.2, 150, "probes")
    axes = canvas.figure.add_subplot(facecolor="white")
    rows = sorted(sizes, key=lambda row: int(row["videos"]))
    videos = [row["videos"] for row in rows]
    names = [name for name in rows[0]["mean"] if name != "top5"]
    for name, colour in zip(names, COLOURS, strict=False):
        means = [row["mean"][name] for row in rows]
        spreads = [row["spread"][name] or 0 for row in rows]
        label = (titles or {}).get(name, name)
        axes.errorbar(videos, means, spreads, color=colour, lw=1.6, capsize=3, label=label)
        dots = [(row["videos"], run[name]) for row in rows for run in row["runs"]]
        axes.plot(*zip(*dots, strict=True), "o", color=colour, ms=3, alpha=0.5)
        if published and name in published:
            axes.axhline(published[name], color=colour, lw=1, ls="--", label=f"{label}, published")
    axes.set_xscale("log")
    axes.set_xticks(videos, [f"{count:,}" for count in videos], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_ylim(-0.02, 1.02)
    axes.set_title("probes", loc="left", size=11, weight="bold", color=INK)
    axes.set_xlabel("videos to train on", size=9, color=FAINT)
    style_axes(axes)
    axes.legend(loc="best", fontsize=9, frameon=False, labelcolor=INK)
    canvas.figure.tight_layout()
    with new_file(path, replace=True) as partial:
        write_png(canvas, str(partial))
