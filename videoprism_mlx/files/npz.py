"""Reading and writing `.npz` archives, one array at a time.

An archive to write is a `zipfile.ZipFile` that the caller has opened with "w", which does not
compress. The same arrays give the same bytes. An archive to read is a `NpzFile`.
"""

import errno
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from videoprism_mlx.errors import InputError, counted, excerpt, shown
from videoprism_mlx.files.npy import Header, read_header
from videoprism_mlx.files.reading import open_regular

Array = npt.NDArray[Any]

# The ways in which NumPy compresses arrays, and the flag of a member that needs a password.
METHODS, ENCRYPTED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), 1

# An archive may claim to hold so many times its own size, or so many bytes. Features compress to
# half of their size.
MOST_EXPANSION, SMALL_BYTES = 100, 2**28

CHUNK_BYTES = 2**20

# Where the header in front of a member says how long its name is, and what follows the name.
LOCAL_LENGTHS = 26

# What the end of an archive begins with, how long it can be, and the count of 65,535 and more.
END_OF_ARCHIVE, LONGEST_END, MANY_MEMBERS = b"PK\5\6", 2**16 + 22, 2**16 - 1

# What zipfile raises for damaged archives.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)


class NpzFile:
    """An open `.npz` file. `headers` describes its arrays before any data is read.

    All errors about damage are of the type `error`, name the file and end with `advice`.
    """

    def __init__(self, path: Path, error: type[InputError], advice: str):
        self.path, self._error, self._advice = path, error, advice
        self._file = open_regular(path, error)
        try:
            with self._explained():
                self._zip = zipfile.ZipFile(self._file)
                self._members = self._sized_members()
            self.headers = {name: self._header(name) for name in self._members}
        except BaseException:
            self._file.close()
            raise

    def read(self, name: str) -> Array:
        """The array of that name."""
        header, member = self.headers[name], self._members[name]
        with self._explained(name):
            data = np.empty(header.data_bytes, np.uint8)
            if member.compress_type == zipfile.ZIP_STORED:
                self._read_stored(member, header, data)
            else:
                self._read_compressed(member, header, data)
        return header.array(data)

    def _read_stored(
        self, member: zipfile.ZipInfo, header: Header, data: npt.NDArray[np.uint8]
    ) -> None:
        """Reads the data straight into its place, and compares the checksum."""
        self._file.seek(member.header_offset + LOCAL_LENGTHS)
        name_and_extra = sum(struct.unpack("<2H", self._file.read(4)))
        self._file.seek(name_and_extra, os.SEEK_CUR)
        checksum = zlib.crc32(self._file.read(header.length))
        if self._file.readinto(data.data) != len(data):
            raise ValueError("it ends too early")
        if zlib.crc32(data.data, checksum) != member.CRC:
            raise ValueError("its checksum (CRC) is wrong")

    def _read_compressed(
        self, member: zipfile.ZipInfo, header: Header, data: npt.NDArray[np.uint8]
    ) -> None:
        """Reads the data in pieces. zipfile compares the checksum."""
        with self._zip.open(member) as opened:
            opened.read(header.length)
            rest, view = len(data), data.data
            # The last piece, which has no data, makes zipfile compare the checksum.
            while piece := opened.read(CHUNK_BYTES):
                start = len(data) - rest
                view[start : start + len(piece)] = piece
                rest -= len(piece)
            if rest:
                raise ValueError(f"it ends {counted(rest, 'byte')} too early")

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()
        self._file.close()

    def __enter__(self) -> "NpzFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _sized_members(self) -> dict[str, zipfile.ZipInfo]:
        """The members by the names of their arrays, once their sizes are plausible."""
        members = self._zip.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        if len(set(names)) != len(names):
            raise self._error(f"{self.path} holds several arrays of the same name")
        size = os.fstat(self._file.fileno()).st_size
        if self._counted(size) not in (len(members), MANY_MEMBERS):
            raise ValueError("its list of members is damaged")
        stored = sum(member.compress_size for member in members)
        claimed = sum(member.file_size for member in members)
        if stored > size:
            raise ValueError(f"its members have {stored:,} bytes, more than the file's {size:,}")
        if claimed > max(MOST_EXPANSION * size, SMALL_BYTES):
            raise ValueError(
                f"its {counted(size, 'byte')} claim to hold {claimed:,}; expected at most "
                f"{MOST_EXPANSION} times as many"
            )
        return dict(zip(names, members, strict=True))

    def _counted(self, size: int) -> int:
        """How many members the end of the archive counts, which zipfile does not compare."""
        self._file.seek(max(0, size - LONGEST_END))
        _, _, end = self._file.read().rpartition(END_OF_ARCHIVE)
        return int.from_bytes(end[6:8], "little")

    def _header(self, name: str) -> Header:
        member = self._members[name]
        if not member.filename.endswith(".npy"):
            raise self._error(f"{self.path} holds {shown(member.filename)}, which is not an array")
        with self._explained(name):
            if member.flag_bits & ENCRYPTED:
                raise ValueError("it is encrypted")
            if member.compress_type not in METHODS:
                raise ValueError("it is compressed in a way that NumPy does not use")
            if member.compress_type == METHODS[0] and member.compress_size != member.file_size:
                raise ValueError("its two sizes differ")
            with self._zip.open(member) as opened:
                header = read_header(opened)
        size = member.file_size - header.length
        if size != header.data_bytes:
            much = "few" if size < header.data_bytes else "many"
            raise self._error(
                f"{self.path} is damaged: {excerpt(member.filename)} has "
                f"{counted(size, 'byte')} of data, "
                f"too {much} for shape {shown(header.shape)} and type {header.dtype}; "
                f"{self._advice}"
            )
        return header

    @contextmanager
    def _explained(self, name: str | None = None) -> Iterator[None]:
        """Turns the errors of zipfile and of `read_header` into those that the caller expects."""
        about = "" if name is None else f"{excerpt(name)}: "
        try:
            yield
        except self._error:
            raise
        except OSError as error:
            # Damage may send zipfile to a place before the beginning of the file.
            if error.errno != errno.EINVAL:
                raise OSError(error.errno, error.strerror, str(self.path)) from None
            raise self._damaged(about, "it refers to a place outside the file") from None
        except DAMAGED as error:
            raise self._damaged(about, error) from None

    def _damaged(self, about: str, what: object) -> InputError:
        return self._error(
            f"{self.path} is damaged, cut short, or not an .npz archive "
            f"({about}{excerpt(what)}); {self._advice}"
        )


def write_array(archive: zipfile.ZipFile, name: str, array: npt.ArrayLike) -> None:
    """Adds an array, as `numpy.savez` would."""
    whole = np.asanyarray(array)
    transposed = whole.flags.f_contiguous and not whole.flags.c_contiguous
    pieces = [whole.T if transposed else whole]
    write_member(archive, name, whole.dtype, whole.shape, pieces, fortran_order=transposed)


def write_member(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    pieces: Iterable[Array],
    *,
    fortran_order: bool = False,
) -> None:
    """Adds an array that comes in pieces, which need not be in memory together.

    The pieces follow each other along the first axis or, with `fortran_order`, along the last one
    and are transposed.
    """
    header = {
        "descr": npy.dtype_to_descr(dtype),
        "fortran_order": fortran_order,
        "shape": shape,
    }
    # Without a ZipInfo of its own, a member might be given the time of now.
    member = zipfile.ZipInfo(f"{name}.npy")
    with archive.open(member, "w", force_zip64=True) as file:
        npy.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)
