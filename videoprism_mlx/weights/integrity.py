"""Whether weights are those that were written: their checksum, and no NaN or infinity among them.

config.json holds the checksum of the weights under "weights_sha256". Directories of earlier
versions lack it.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import CheckpointError, InputError, excerpt, shown
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.identity import FileIdentity, sha256
from videoprism_mlx.files.places import cache_directory
from videoprism_mlx.files.reading import open_regular, parse_json, read_json
from videoprism_mlx.files.record import as_json
from videoprism_mlx.progress import bar

CHECKSUM_KEY = "weights_sha256"

# The result for a file of this size or more is remembered. Smaller ones take milliseconds.
REMEMBERED_BYTES = 2**24

CHUNK_BYTES = 2**23

# For each type of parameters: how it is read, and the bits of the exponent if NumPy lacks the type.
_STORED: dict[str, tuple[str, int | None]] = {
    "F32": ("<f4", None),
    "F16": ("<f2", None),
    "BF16": ("<u2", 0x7F80),
    "U32": ("<u4", None),  # Quantized weights, and below their scales, of which 255 is NaN.
    "U8": ("u1", 0xFF),
}


def require_intact(path: Path, described: Mapping[str, Any]) -> None:
    """Raises CheckpointError unless the weights at `path` are finite and have their checksum.

    `described` is the JSON object that may hold it. A large file is only read if it has changed
    since the last time.
    """
    expected = described.get(CHECKSUM_KEY)
    if is_remembered(path, expected):
        return
    verify(path, expected)


def verify(path: Path, expected: object) -> str:
    """The checksum of the weights. Raises CheckpointError unless they are finite and have it."""
    identity = FileIdentity.of(path)  # From before: the file may change while it is read.
    found = examine(path)
    if expected not in (None, found):
        raise CheckpointError(
            f"{path} or the JSON file beside it is damaged or has been changed: the SHA-256 is "
            f"{found}, and {CHECKSUM_KEY} in the JSON file is {shown(expected, 70)}. Copy, "
            f"download or convert them again; if the change is yours, remove {CHECKSUM_KEY}"
        )
    remember(identity, found)
    return found


def examine(path: Path) -> str:
    """The checksum of a safetensors file. Raises CheckpointError if it holds NaN or infinity."""
    with ThreadPoolExecutor(1) as background:
        checksum = background.submit(sha256, path)
        total = sum(1 for _ in stored_arrays(path))
        is_large = os.path.getsize(path) >= REMEMBERED_BYTES
        arrays = stored_arrays(path)
        for name, kind, pieces in bar(
            arrays, "checking weights", "array", total=total, show=is_large
        ):
            if not all(is_finite(kind, piece) for piece in pieces):
                raise CheckpointError(f"{path}: {excerpt(name)} holds NaN or infinite values")
        return checksum.result()


def stored_arrays(path: Path) -> Iterator[tuple[str, str, Iterator[npt.NDArray[Any]]]]:
    """The name, type and pieces of each array in a safetensors file, in the order of the file."""
    with open_regular(path, CheckpointError) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > os.fstat(file.fileno()).st_size:
            raise CheckpointError(f"{path} is damaged or not a safetensors file")
        text = file.read(length).decode("utf-8", "replace")
        header = parse_json(text, f"the header of {path}", CheckpointError)
        described = [(name, each) for name, each in header.items() if name != "__metadata__"]
        for name, each in sorted(described, key=lambda one: one[1]["data_offsets"]):
            start, end = each["data_offsets"]
            file.seek(8 + length + start)
            yield name, each["dtype"], _pieces(file, end - start, _STORED[each["dtype"]][0])


def _pieces(file: Any, size: int, dtype: str) -> Iterator[npt.NDArray[Any]]:
    while size > 0 and (data := file.read(min(size, CHUNK_BYTES))):
        size -= len(data)
        yield np.frombuffer(data, dtype)


def is_finite(kind: str, numbers: npt.NDArray[Any]) -> bool:
    """Whether no number is NaN or infinite. `kind` is the stored type."""
    exponent = _STORED[kind][1]
    if exponent is None:
        return bool(np.isfinite(numbers).all())
    return bool(((numbers & exponent) != exponent).all())


def remember(identity: FileIdentity, checksum: str) -> None:
    """Notes in the cache that this version of a file is intact, if reading it takes long."""
    with suppress(OSError):  # The cache may be read-only or full: then it is read again.
        if identity.bytes >= REMEMBERED_BYTES:
            with new_file(_note(identity), replace=True) as partial:
                noted = {**dataclasses.asdict(identity), "sha256": checksum}
                partial.write_text(as_json(noted) + "\n", encoding="utf-8")


def is_remembered(path: Path, expected: object) -> bool:
    """Whether this version of a file is known to be intact and to have the expected checksum."""
    found = _noted(FileIdentity.of(path))
    return found is not None and expected in (None, found)


def known_checksum(path: Path) -> str:
    """The checksum of weights. A large file is only read if it has changed since the last time."""
    return _noted(FileIdentity.of(path)) or verify(path, None)


def _noted(identity: FileIdentity) -> str | None:
    """The checksum that is remembered of this version of a file."""
    if identity.bytes < REMEMBERED_BYTES:
        return None
    try:
        noted = read_json(_note(identity))
    except (OSError, InputError):
        return None
    if not isinstance(noted, dict) or not isinstance(noted.get("sha256"), str):
        return None
    same = all(noted.get(key) == value for key, value in dataclasses.asdict(identity).items())
    return str(noted["sha256"]) if same else None


def _note(identity: FileIdentity) -> Path:
    name = hashlib.sha256(identity.path.encode(errors="surrogateescape")).hexdigest()[:32]
    return cache_directory() / "checked" / f"{name}.json"
