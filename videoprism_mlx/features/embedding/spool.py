"""Features of windows on disk, until those of a whole video are written together."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from videoprism_mlx.features.formats.rows import Rows
from videoprism_mlx.features.pipeline import Array, Features
from videoprism_mlx.features.windows import Window
from videoprism_mlx.files.atomic import explained_if_full

# How many bytes of an array stay in memory.
IN_MEMORY = 2**18


class Spool:
    """Arrays of one shape, kept until they are written together: many in a temporary file."""

    def __init__(self, folder: Path):
        self._folder = folder
        # A process may have few files open: 256 on a Mac.
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(folder))  # noqa: SIM115
        self._count = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, array: Array) -> None:
        """Adds an array, on disk."""
        with explained_if_full(self._folder / "windows"):
            self._file.write(np.ascontiguousarray(array).tobytes())
            self._file.flush()
        self._dtype, self._shape = array.dtype, array.shape
        self._count += 1

    def rows(self) -> Rows:
        """All arrays, stacked."""
        return Rows(self._dtype, (self._count, *self._shape), self._pieces)

    def _pieces(self) -> Iterator[Array]:
        self._file.seek(0)
        size = self._dtype.itemsize * math.prod(self._shape)
        for _ in range(self._count):
            yield np.frombuffer(self._file.read(size), self._dtype).reshape(1, *self._shape)


class WindowSpool:
    """The features of windows that follow each other. `count` is what the last one says."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._stack = ExitStack()
        self._spools: dict[str, Spool] = {}
        self.count = 0

    def __enter__(self) -> "WindowSpool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes the files."""
        self._stack.close()

    def append(self, window: Window) -> None:
        """Adds a window."""
        for key, array in window.arrays().items():
            if key not in self._spools:
                self._spools[key] = self._stack.enter_context(Spool(self._folder))
            self._spools[key].append(array)
        self.count = window.count

    def rows(self) -> dict[str, Rows]:
        """The arrays of all windows, by name."""
        return {key: spool.rows() for key, spool in self._spools.items()}


def joined(parts: Sequence[WindowSpool]) -> dict[str, Rows]:
    """The arrays of the windows of all parts, one after the other."""
    each = [part.rows() for part in parts]
    return {key: Rows.joined([rows[key] for rows in each]) for key in each[0]} if each else {}


def windows_of(parts: Sequence[WindowSpool]) -> Iterator[Features]:
    """The arrays of each window."""
    rows = joined(parts)
    for arrays in zip(*(each.pieces() for each in rows.values()), strict=True):
        yield {key: array[0] for key, array in zip(rows, arrays, strict=True)}
