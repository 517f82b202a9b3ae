"""The one writer of `.npz` archives: the bytes that NumPy writes, in pieces or at once."""

import io
import zipfile
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy

from videoprism_mlx.files.npz import write_array, write_member

NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
ARRAYS = {
    "float32": NUMBERS,
    "float16": NUMBERS.astype(np.float16),
    "bfloat16 as NumPy knows it": NUMBERS.astype(np.float16).view("V2"),
    "whole numbers": np.arange(5),
    "texts": np.array(["b/second.mp4", "third é.mp4"]),
    "one text": np.array('{"version": "1.0"}'),
    "one number": np.float64(0.25),
    "nothing": np.zeros((0, 3), np.float32),
    "transposed": NUMBERS.T,
    "axes swapped": NUMBERS.swapaxes(0, 1),
    "every second": NUMBERS[:, :, ::2],
}


def by_numpy(array: Any) -> bytes:
    """The archive that NumPy's own writer gives."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        member = zipfile.ZipInfo("params/one.npy")
        with archive.open(member, "w", force_zip64=True) as file:
            npy.write_array(file, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ARRAYS)
def test_the_bytes_are_those_of_numpy(name: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        write_array(archive, "params/one", ARRAYS[name])
    assert buffer.getvalue() == by_numpy(ARRAYS[name])
    buffer.seek(0)
    with np.load(buffer) as loaded:
        np.testing.assert_array_equal(loaded["params/one"], ARRAYS[name])


def test_pieces_give_the_same_bytes() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        pieces = (NUMBERS[i : i + 1] for i in range(2))
        write_member(archive, "params/one", NUMBERS.dtype, NUMBERS.shape, pieces)
    assert buffer.getvalue() == by_numpy(NUMBERS)
