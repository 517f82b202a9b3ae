"""The tables of `check --speed` and `check --tune`, as lines of at most 80 columns."""

from pathlib import Path

from videoprism_mlx.check.speed import Case, Row
from videoprism_mlx.check.tune import Tuned

LINE = "{:<31}{:<10}{:>6}{:>10}{:>9}{:>9}"


def heading(seconds: float) -> list[str]:
    """What will be measured, and how long it takes."""
    return [
        f"Speed of the released models, in about {max(10, round(seconds, -1)):.0f} seconds.",
        "Clips only, without texts; weights and clips are random. At batch 1 and, where",
        "it is faster, at the best batch. `of rate` is the share of the rate of matrix",
        "products, measured in turns. Memory is MLX's peak, with the weights for clips.",
    ]


def speed_lines(rows: list[Row], left_out: list[Case]) -> list[str]:
    """The table of what was measured, then what was left out and why."""
    lines = [LINE.format("model", "type", "batch", "s a clip", "of rate", "peak GB")]
    lines += [
        LINE.format(
            row.model,
            row.dtype,
            row.batch,
            f"{row.seconds:.3g}",
            f"{row.of_rate:.0%}",
            f"{row.peak_gb:.2f}",
        )
        for row in rows
    ]
    return lines + [f"{case.model:<31}{case.dtype:<10}{case.refused}" for case in left_out]


def tuning_lines(results: list[Tuned], path: Path | None) -> list[str]:
    """What was tried, and what is kept where."""
    lines = ["Block sizes, with the time of a pass as a share of that with the default:"]
    for one in results:
        if one.left_out is not None:
            lines.append(f"{one.dtype:<10}not tuned: {one.left_out}")
            continue
        tried = ", ".join(f"{size:g} MB {share:.2f}" for size, share in one.tried.items())
        again = f" (again: {one.confirmed:.2f})" if one.confirmed is not None else ""
        kept = f"the default, {one.default:g} MB, stays"
        if one.megabytes is not None:
            kept = f"{one.megabytes:g} MB is kept"
        lines += [f"{one.dtype:<10}{tried}", f"{'':<10}{kept}{again}"]
    if path is None:
        return lines
    return [*lines, f"Kept in {path}", "Delete this file to go back to the defaults."]
