"""Downloads, with errors that say what to do without a network."""

import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from videoprism_mlx.errors import DownloadError
from videoprism_mlx.files.atomic import DISK_FULL

TIMEOUT_SECONDS = 30


def download_bytes(url: str) -> bytes:
    """The content at a public address. HF_HUB_OFFLINE, Hugging Face's switch, is respected."""
    with explained(url, f"without a network, bring {url} and pass its path"):
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise ConnectionError("HF_HUB_OFFLINE is set")
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            content: bytes = response.read()
            return content


@contextmanager
def explained(what: str, hint: str) -> Iterator[None]:
    """Turns every error of a download into a DownloadError that says what to do.

    Only the call of a library belongs inside: libraries raise errors of many unrelated types.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        reason = error.__cause__ or error
        first_line = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        raise DownloadError(f"could not fetch {what}: {first_line}; {hint}") from error
