"""What the ranks of a group exchange: sums, rows, copies of the first rank's arrays, and JSON.

Every rank must call the same methods in the same order. In a group of one they return what they are
given. A large tree goes in pieces of about PIECE bytes.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten, tree_map

# The bytes of a collective: large enough for the speed of the network, small beside a model.
PIECE = 1 << 26

# The header of rows: their number, and their shape after it.
HEADER = 8

Array = npt.NDArray[Any]
T = TypeVar("T")


class Group:
    """The processes of one run. This one is number `rank` of `size`; `hosts` are their machines.

    A child class has the two collectives that all others are made of.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self.hosts: tuple[str, ...] = ("",) * size
        # What to say is kept if a rank is lost.
        self.kept = ""

    def all_sum(self, vector: mx.array) -> mx.array:
        """The sum of the vectors (K,) of all ranks."""
        return vector

    def all_gather(self, vector: mx.array) -> mx.array:
        """The vectors (K,) of all ranks, one after the other: (size * K,)."""
        return vector

    @property
    def is_ending(self) -> bool:
        """Whether this process is about to end, because another rank was lost or has failed."""
        return False

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that prints and writes."""
        return self.rank == 0

    def name(self, rank: int) -> str:
        """A rank as it appears in messages, such as `rank 1 (mac2)`."""
        return f"rank {rank} ({self.hosts[rank]})" if self.hosts[rank] else f"rank {rank}"

    def share(self, count: int) -> slice:
        """Which of `count` things are this rank's: as many as any other's, or one more or less."""
        first, last = (-(-number * count // self.size) for number in (self.rank, self.rank + 1))
        return slice(first, last)

    def part(self, things: Sequence[T]) -> Sequence[T]:
        """This rank's share of a sequence."""
        return things[self.share(len(things))]

    def sum(self, tree: T) -> T:
        """The sums of a tree of arrays over all ranks, with the same bits at every rank."""
        return tree if self.size == 1 else self._packed(tree, self._summed)

    def copy(self, tree: T) -> T:
        """The first rank's tree of arrays. Every rank has a tree of the same form."""
        return tree if self.size == 1 else self._packed(tree, self._copied)

    def broadcast(self, value: T) -> T:
        """The first rank's value, which JSON can hold."""
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.is_first else b""
        (length,) = np.array(self.all_sum(mx.array([len(text)], mx.int32))).tolist()
        found = bytearray()
        for first in range(0, length, PIECE):
            whole = np.zeros(min(PIECE, length - first), np.uint8)
            if self.is_first:
                whole[:] = np.frombuffer(text[first : first + PIECE], np.uint8)
            found += np.array(self.all_sum(mx.array(whole))).tobytes()
        return cast(T, json.loads(found.decode()))

    def collect(self, value: T) -> list[T]:
        """The value of each rank, which JSON can hold."""
        if self.size == 1:
            return [value]
        text = json.dumps(value).encode()
        lengths = np.array(self.all_gather(mx.array([len(text)], mx.int32)))
        padded = np.zeros(lengths.max(), np.uint8)
        padded[: len(text)] = np.frombuffer(text, np.uint8)
        rows = np.array(self.all_gather(mx.array(padded))).reshape(self.size, -1)
        return [
            json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)
        ]

    def gather_parts(self, parts: Sequence[Array]) -> Array:
        """As `gather`, of rows in parts, of which there may be none."""
        return self.gather(np.concatenate(parts) if parts else np.empty(0, np.float32))

    def gather(self, rows: Array) -> Array:
        """The rows (K, ...) of all ranks, in the order of the ranks: (sum of K, ...).

        K may differ, and be 0: then the shape after it does not count.
        """
        if self.size == 1:
            return rows
        header = np.zeros(HEADER, np.int32)
        header[: 1 + rows.ndim] = rows.ndim, *rows.shape
        headers = np.array(self.all_gather(mx.array(header))).reshape(self.size, HEADER)
        counts = headers[:, 1]
        if not counts.any():
            return rows
        ndim, *shape = headers[counts.argmax()].tolist()
        inner = shape[1:ndim]
        padded = np.zeros((counts.max(), *inner), rows.dtype)
        if len(rows):
            padded[: len(rows)] = rows
        sent = mx.array(padded.reshape(-1).view(np.uint8))
        found = np.array(self.all_gather(sent)).view(rows.dtype)
        found = found.reshape(self.size, counts.max(), *inner)
        return np.concatenate([each[:count] for each, count in zip(found, counts, strict=True)])

    def _packed(self, tree: T, collective: Any) -> T:
        """What `collective` makes of the arrays of a tree, several in one vector."""
        arrays = [array for _, array in cast(Any, tree_flatten(tree))]
        results = (one for part in packs(arrays) for one in collective(part))
        # A tree that is made anew by names may have another order, and another rounding of sums.
        return cast(T, tree_map(lambda _: next(results), tree))

    def _summed(self, arrays: list[mx.array]) -> Iterator[mx.array]:
        return unpacked(self.all_sum(mx.concatenate([each.reshape(-1) for each in arrays])), arrays)

    def _copied(self, arrays: list[mx.array]) -> Iterator[mx.array]:
        """The first rank's bits: the others add 0 to them, as whole numbers."""
        sent = mx.concatenate([each.reshape(-1).view(mx.uint8) for each in arrays])
        found = self.all_sum(sent if self.is_first else mx.zeros_like(sent))
        first = 0
        for each in arrays:
            yield found[first : first + each.nbytes].view(each.dtype).reshape(each.shape)
            first += each.nbytes


def packs(arrays: Iterable[mx.array]) -> Iterator[list[mx.array]]:
    """Arrays one after the other, in packs of one type and up to PIECE bytes, or of one array."""
    pack: list[mx.array] = []
    room = PIECE
    for array in arrays:
        if pack and (array.nbytes > room or array.dtype != pack[0].dtype):
            yield pack
            pack, room = [], PIECE
        pack.append(array)
        room -= array.nbytes
    if pack:
        yield pack


def unpacked(vector: mx.array, like: Sequence[mx.array]) -> Iterator[mx.array]:
    """The arrays that a vector consists of, in the shapes of `like`."""
    first = 0
    for each in like:
        yield vector[first : first + each.size].reshape(each.shape)
        first += each.size


# The group of a process that was started by itself.
ALONE = Group()
