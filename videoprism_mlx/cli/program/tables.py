"""Tables for the terminal: columns that stay apart, whatever the names in them."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

# A longer name is cut in a table. JSON has the whole name.
LONGEST_NAME = 40


def width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def cut(text: str, most: int) -> str:
    """The text, cut and ended with an ellipsis if it takes more than `most` columns."""
    if width(text) <= most:
        return text
    while width(text) > most - 1:
        text = text[:-1]
    return f"{text.rstrip()}…"


def padded(text: str, columns: int) -> str:
    """The text with spaces after it, so that it takes so many columns."""
    return text + " " * (columns - width(text))


def terminal_width() -> int | None:
    """The number of columns of the terminal; None if stdout is none."""
    import shutil
    import sys

    is_terminal = sys.stdout and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if is_terminal else None


def fitted(line: str) -> str:
    """The line, cut to the width of the terminal if stdout is one."""
    columns = terminal_width()
    return line if columns is None else cut(line, columns)


def shortened(path: str, most: int) -> str:
    """A path of `most` columns at most: its first name and as many of the last ones as fit."""
    if len(path) <= most:
        return path
    first, *names = path.split("/")
    while names and len(f"{first}/…/{'/'.join(names)}") > most:
        del names[0]
    return cut(f"{first}/…/{'/'.join(names)}", most)


def class_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each class: its name, how many videos it has, and how well it is recognized."""
    from videoprism_mlx.errors import printable

    if not rows:
        return []
    kind = next(key for key in rows[0] if key not in ("name", "examples"))
    names = [cut(printable(row["name"]), LONGEST_NAME) for row in rows]
    columns = max(map(width, ("class", *names)))
    lines = [f"{padded('class', columns)}  videos  {kind.replace('_', ' ')}"]
    for name, row in zip(names, rows, strict=True):
        value = "-" if row[kind] is None else f"{row[kind]:.1%}"
        lines.append(f"{padded(name, columns)}  {row['examples']:6}  {value:>{len(kind)}}")
    return lines


def metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    """A line for each metric: its name, and its value as a percentage if it is one."""
    from videoprism_mlx.evaluation.metrics import TITLES

    values = {
        TITLES.get(name, name.replace("_", " ")): f"{value:.1%}"
        if name in TITLES
        else f"{value:.4g}"
        for name, value in metrics.items()
    }
    columns = max(22, *map(len, values)) if values else 0
    return [f"{name:{columns}}  {value}" for name, value in values.items()]


def direction_lines(metrics: Mapping[str, Any]) -> list[str]:
    """A line for each direction of retrieval: its recalls and ranks."""
    from videoprism_mlx.evaluation.metrics import RECALL_RANKS

    recalls = [f"recall@{most}" for most in RECALL_RANKS]
    lines = [f"{'':14}" + "".join(f"{f'R@{n}':>8}" for n in RECALL_RANKS) + "    median  mean rank"]
    for way in ("text_to_video", "video_to_text"):
        shares = "".join(f"{metrics[f'{way}/{name}']:8.1%}" for name in recalls)
        median, mean = (metrics[f"{way}/{name}"] for name in ("median_rank", "mean_rank"))
        lines.append(f"{way.replace('_', ' '):14}{shares}{median:10.1f}{mean:11.1f}")
    return lines


def published_lines(published: Mapping[str, Any]) -> list[str]:
    """Published figures beside those measured, what differs, and what the sources do not say."""
    sources = list(published["sources"])
    figures: dict[str, dict[str, Any]] = {}
    for figure in published["figures"]:
        figures.setdefault(figure["metric"], {})[figure["source"]] = figure
    columns = "".join(f"{name:>9}" for name in ("here", *sources))
    lines = [f"published of {published['model']} for {published['title']}", f"{'':24}{columns}"]
    for metric, by_source in figures.items():
        values = [next(iter(by_source.values()))["here"]]
        values += [by_source[name]["published"] if name in by_source else None for name in sources]
        shown = "".join(f"{'-' if value is None else f'{value:.1%}':>9}" for value in values)
        lines.append(f"{title_of(metric):24}{shown}")
    for source in sources:
        own = [each for each in published["settings"] if each["source"] == source]
        for each in own:
            if each["same"] is False:
                here, there = (shown_setting(each[key]) for key in ("here", "published"))
                lines.append(f"not as in {source}: {each['setting']} ({here} here, {there} there)")
        if unsaid := [each["setting"] for each in own if each["same"] is None]:
            lines.append(f"not said by {source}: {', '.join(unsaid)}")
    return [*lines, *(f"{name}: {place}" for name, place in published["sources"].items())]


def title_of(metric: str) -> str:
    """What a metric is called in a table."""
    from videoprism_mlx.evaluation.metrics import TITLES

    return TITLES.get(metric, metric.replace("/recall@", " R@").replace("_", " "))


def shown_setting(value: Any) -> str:
    """A setting of a protocol as it is printed."""
    if isinstance(value, list):
        return cut(", ".join(map(repr, value)), LONGEST_NAME)
    return f"{value:,}" if isinstance(value, int) else cut(str(value), LONGEST_NAME)


def probe_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each size of the training set: the mean and the spread of each metric."""
    names = list(rows[0]["mean"])
    columns = {name: max(14, len(title_of(name))) for name in names}
    titles = (f"{title_of(name):>{columns[name]}}" for name in names)
    lines = ["  ".join(["videos to train on", *titles])]
    for row in rows:
        cells = [f"{row['videos']:18,}"]
        for name in names:
            spread = row["spread"][name]
            value = f"{row['mean'][name]:.1%}" + ("" if spread is None else f" ± {spread:.1%}")
            cells.append(f"{value:>{columns[name]}}")
        lines.append("  ".join(cells))
    return lines
