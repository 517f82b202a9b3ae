"""The videos of a run, as workers get them: those that they see, and others that are sent."""

import dataclasses
import platform
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from videoprism_mlx.errors import EXPECTED, WorkerError, counted
from videoprism_mlx.files.download import answered
from videoprism_mlx.workers.places import Places
from videoprism_mlx.workers.sending import Offer, Sender, fetch, listing

if TYPE_CHECKING:
    from distributed import Client

# How many bytes of videos that were sent a process keeps for the next task, at most.
MOST_KEPT = 4 * 2**30

# What is left free on the disk of a worker.
LEFT_FREE = 2**30

# How long to wait for workers that remove what was sent, in seconds.
FORGETTING = 5.0


@dataclasses.dataclass(eq=False)
class Received:
    """A video that was sent to this process. `folder` is None until it is here."""

    size: int
    folder: Path | None = None
    users: int = 0
    arriving: threading.Lock = dataclasses.field(default_factory=threading.Lock)


# By topic and path. The one that was used last comes last. The topics of runs that are over.
_received: dict[tuple[str, str], Received] = {}
_over: set[str] = set()
_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Files:
    """How a worker finds videos. With a `topic`, those that it does not see are sent."""

    places: Places
    topic: str | None = None

    @contextmanager
    def at_hand(self, path: str, size: int) -> Iterator[Path]:
        """On a worker: the file or folder that stands for `path`, of `size` bytes.

        Raises WorkerError if there is none. One that was sent may be removed after the block.
        """
        try:
            found = self.places.find(path, size)
        except WorkerError:
            if self.topic is None:
                raise
        else:
            yield found
            return
        received = taken(self.topic, path, size)
        try:
            with received.arriving:
                if received.folder is None:
                    make_room()
                    received.folder = receive(self.topic, path, size)
            yield received.folder / Path(path).name
        finally:
            give_back(self.topic, path)

    def require_sight(self, videos: Sequence[tuple[str, int]]) -> None:
        """Raises the error about the first of some videos if none of them is here, nor sent."""
        problems = []
        for path, size in videos if self.topic is None else ():
            try:
                self.places.find(path, size)
                return
            except EXPECTED as error:
                problems.append(error)
        if problems:
            raise problems[0]


@contextmanager
def files_of(
    client: "Client", sender: Sender, places: Places, videos: Iterable[str], send: bool
) -> Iterator[Files]:
    """How workers find the videos with these paths. With `send`, they are sent during the block."""
    if not send:
        yield Files(places)
        return
    topic = sender.allow(videos)
    try:
        yield Files(places, topic)
    finally:
        with suppress(OSError):  # The scheduler is gone, or a worker does not answer.
            answered(lambda: client.run(forget, topic, on_error="ignore"), FORGETTING)


def taken(topic: str, path: str, size: int) -> Received:
    """What was received of a video, or is going to be, for one more user."""
    with _lock:
        received = _received.pop((topic, path), None) or Received(size)
        _received[topic, path] = received
        received.users += 1
        return received


def give_back(topic: str, path: str) -> None:
    """Counts one user less of a video, and removes what is not kept."""
    with _lock:
        received = _received[topic, path]
        received.users -= 1
        if not received.users and (received.folder is None or topic in _over):
            remove(_received.pop((topic, path)))
    make_room()


def make_room() -> None:
    """Removes videos that nobody uses, the oldest first, until there are not too many bytes."""
    with _lock:
        for key, received in list(_received.items()):
            if sum(one.size for one in _received.values()) <= MOST_KEPT:
                return
            if not received.users:
                remove(_received.pop(key))


def forget(topic: str) -> None:
    """On a worker: removes what was sent under a topic: at once, or after its last use."""
    with _lock:
        _over.add(topic)
        for key, received in list(_received.items()):
            if key[0] == topic and not received.users:
                remove(_received.pop(key))


def remove(received: Received) -> None:
    """Removes a video."""
    if received.folder is not None:
        shutil.rmtree(received.folder, ignore_errors=True)


def receive(topic: str, path: str, size: int) -> Path:
    """Fetches a video to a new folder of this worker, which Dask removes when the worker ends."""
    from distributed import get_worker

    place = get_worker().local_directory
    free = shutil.disk_usage(place).free
    if free < size + LEFT_FREE:
        raise WorkerError(
            f"{path} cannot be sent to {platform.node()}: it has {counted(size, 'byte')}, and "
            f"{free:,} are free on the disk of {place}; make room, or start the worker with "
            "--local-directory on a larger disk"
        )
    folder = Path(tempfile.mkdtemp(prefix="video-", dir=place))
    try:
        target = folder / Path(path).name
        images = listing(topic, path)
        if images is None:
            fetch(Offer(topic, path, size), target)
            return folder
        target.mkdir()
        for name, each in images:
            fetch(Offer(topic, f"{path}/{name}", each), target / name)
        return folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
