"""Files from the process that has started the work to workers, through the scheduler.

A worker asks for pieces of a file under a topic of the scheduler, a few at a time, and gets each by
a call of `deliver`. So nothing needs to be shared, no worker has to be reached directly, and
nothing is sent faster than it is written.
"""

import hashlib
import json
import os
import queue
import threading
import uuid
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from videoprism_mlx.errors import EXPECTED, WorkerError, in_words
from videoprism_mlx.video.find import images_in

if TYPE_CHECKING:
    from distributed import Client

# The bytes of a piece, and how many pieces a worker asks for ahead.
PIECE, AHEAD = 4 * 2**20, 3

# The start of the piece that lists a folder.
LISTING = -1

# How many pieces are read and sent at a time, for each worker.
SENDERS = 2

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
    """Sends files to the workers that ask for them: those that are offered, and no others.

    Each worker has threads of its own: one that does not answer holds up no other, nor the end.
    """

    def __init__(self, client: "Client"):
        self._client = client
        self._topic = f"videoprism_mlx-files-{uuid.uuid4().hex}"
        self._offered: set[str] = set()
        self._requests: dict[str, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._is_over = False

    def __enter__(self) -> "Sender":
        self._client.subscribe_topic(self._topic, self._asked)
        return self

    def __exit__(self, *_: object) -> None:
        if self._client.status == "running":
            self._client.unsubscribe_topic(self._topic)
        self._is_over = True
        for requests in list(self._requests.values()):
            for _each in range(SENDERS):
                requests.put(None)

    def offer(self, path: Path, size: int | None = None, sha256: str | None = None) -> Offer:
        """From now on, workers may ask for this file."""
        self._offered.add(str(path))
        return Offer(self._topic, str(path), path.stat().st_size if size is None else size, sha256)

    def allow(self, paths: Iterable[str]) -> str:
        """From now on, workers may ask for these videos, under the topic that is returned."""
        self._offered.update(paths)
        return self._topic

    def _asked(self, event: tuple[float, Any]) -> None:
        """Called in the thread of the client, which must not wait."""
        request = event[1]
        if (requests := self._requests.get(request["worker"])) is None:
            requests = self._requests[request["worker"]] = queue.SimpleQueue()
            for _ in range(SENDERS):
                threading.Thread(target=self._serve, args=[requests], daemon=True).start()
        requests.put(request)

    def _serve(self, requests: "queue.SimpleQueue[dict[str, Any] | None]") -> None:
        while (request := requests.get()) is not None and not self._is_over:
            with suppress(Exception):  # The scheduler is gone, or the worker.
                self._send(request)

    def _send(self, request: dict[str, Any]) -> None:
        data, problem = None, ""
        try:
            path = Path(os.fsdecode(request["path"]))
            data = self._piece(path, request["start"], request["count"])
        except EXPECTED as error:
            problem = in_words(error)
        except Exception as error:  # The worker must not wait for the answer.
            problem = f"{type(error).__name__}: {error}"
        self._client.run(
            deliver,
            *(request["key"], data, problem),
            workers=[request["worker"]],
            on_error="ignore",  # It has died, or does not wait any more.
        )

    def _piece(self, path: Path, start: int, count: int) -> bytes:
        """A piece of a file; if `start` is LISTING, the names and sizes of a folder's images."""
        if not {str(path), str(path.parent)} & self._offered:
            raise WorkerError(f"{path} is not sent to workers")
        if start == LISTING:
            images = images_in(path) if path.is_dir() else None
            named = None if images is None else [(one.name, one.stat().st_size) for one in images]
            return json.dumps(named).encode()
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(count)


def deliver(key: str, data: bytes | None, problem: str) -> None:
    """On a worker: hands a piece to the thread that has asked for it."""
    answers = _answers.get(key)
    if answers is not None:
        answers.put((data, problem))


def fetch(offer: Offer, target: Path) -> None:
    """On a worker: gets a file, and writes it to `target`.

    Raises WorkerError unless it comes, and is as it was when it was offered.
    """
    starts = deque(range(0, offer.size, PIECE))
    asked: deque[tuple[str, int]] = deque()
    digest = hashlib.sha256()
    try:
        with open(target, "wb") as file:
            while starts or asked:
                while starts and len(asked) < AHEAD:
                    start = starts.popleft()
                    count = min(PIECE, offer.size - start)
                    asked.append((ask(offer.topic, offer.path, start, count), count))
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


def listing(topic: str, path: str) -> list[tuple[str, int]] | None:
    """On a worker: the names and sizes of the images in an offered folder; None of a file."""
    images: list[list[Any]] | None = json.loads(answer(ask(topic, path, LISTING, 0), path))
    return None if images is None else [(name, size) for name, size in images]


def ask(topic: str, path: str, start: int, count: int) -> str:
    """Asks for a piece of a file. Returns the key under which `answer` gets it."""
    from distributed import get_worker

    worker = get_worker()
    key = uuid.uuid4().hex
    _answers[key] = queue.SimpleQueue()
    request = {"key": key, "path": os.fsencode(path), "start": start, "count": count}
    worker.log_event(topic, {**request, "worker": worker.address})
    return key


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
