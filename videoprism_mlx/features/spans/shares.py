"""Videos on workers: each as a whole or, if it is long, in spans that the workers share."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from videoprism_mlx.errors import EXPECTED, DeadlyError
from videoprism_mlx.features.spans.dividing import Span
from videoprism_mlx.video.ffmpeg.index import Index
from videoprism_mlx.workers.crew.crew import Crew
from videoprism_mlx.workers.tasks import Done, Task


class Encoded(NamedTuple):
    """What a worker has made of a span. That of the first one says how the video is divided."""

    result: Any
    spans: list[Span]
    mark: str  # For `exactly`.
    listed: Index | None  # The frames of the video, so that nobody lists them again.


@dataclasses.dataclass(eq=False)
class Shared(abc.ABC):
    """A video that workers may share."""

    spans: list[Span] = dataclasses.field(default_factory=list, init=False)
    come: set[int] = dataclasses.field(default_factory=set, init=False)  # Numbers of spans.
    is_whole: bool = dataclasses.field(default=False, init=False)  # Its spans did not work.
    is_done: bool = dataclasses.field(default=False, init=False)

    @abc.abstractmethod
    def keep(self, number: int, result: Any) -> None:
        """Keeps what has come of a span."""

    @abc.abstractmethod
    def clear(self) -> None:
        """Forgets what has come."""


V = TypeVar("V", bound=Shared)


class Share(NamedTuple):
    """The span of a video that a task is about."""

    video: Any
    number: int
    is_whole: bool


# A path, a function of a worker, and its arguments.
Call = tuple[str, Callable[..., Any], tuple[Any, ...]]


class Shares(Generic[V]):
    """Lets a crew encode videos.

    `first` is the call that encodes a video or, unless it is to stay whole, perhaps its first span
    alone. `other` is that for another span, after the first one has come.
    """

    def __init__(
        self, crew: Crew, first: Callable[[V], Call], other: Callable[[V, Span, Encoded], Call]
    ):
        self._crew, self._first, self._other = crew, first, other

    def task(self, video: V) -> Task:
        """The first task of a video."""
        return Task(*self._first(video), Share(video, 0, video.is_whole), video)

    def taken(self, done: Done) -> Encoded | Exception | None:
        """What has come of a span, or why the video cannot be encoded.

        None if that no longer matters, or if the video is tried again as a whole. It `is_done` if
        nothing more will come.
        """
        share: Share = done.task.about
        video: V = share.video
        if video.is_done or share.is_whole != video.is_whole:
            return None
        if done.error is not None:
            return self._failed(video, share, done.error)
        encoded: Encoded = done.value
        if share.number == 0:
            video.spans = encoded.spans
            for number, span in list(enumerate(video.spans))[1:]:
                call = self._other(video, span, encoded)
                self._crew.put(Task(*call, share._replace(number=number), video))
        video.keep(share.number, encoded.result)
        video.come.add(share.number)
        video.is_done = len(video.come) == len(video.spans)
        return encoded

    def _failed(self, video: V, share: Share, error: Exception) -> Exception | None:
        if not isinstance(error, EXPECTED):
            raise error
        video.clear()
        video.come.clear()
        if share.number == 0 or isinstance(error, DeadlyError):
            video.is_done = True
            return error
        video.is_whole = True  # As a whole, it may be in order, or will say what is wrong.
        self._crew.put(self.task(video))
        return None
