"""Writing `.npz` archives, one array at a time. The same arrays give the same bytes.

An archive is a `zipfile.ZipFile` that the caller has opened with "w", which does not compress.
"""

import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

Array = npt.NDArray[Any]


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
