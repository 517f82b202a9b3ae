"""What distinguishes a file from other files, and from later versions of itself."""

import dataclasses
import hashlib
import os
from pathlib import Path

from videoprism_mlx.files.places import require_path


@dataclasses.dataclass(frozen=True)
class FileIdentity:
    """The path, size and modification time of a file. Reading them is fast."""

    path: str
    bytes: int
    modified: int  # Nanoseconds.

    @classmethod
    def of(cls, path: str | Path) -> "FileIdentity":
        """The identity of a file as it is now. Raises OSError if it does not exist."""
        require_path(path)
        status = os.stat(path)
        return cls(os.path.abspath(path), status.st_size, status.st_mtime_ns)


def sha256(path: Path) -> str:
    """The checksum of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
