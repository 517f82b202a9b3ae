"""What tells a file from another one, and from its own later version."""

import dataclasses
import hashlib
import os
from pathlib import Path

from videoprism_mlx.errors import InputError


@dataclasses.dataclass(frozen=True)
class FileIdentity:
    """The path, size and time of change of a file: they cost one stat."""

    path: str
    bytes: int
    modified: int  # Nanoseconds.

    @classmethod
    def of(cls, path: str | Path) -> "FileIdentity":
        """That of the file as it is now. OSError if there is none."""
        if "\0" in str(path):
            raise InputError(f"{str(path)!r} is no path: it holds a null character")
        status = os.stat(path)
        return cls(os.path.abspath(path), status.st_size, status.st_mtime_ns)


def sha256(path: Path) -> str:
    """The checksum of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
