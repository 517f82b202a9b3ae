"""Work that overlaps: reading runs ahead of the model, and the model runs ahead of the caller."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import InputError
from videoprism_mlx.runtime.limits import available_cores

Array = npt.NDArray[Any]

# Features by name: before they are computed, and after.
Lazy = dict[str, mx.array]
Features = dict[str, Array]

Item = TypeVar("Item")
Read = TypeVar("Read")


@contextmanager
def read_ahead(
    read: Callable[[Item], Read], items: Iterable[Item], readers: int | None, ahead: int
) -> Iterator[Iterator[tuple[Item, Read]]]:
    """Pairs of each item and `read(item)`, in order.

    `readers` threads, by default at most four, read up to `ahead` items before they are needed.
    """
    items = iter(items)
    workers = ThreadPoolExecutor(readers or min(4, available_cores()), "reader")
    queue: deque[tuple[Item, Future[Read]]] = deque()

    def results() -> Iterator[tuple[Item, Read]]:
        queue.extend((item, workers.submit(read, item)) for item in islice(items, ahead))
        while queue:
            item, future = queue.popleft()
            queue.extend((item, workers.submit(read, item)) for item in islice(items, 1))
            yield item, future.result()

    try:
        yield results()
    finally:
        workers.shutdown(wait=True, cancel_futures=True)


@contextmanager
def released(lock: threading.Lock) -> Iterator[None]:
    """Lets others have a lock, which this thread holds, during the block."""
    lock.release()
    try:
        yield
    finally:
        lock.acquire()


def waiting(items: Iterator[Item], lock: threading.Lock) -> Iterator[Item]:
    """The items. While one is waited for, others may have the lock that this thread holds."""
    while True:
        with released(lock):
            found = list(islice(items, 1))
        if not found:
            return
        yield found[0]


def evaluated(groups: Iterator[list[tuple[Item, Lazy]]]) -> Iterator[list[tuple[Item, Features]]]:
    """Computes the arrays of each group, and already those of the next while the caller works."""
    waiting = None
    for group in groups:
        mx.async_eval([list(arrays.values()) for _, arrays in group])
        if waiting is not None:
            yield as_numpy(waiting)
        waiting = group
    if waiting is not None:
        yield as_numpy(waiting)


def as_numpy(group: list[tuple[Item, Lazy]]) -> list[tuple[Item, Features]]:
    """The arrays as NumPy's. NumPy has no bfloat16: such an array becomes float32."""
    return [
        (
            item,
            {
                name: np.array(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)
                for name, array in arrays.items()
            },
        )
        for item, arrays in group
    ]


def not_finite(features: Features, source: object) -> InputError | None:
    """The error about features that hold NaN or infinity; None if all are finite."""
    for name, array in features.items():
        if not np.isfinite(array).all():
            about = source if isinstance(source, (str, os.PathLike)) else "an array of frames"
            return InputError(
                f"the model's {name} of {about} contain NaN or infinity; load the model in another "
                "type, such as float32"
            )
    return None


def rows_of(arrays: Lazy) -> list[Lazy]:
    """One dictionary for each row of the arrays."""
    count = len(next(iter(arrays.values())))
    return [{name: array[row] for name, array in arrays.items()} for row in range(count)]
