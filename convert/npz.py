"""Reading `.npz` checkpoints: headers first, one array at a time, never a pickle."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from videoprism_mlx.convert.rules import ROOT
from videoprism_mlx.errors import CheckpointError, NotFoundError

Array = npt.NDArray[Any]

# NumPy has no bfloat16. It stores such a number as two bytes of unknown type.
BFLOAT16 = np.dtype("V2")

# The errors that zipfile and NumPy raise for damaged files.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    EOFError,
    KeyError,
    SyntaxError,
    TokenError,
    RuntimeError,  # The archive is encrypted, or compressed in an unknown way.
)


class Header(NamedTuple):
    """The header of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Archive:
    """An open `.npz` file. `headers` describes its arrays before any data is read.

    All keys start with `params/`, even if those in the file do not.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        if not self.path.exists():
            raise NotFoundError(f"there is no checkpoint {self.path}")
        if self.path.is_dir():
            raise CheckpointError(f"{self.path} is a directory; expected an .npz file")
        with self._explained():
            self._zip = zipfile.ZipFile(self.path)
            members = self._zip.namelist()
            root = "" if any(name.startswith(ROOT) for name in members) else ROOT
            self._members = {root + name.removesuffix(".npy"): name for name in members}
            if len(self._members) != len(members):
                raise CheckpointError(f"{self.path} holds several arrays of the same name")
            self.headers = {key: self._header(name) for key, name in self._members.items()}
        self.shapes = {key: header.shape for key, header in self.headers.items()}

    def read(self, key: str) -> Array:
        """The array of that key, in float32 or wider."""
        with self._explained(), self._zip.open(self._members[key]) as member:
            array: Array = npy.read_array(member, allow_pickle=False)
            member.read(1)  # Reading past the data makes zipfile compare the checksum.
        if array.dtype == BFLOAT16:
            widened: Array = array.view(np.uint16).astype(np.uint32) << 16
            return widened.view(np.float32)
        return array.astype(np.promote_types(array.dtype, np.float32), copy=False)

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _header(self, name: str) -> Header:
        if not name.endswith(".npy"):
            raise CheckpointError(f"{self.path} holds {name!r}, which is not an array")
        with self._zip.open(name) as member:
            version = npy.read_magic(member)
            read: Any = (
                npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            )
            shape, _, dtype = read(member)
            size = self._zip.getinfo(name).file_size - member.tell()
        if dtype.hasobject:
            raise CheckpointError(
                f"{self.path}: {name} holds Python objects; expected an array of numbers"
            )
        if size < math.prod(shape) * dtype.itemsize:
            raise CheckpointError(
                f"{self.path} is damaged: {name} has {size} bytes of data, too few for shape "
                f"{shape} and type {dtype}; download or copy it again"
            )
        return Header(shape, dtype)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns the errors of zipfile and NumPy into a CheckpointError that says what to do."""
        try:
            yield
        except CheckpointError:
            raise
        except DAMAGED as error:
            raise CheckpointError(
                f"{self.path} is damaged, cut short, or not an .npz archive ({error}); "
                "expected one as numpy.savez writes it: download or copy it again"
            ) from None
