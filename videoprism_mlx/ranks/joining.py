"""Joining the group that a launcher has started this process for, and leaving it."""

import faulthandler
import functools
import logging
import signal
import threading
import time
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

# Seconds: for all ranks to join, as a slow machine may take long to start; and in which MLX's ring
# tries to connect once.
JOINING, TRYING = 180.0, 35.0

P = ParamSpec("P")
R = TypeVar("R")

_current: ContextVar[Group] = ContextVar("group", default=ALONE)


class Launched(Group):
    """The group of MLX's launcher: collectives over the network, on the processor."""

    def __init__(self, group: Any, noise: Noise):
        super().__init__(group.rank(), group.size())
        self.noise = noise
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
            if self.watch is None:
                raise RankError("a rank has ended before all joined; start them again") from None
            with self.noise.aside():  # The ring's threads still print.
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
    with ExitStack() as stack:
        noise = Noise()
        stack.callback(noise.close)
        with _while_joining(noise):
            group = Launched(_wait_for_all_ranks(), noise)
            watch = Watch(group, noise)
        group.watch = stack.enter_context(watch)
        if not group.is_first:
            stack.enter_context(progress.hidden())
            # The first rank has the same warnings.
            stack.enter_context(progress.logged_from(logging.ERROR, "videoprism_mlx"))
        yield stack.enter_context(using(group))


def over_ranks(function: Callable[P, R]) -> Callable[P, R]:
    """Lets all ranks that a launcher has started take part in each call of a function."""

    @functools.wraps(function)
    def together(*arguments: P.args, **options: P.kwargs) -> R:
        with joined():
            return function(*arguments, **options)

    return together


def _wait_for_all_ranks() -> Any:
    """MLX's group. The name is what one reads if a rank never comes: see `_while_joining`.

    MLX's ring gives up after half a minute if the next rank does not listen yet.
    """
    until = time.monotonic() + JOINING - TRYING
    while True:
        try:
            return mx.distributed.init(strict=True)
        except RuntimeError as error:
            if "Couldn't connect" not in str(error) or time.monotonic() > until:
                raise RankError(
                    f"this process is one of several that a launcher has started, and they cannot "
                    f"be joined: {in_words(error)}"
                ) from None


@contextmanager
def _while_joining(noise: Noise) -> Iterator[None]:
    """Lets the process end in the block, in which MLX waits for other ranks with Python's lock.

    No handler of a signal and no other thread can run then. Signals therefore end the process at
    once, as they would any program, and so does waiting for longer than JOINING.
    """
    is_main = threading.current_thread() is threading.main_thread()
    changed = [one for one in STOPS if signal.getsignal(one) not in (signal.SIG_IGN, None)]
    before = {one: signal.signal(one, signal.SIG_DFL) for one in changed if is_main}
    faulthandler.dump_traceback_later(JOINING, exit=True, file=noise.screen)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        for one, handler in before.items():
            signal.signal(one, handler)
