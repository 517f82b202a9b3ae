"""Downloads, with errors that say what to do without a network."""

import http.client
import logging
import os
import queue
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from videoprism_mlx.errors import DownloadError, NetworkError, in_words
from videoprism_mlx.files.atomic import DISK_FULL
from videoprism_mlx.files.reading import MOST_BYTES

# How long a server that has answered may be silent during a download.
TIMEOUT_SECONDS = 30

# How long a server may take to answer at all. With the start of a command, that is less than 5 s.
# Hugging Face's own variable sets another limit.
ANSWER_SECONDS, ANSWER_VARIABLE = 3.5, "HF_HUB_ETAG_TIMEOUT"

# What needs no network.
NO_NETWORK_NEEDED = (
    "use a model directory (--model DIRECTORY) or videoprism_lvt_demo_tiny, a tiny model that "
    "comes with the package"
)

T = TypeVar("T")

logger = logging.getLogger(__name__)


def download_bytes(url: str, kept: Path, otherwise: str = "") -> bytes:
    """The content at a public address. HF_HUB_OFFLINE, Hugging Face's switch, is respected.

    `kept` is where the caller will look for it the next time, and `otherwise` what to do instead.
    """
    other = f", or {otherwise}" if otherwise else ""
    with explained(url, f"without a network, bring the file and save it as {kept}{other}"):
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise ConnectionError("HF_HUB_OFFLINE is set")
        with answered(lambda: urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS)) as response:
            content: bytes = response.read(MOST_BYTES + 1)
        missing = int(response.headers.get("Content-Length") or 0) - len(content)
        if missing > 0 and len(content) <= MOST_BYTES:
            raise http.client.IncompleteRead(content, missing)
        if len(content) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        return content


def answer_seconds() -> float:
    """How many seconds a server may take to answer."""
    chosen = os.environ.get(ANSWER_VARIABLE, "")
    return float(chosen) if chosen.isdecimal() and int(chosen) else ANSWER_SECONDS


def answered(ask: Callable[[], T], seconds: float | None = None) -> T:
    """What `ask` returns or raises. Raises TimeoutError if it takes longer than `seconds`.

    By default these are `answer_seconds`.

    It runs in a thread, because looking up an address and trying several ones have no time limit.
    """
    results: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()

    def run() -> None:
        try:
            results.put((ask(), None))
        except BaseException as error:  # It is raised below.
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    advice = f" ({ANSWER_VARIABLE} sets a longer time for slow networks)" if seconds is None else ""
    limit = answer_seconds() if seconds is None else seconds
    try:
        result, error = results.get(timeout=limit)
    except queue.Empty:
        raise TimeoutError(f"no answer in {limit:g} s{advice}") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # There is a result if there is no error.


@contextmanager
def explained(
    what: str,
    hint: str | Callable[[BaseException], str],
    reason_of: Callable[[BaseException], str | None] = lambda _: None,
    kind: type[NetworkError] = DownloadError,
) -> Iterator[None]:
    """Turns every error of a download, or an upload, into a `kind` that says what to do.

    Only the call of a library belongs inside: libraries raise errors of many unrelated types.
    `reason_of` knows what some of them mean. `hint` may depend on the error.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        reason = reason_of(error) or usual_reason(error)
        logger.debug("why it could not be fetched:", exc_info=True)
        # The library's own traceback has a hundred lines, and says no more.
        advice = hint if isinstance(hint, str) else hint(error)
        failed = kind(f"could not {kind.verb} {what}: {reason}; {advice}")
        failed.reason = reason
        raise failed from None


def usual_reason(error: Exception) -> str:
    """Why a download failed, as the library or the system says it, in one line."""
    if isinstance(error, NetworkError):
        return error.reason
    if any(isinstance(one, socket.gaierror) for one in causes(error)):
        return "the server was not found"
    cause = error.__cause__ or error
    reason = (in_words(cause).strip() or type(cause).__name__).splitlines()[0]
    return re.sub(r"^\[Errno -?\d+\] ", "", reason)  # Libraries quote the system.


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
