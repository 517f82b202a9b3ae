"""Reading `.npz` checkpoints: headers first, one array at a time, never a pickle."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.convert.rules import ROOT
from videoprism_mlx.errors import CheckpointError, NotFoundError
from videoprism_mlx.files.npz import NpzFile

Array = npt.NDArray[Any]

# NumPy has no bfloat16. It stores such a number as two bytes of unknown type.
BFLOAT16 = np.dtype("V2")

ADVICE = "expected one as numpy.savez writes it: download or copy it again"


class Archive:
    """An open checkpoint. `headers` describes its arrays before any data is read.

    All keys start with `params/`, even if those in the file do not.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        if not self.path.exists():
            raise NotFoundError(f"there is no checkpoint {self.path}")
        if self.path.is_dir():
            raise CheckpointError(f"{self.path} is a directory; expected an .npz file")
        self._file = NpzFile(self.path, CheckpointError, ADVICE)
        names = list(self._file.headers)
        root = "" if any(name.startswith(ROOT) for name in names) else ROOT
        self._names = {root + name: name for name in names}
        self.headers = {key: self._file.headers[name] for key, name in self._names.items()}
        self.shapes = {key: header.shape for key, header in self.headers.items()}

    def read(self, key: str) -> Array:
        """The array of that key, in float32 or wider."""
        array = self._file.read(self._names[key])
        if array.dtype == BFLOAT16:
            widened: Array = array.view(np.uint16).astype(np.uint32) << 16
            return widened.view(np.float32)
        return array.astype(np.promote_types(array.dtype, np.float32), copy=False)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
