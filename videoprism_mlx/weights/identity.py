"""What distinguishes a model from others: its class, its weights, its adapters and its type."""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.runtime import precision
from videoprism_mlx.weights.adapters import ADAPTERS_FILE
from videoprism_mlx.weights.directory import WEIGHTS_FILE


@dataclasses.dataclass(frozen=True)
class ModelIdentity:
    """Says which model something was made with. A record contains the fields that it needs.

    `weights` and `adapters` are checksums of files. `parameters` is the checksum of the arrays in
    memory, which depends on adapters and type as well. Each is computed on its first use.
    """

    model: VideoPrismModel
    directory: Path | None = None
    name: str | None = None
    adapters_directory: Path | None = None

    @functools.cached_property
    def weights(self) -> str | None:
        """The checksum of the file that the weights were read from."""
        directory = self.directory or self.model.directory
        return None if directory is None else sha256(directory / WEIGHTS_FILE)

    @functools.cached_property
    def adapters(self) -> str | None:
        """The checksum of the adapters' file; None without adapters."""
        folder = self.adapters_directory
        return None if folder is None else sha256(folder / ADAPTERS_FILE)

    @functools.cached_property
    def parameters(self) -> str:
        """The checksum of the parameters as they are in memory."""
        return checksum(self.model.parameters())

    @property
    def dtype(self) -> str:
        """The type that the model computes in."""
        return str(self.model.dtype).removeprefix("mlx.core.")

    @property
    def precision(self) -> str:
        """The precision of float32 matrix products, on this device and in this process."""
        return precision.in_force()

    def record(self, *fields: str) -> dict[str, Any]:
        """The named fields, for a record. `class` is the name of the model's class."""
        return {
            field: type(self.model).__name__ if field == "class" else getattr(self, field)
            for field in fields
        }


def checksum(parameters: object) -> str:
    """The checksum of nested parameters with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, array in sorted(cast(list[tuple[str, mx.array]], tree_flatten(parameters))):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        # NumPy has no bfloat16.
        bits = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
        digest.update(np.ascontiguousarray(np.asarray(bits)).data)
    return digest.hexdigest()
