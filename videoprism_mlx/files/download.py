"""Fetching from the network, with errors that say what to do without one."""

import errno
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from videoprism_mlx.errors import DownloadError

TIMEOUT_SECONDS = 30


def download_bytes(url: str) -> bytes:
    """What a public address serves. HF_HUB_OFFLINE, Hugging Face's switch, counts here too."""
    with explained(url, f"without a network, bring {url} and pass its path"):
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise ConnectionError("HF_HUB_OFFLINE is set")
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            content: bytes = response.read()
            return content


@contextmanager
def explained(what: str, hint: str) -> Iterator[None]:
    """Turns whatever a download raises into one DownloadError that says what to do."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = error.__cause__ or error
        first_line = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        raise DownloadError(f"could not fetch {what}: {first_line}; {hint}") from error
