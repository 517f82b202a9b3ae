"""The header of an array in a `.npy` file, or in a member of an `.npz`, read without trust.

NumPy's own reader gives the header to Python's parser, which damage makes fail in many ways.
"""

import math
import re
import struct
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import InputError, counted, shown
from videoprism_mlx.files.reading import open_regular

MAGIC = b"\x93NUMPY"

# The length of a header is written in two bytes, from version 2 on in four.
LENGTHS = {1: "<H", 2: "<I", 3: "<I"}

# NumPy refuses longer headers, and more axes. Larger arrays than these do not exist.
MOST_HEADER_BYTES, MOST_AXES, MOST_ELEMENTS = 10_000, 32, 2**47

ITEM = re.compile(r"\s*'(descr|fortran_order|shape)'\s*:\s*('[^']*'|True|False|\([\dL,\s]*\))\s*")
AXIS = re.compile(r"(\d{1,16})L?")

# Floats, whole numbers, booleans, text, and bfloat16, which NumPy stores as two unknown bytes.
TYPES = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1|U\d{1,9}|V2)")


class Member(Protocol):
    """What an array is read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes."""


class Header(NamedTuple):
    """The header of an array, and how many bytes it takes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    length: int

    @property
    def data_bytes(self) -> int:
        """How many bytes the array takes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, data: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """The array whose bytes are `data`."""
        flat = data.view(self.dtype) if self.dtype.itemsize else np.empty(0, self.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran_order else "C")


def read_header(file: Member) -> Header:
    """The header at the beginning of `file`. Raises ValueError if it is not one."""
    start = _exactly(file, len(MAGIC) + 2)
    if not start.startswith(MAGIC) or start[-2] not in LENGTHS or start[-1] != 0:
        raise ValueError(f"it begins with {start!r}, which is no array of NumPy")
    size = LENGTHS[start[-2]]
    digits = _exactly(file, struct.calcsize(size))
    (length,) = struct.unpack(size, digits)
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"its header says that it is {length:,} bytes long")
    fields = _fields(_exactly(file, length).decode("latin-1"))
    shape = _shape(fields["shape"])
    dtype = _dtype(fields["descr"].strip("'"), shape)
    return Header(
        shape, dtype, fields["fortran_order"] == "True", len(start) + len(digits) + length
    )


def map_array(path: Path, error: type[InputError], advice: str) -> npt.NDArray[Any]:
    """The array in a `.npy` file, memory-mapped. Raises `error` if the file is damaged."""
    with open_regular(path, error) as file:
        try:
            header = read_header(file)
            size = path.stat().st_size - header.length
            if size != header.data_bytes:
                raise ValueError(
                    f"it has {counted(size, 'byte')} of data, not {header.data_bytes:,}"
                )
        except ValueError as wrong:
            raise error(f"{path} is damaged ({wrong}); {advice}") from None
        data = np.empty(0, np.uint8)
        if size:
            data = np.memmap(file, np.uint8, "r", header.length, (size,))
        return header.array(data)


def _exactly(file: Member, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ValueError("its header is cut short")
    return data


def _fields(text: str) -> dict[str, str]:
    """The three fields of a header, as text."""
    fields: dict[str, str] = {}
    inside = re.fullmatch(r"\s*\{(.*)\}\s*", text, re.DOTALL)
    rest = inside.group(1) if inside else ""
    while found := ITEM.match(rest):
        if found.group(1) in fields:
            break
        fields[found.group(1)] = found.group(2)
        rest = rest[found.end() :]
        if not rest.startswith(","):
            break
        rest = rest[1:]
    if len(fields) == 3 and not rest.strip():
        quoted = [name for name, value in fields.items() if value.startswith("'")]
        logical = fields["fortran_order"] in ("True", "False")
        if quoted == ["descr"] and logical and fields["shape"].startswith("("):
            return fields
    if re.search(r"'descr'\s*:\s*'\|?O'", text):
        raise ValueError("it holds Python objects; expected an array of numbers")
    raise ValueError(f"its header is {shown(text.strip())}")


def _shape(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text[1:-1].split(",")]
    if parts[-1] == "":  # After the last comma.
        del parts[-1]
    axes = [AXIS.fullmatch(part) for part in parts]
    shape = tuple(int(axis.group(1)) for axis in axes if axis)
    is_tuple = len(parts) != 1 or "," in text
    if len(shape) != len(parts) or not is_tuple or len(shape) > MOST_AXES:
        raise ValueError(f"its shape is {shown(text)}")
    if math.prod(max(axis, 1) for axis in shape) > MOST_ELEMENTS:
        raise ValueError(f"its shape is {shown(text)}, which is too large")
    return shape


def _dtype(name: str, shape: tuple[int, ...]) -> np.dtype[Any]:
    if name in ("O", "|O"):
        raise ValueError("it holds Python objects; expected an array of numbers")
    if not TYPES.fullmatch(name):
        raise ValueError(f"its type is {shown(name)}; expected numbers or text")
    dtype = np.dtype(name)
    if math.prod(max(axis, 1) for axis in shape) * dtype.itemsize > MOST_ELEMENTS:
        raise ValueError(f"its type is {shown(name)}, which is too large")
    return dtype
