"""Ranks as threads of one process, of which one runs at a time: until its next collective."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np

from videoprism_mlx.ranks.group import Group
from videoprism_mlx.ranks.joining import using

T = TypeVar("T")


class Table:
    """Where the ranks lay what they exchange."""

    def __init__(self, size: int):
        self.running = threading.Lock()
        self.barrier = threading.Barrier(size, timeout=60)
        self.rows: list[Any] = [None] * size

    def exchange(self, rank: int, row: np.ndarray) -> list[np.ndarray]:
        """The rows of all ranks."""
        self.rows[rank] = row
        self.running.release()
        try:
            self.barrier.wait()
            found = list(self.rows)
            self.barrier.wait()
        finally:
            self.running.acquire()
        assert len({(each.dtype, each.shape) for each in found}) == 1, "the ranks are out of step"
        return found


class Thread(Group):
    """A rank that is a thread."""

    def __init__(self, rank: int, size: int, table: Table):
        super().__init__(rank, size)
        self.hosts = tuple(f"mac{number}" for number in range(size))
        self.table = table
        self.collectives = 0

    def all_sum(self, vector: mx.array) -> mx.array:
        self.collectives += 1
        rows = self.table.exchange(self.rank, np.array(vector))
        return mx.array(sum(rows[1:], rows[0]))

    def all_gather(self, vector: mx.array) -> mx.array:
        self.collectives += 1
        return mx.array(np.concatenate(self.table.exchange(self.rank, np.array(vector))))


def each_rank(size: int, function: Callable[[Group], T]) -> list[T]:
    """What a function returns at each rank. Raises the error of the lowest rank that has one."""
    table, results, errors = Table(size), [None] * size, {}

    def run(rank: int) -> None:
        group = Thread(rank, size, table)
        with table.running, using(group):
            try:
                results[rank] = function(group)
                mx.eval(results[rank])  # Another thread cannot.
            except BaseException as error:
                errors[rank] = error
                table.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    broken = [
        each for each in errors.values() if not isinstance(each, threading.BrokenBarrierError)
    ]
    if errors:
        raise (broken or list(errors.values()))[0]
    return results
