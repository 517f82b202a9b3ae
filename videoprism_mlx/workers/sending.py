"""Files from the process that has started the work to workers, through the scheduler.

A worker asks for pieces of a file under a topic of the scheduler, a few at a time, and gets each by
a call of `deliver`. So nothing needs to be shared, no worker has to be reached directly, and
nothing is sent faster than it is written.
"""

import hashlib
import queue
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from videoprism_mlx.errors import EXPECTED, WorkerError, in_words

if TYPE_CHECKING:
    from distributed import Client

# The bytes of a piece, and how many pieces a worker asks for ahead.
PIECE, AHEAD = 4 * 2**20, 3

# How many pieces are read and sent at a time, for all workers together.
SENDERS = 4

# How long a worker waits for a piece, in seconds.
PATIENCE = 120.0

# On a worker: where the answer to each of its requests goes.
_answers: dict[str, "queue.SimpleQueue[tuple[bytes | None, str]]"] = {}


class Offer(NamedTuple):
    """A file that is sent if a worker asks for it. `sha256` is compared if it is given."""

    topic: str
    path: str
    size: int
    sha256: str | None = None


class Sender:
    """Sends files to the workers that ask for them: those that are offered, and no others."""

    def __init__(self, client: "Client"):
        self._client = client
        self._topic = f"videoprism_mlx-files-{uuid.uuid4().hex}"
        self._offered: set[str] = set()
        self._pool = ThreadPoolExecutor(SENDERS, "sender")

    def __enter__(self) -> "Sender":
        self._client.subscribe_topic(self._topic, self._asked)
        return self

    def __exit__(self, *_: object) -> None:
        if self._client.status == "running":
            self._client.unsubscribe_topic(self._topic)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def offer(self, path: Path, size: int | None = None, sha256: str | None = None) -> Offer:
        """From now on, workers may ask for this file."""
        self._offered.add(str(path))
        return Offer(self._topic, str(path), path.stat().st_size if size is None else size, sha256)

    def _asked(self, event: tuple[float, Any]) -> None:
        """Called in the thread of the client, which must not wait."""
        self._pool.submit(self._send, event[1])

    def _send(self, request: dict[str, Any]) -> None:
        data, problem = None, ""
        try:
            if request["path"] not in self._offered:
                raise WorkerError(f"{request['path']} is not sent to workers")
            with open(request["path"], "rb") as file:
                file.seek(request["start"])
                data = file.read(request["count"])
        except EXPECTED as error:
            problem = in_words(error)
        self._client.run(
            deliver,
            *(request["key"], data, problem),
            workers=[request["worker"]],
            on_error="ignore",  # It has died, or does not wait any more.
        )


def deliver(key: str, data: bytes | None, problem: str) -> None:
    """On a worker: hands a piece to the thread that has asked for it."""
    answers = _answers.get(key)
    if answers is not None:
        answers.put((data, problem))


def fetch(offer: Offer, target: Path) -> None:
    """On a worker: gets a file, and writes it to `target`.

    Raises WorkerError unless it comes, and is as it was when it was offered.
    """
    from distributed import get_worker

    worker = get_worker()
    starts = deque(range(0, offer.size, PIECE))
    asked: deque[tuple[str, int]] = deque()
    name = uuid.uuid4().hex

    def ask() -> None:
        start = starts.popleft()
        key, count = f"{name}-{start}", min(PIECE, offer.size - start)
        _answers[key] = queue.SimpleQueue()
        asked.append((key, count))
        request = {"key": key, "path": offer.path, "start": start, "count": count}
        worker.log_event(offer.topic, {**request, "worker": worker.address})

    digest = hashlib.sha256()
    try:
        with open(target, "wb") as file:
            while starts or asked:
                while starts and len(asked) < AHEAD:
                    ask()
                key, count = asked.popleft()
                data = answer(key, offer.path)
                if len(data) != count:
                    raise WorkerError(f"{offer.path} was changed while it was sent")
                digest.update(data)
                file.write(data)
    finally:
        for key, _ in asked:
            _answers.pop(key, None)
    if offer.sha256 not in (None, digest.hexdigest()):
        raise WorkerError(f"{offer.path} was changed, or damaged while it was sent; try again")


def answer(key: str, path: str) -> bytes:
    """The piece that was asked for as `key`."""
    try:
        data, problem = _answers[key].get(timeout=PATIENCE)
    except queue.Empty:
        raise WorkerError(f"{path} was not sent: no answer in {PATIENCE:g} s") from None
    finally:
        _answers.pop(key, None)
    if data is None:
        raise WorkerError(f"{path} was not sent: {problem}")
    return data
