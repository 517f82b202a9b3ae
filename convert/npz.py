"""Reading and writing `.npz` archives: headers first, one array at a time, never a pickle."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from videoprism_mlx.convert.rules import ROOT
from videoprism_mlx.errors import CheckpointError

# NumPy knows no bfloat16: it writes one as two bytes of nothing in particular.
BFLOAT16 = np.dtype("V2")


class Header(NamedTuple):
    """What an array's header says."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Archive:
    """An open `.npz` file. `headers` says what is in it before any data is read.

    Keys begin with `params/`, also where the file leaves that out.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"there is no checkpoint {self.path}")
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

    def read(self, key: str) -> np.ndarray:
        """The array of that name, in float32 at least."""
        with self._explained(), self._zip.open(self._members[key]) as member:
            array = npy.read_array(member, allow_pickle=False)
            member.read(1)  # To the end, where the checksum is compared.
        if array.dtype == BFLOAT16:
            return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        return array.astype(np.promote_types(array.dtype, np.float32), copy=False)

    def close(self) -> None:
        self._zip.close()

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _header(self, name: str) -> Header:
        if not name.endswith(".npy"):
            raise CheckpointError(f"{self.path} holds {name!r}, which is no array")
        with self._zip.open(name) as member:
            version = npy.read_magic(member)
            if version == (1, 0):
                shape, _, dtype = npy.read_array_header_1_0(member)
            else:
                shape, _, dtype = npy.read_array_header_2_0(member)
        if dtype.hasobject:
            raise CheckpointError(f"{self.path}: {name} holds Python objects, which are not read")
        return Header(shape, dtype)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        except (zipfile.BadZipFile, ValueError, EOFError, KeyError, NotImplementedError) as error:
            raise CheckpointError(
                f"{self.path} is damaged, cut short, or not an .npz archive ({error}); "
                "expected one as numpy.savez writes it: download or copy it again"
            ) from None


def write_array(archive: zipfile.ZipFile, key: str, array: np.ndarray) -> None:
    """Adds one array to an `.npz` that is being written."""
    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
        npy.write_array(member, np.asanyarray(array), allow_pickle=False)
