"""Hiding what Dask says: messages for people who run a cluster, and not for those who use it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from videoprism_mlx.progress import logged_from


@contextmanager
def quiet(hide: bool | None = None) -> Iterator[None]:
    """Hides Dask's messages and warnings in the block, by default unless -v asks for them."""
    if not (is_quiet() if hide is None else hide):
        yield
        return
    import distributed  # noqa: F401 - It sets the levels when it is imported.

    # A level of their own counts more than that of their parent.
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    with logged_from(logging.CRITICAL + 1, *names, "bokeh", "tornado"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"distributed\.")
        yield


def is_quiet() -> bool:
    """Whether Dask's messages are to be hidden: not with -v."""
    return not logging.getLogger("videoprism_mlx").isEnabledFor(logging.DEBUG)
