"""Hiding what Dask says: messages for people who run a cluster, and not for those who use it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(hide: bool | None = None) -> Iterator[None]:
    """Hides Dask's messages and warnings in the block, by default unless -v asks for them."""
    if not (is_quiet() if hide is None else hide):
        yield
        return
    import distributed  # noqa: F401 - It sets the levels when it is imported.

    # A level of their own counts more than that of their parent.
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    loggers = [logging.getLogger(name) for name in (*names, "bokeh", "tornado")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"distributed\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def is_quiet() -> bool:
    """Whether Dask's messages are to be hidden: not with -v."""
    return not logging.getLogger("videoprism_mlx").isEnabledFor(logging.DEBUG)
