"""What is said on stderr while something takes long: bars and notes. `hidden` turns them off."""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from videoprism_mlx.errors import printable

_is_hidden = False


@contextmanager
def hidden(hide: bool = True) -> Iterator[None]:
    """Shows no bars and no notes in the block, if `hide` is set."""
    global _is_hidden
    before, _is_hidden = _is_hidden, hide
    try:
        yield
    finally:
        _is_hidden = before


def bar(
    items: Iterable[Any] | None = None,
    what: str | None = None,
    unit: str = "it",
    *,
    total: int | None = None,
    done: int = 0,
    show: bool = True,
    leave: bool = False,
    scale: bool = False,
    layout: str | None = None,
) -> Any:
    """A tqdm bar, if stderr is a terminal. `done` of `total` steps are done already.

    With `leave`, it stays on the screen when it is complete. `scale` writes 1,200,000 as 1.20M.
    `layout` is tqdm's `bar_format`.
    """
    from tqdm import tqdm

    disable = True if _is_hidden or not show else None
    return tqdm(
        items,
        what,
        total,
        leave,
        unit=unit if scale else f" {unit}",
        initial=done,
        disable=disable,
        dynamic_ncols=True,
        unit_scale=scale,
        bar_format=layout,
    )


def status() -> Any:
    """A tqdm line with a description and the time that has passed, if stderr is a terminal."""
    from tqdm import tqdm

    disable = True if _is_hidden else None
    return tqdm(bar_format="{desc} [{elapsed}]", disable=disable, leave=False)


def note(text: str) -> None:
    """Prints a line to stderr, above the bars."""
    if not _is_hidden:
        write(printable(text))


def write(text: str) -> None:
    """As `note`, but not hidden: for problems."""
    from tqdm import tqdm

    if sys.stderr is not None:
        tqdm.write(text, file=sys.stderr)


@contextmanager
def logged_from(level: int, *names: str) -> Iterator[None]:
    """Hides what the loggers with these names say below a level, in the block."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, own in zip(loggers, before, strict=True):
            logger.setLevel(own)
