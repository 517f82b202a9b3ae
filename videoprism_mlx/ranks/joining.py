"""Joining the group that a launcher has started this process for, and leaving it."""

import functools
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import mlx.core as mx

from videoprism_mlx import progress
from videoprism_mlx.errors import RankError, in_words
from videoprism_mlx.ranks.group import ALONE, Group
from videoprism_mlx.ranks.launched import launched_rank
from videoprism_mlx.ranks.noise import Noise
from videoprism_mlx.ranks.watch import STOPS, Watch

P = ParamSpec("P")
R = TypeVar("R")

_current: ContextVar[Group] = ContextVar("group", default=ALONE)


class Launched(Group):
    """The group of MLX's launcher: collectives over the network, on the processor."""

    def __init__(self, group: Any):
        super().__init__(group.rank(), group.size())
        self.noise = Noise()
        self.watch: Watch | None = None

    @property
    def is_ending(self) -> bool:
        """Whether this process is about to end, because another rank was lost or has failed."""
        return self.watch is not None and self.watch.is_ending

    def all_sum(self, vector: mx.array) -> mx.array:
        """The sum of the vectors (K,) of all ranks."""
        return self._done(mx.distributed.all_sum, vector)

    def all_gather(self, vector: mx.array) -> mx.array:
        """The vectors (K,) of all ranks, one after the other: (size * K,)."""
        return self._done(mx.distributed.all_gather, vector)

    def _done(self, collective: Callable[..., mx.array], vector: mx.array) -> mx.array:
        """The result of a collective, which is over.

        Nothing is left to compute on the GPU when it begins: a GPU that waits for the network for
        some seconds is taken for one that hangs.
        """
        mx.eval(vector)
        try:
            with self.noise.aside():
                result = collective(vector, stream=mx.cpu)
                mx.eval(result)
        except RuntimeError as error:
            if self.watch is not None:
                self.watch.explain()  # If a rank was lost, it ends the process with that message.
            self.noise.show()
            raise RankError(f"the ranks cannot reach each other any more: {error}") from None
        return result


def current() -> Group:
    """The group that this process has joined, or a group of one."""
    return _current.get()


@contextmanager
def using(group: Group) -> Iterator[Group]:
    """Makes `group` the current one in the block."""
    token = _current.set(group)
    try:
        yield group
    finally:
        _current.reset(token)


@contextmanager
def alone() -> Iterator[Group]:
    """Makes a block this rank's own work: what others do meanwhile does not matter."""
    with using(Group()) as group:
        yield group


@contextmanager
def joined() -> Iterator[Group]:
    """Joins the other ranks for a block, if a launcher has started this process and it has not yet.

    If another rank is lost or fails in the block, this process ends: see `Watch`. All ranks but the
    first print errors only.
    """
    if launched_rank() is None or current() is not ALONE:
        yield current()
        return
    group = Launched(_initialized())
    if group.size == 1:
        yield group
        return
    with ExitStack() as stack:
        stack.callback(group.noise.close)
        group.watch = stack.enter_context(Watch(group, group.noise))
        if not group.is_first:
            stack.enter_context(progress.hidden())
            stack.enter_context(_errors_only())
        yield stack.enter_context(using(group))


def over_ranks(function: Callable[P, R]) -> Callable[P, R]:
    """Lets all ranks that a launcher has started take part in each call of a function."""

    @functools.wraps(function)
    def together(*arguments: P.args, **options: P.kwargs) -> R:
        with joined():
            return function(*arguments, **options)

    return together


def _initialized() -> Any:
    try:
        with _ended_by_signals():
            return mx.distributed.init(strict=True)
    except RuntimeError as error:
        raise RankError(
            f"this process is one of several that a launcher has started, and they cannot be "
            f"joined: {in_words(error)}"
        ) from None


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Lets signals end the process in the block, which waits in native code for other ranks."""
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {one: signal.getsignal(one) for one in STOPS if is_main}
    changed = {one: each for one, each in handlers.items() if each is not signal.SIG_IGN}
    for one in changed:
        signal.signal(one, signal.SIG_DFL)
    try:
        yield
    finally:
        for one, handler in changed.items():
            signal.signal(one, handler)


@contextmanager
def _errors_only() -> Iterator[None]:
    """Hides this package's warnings in the block: the first rank has the same."""
    own = logging.getLogger("videoprism_mlx")
    before = own.level
    own.setLevel(logging.ERROR)
    try:
        yield
    finally:
        own.setLevel(before)
