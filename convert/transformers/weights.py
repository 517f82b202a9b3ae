"""The weights of a model of Transformers: one safetensors file, or several and their index."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from videoprism_mlx.encoders import PositionalEmbedding
from videoprism_mlx.errors import CheckpointError, counted, excerpt, shown
from videoprism_mlx.files.reading import read_json_object
from videoprism_mlx.weights.directory import WEIGHTS_FILE, read_arrays, read_header
from videoprism_mlx.weights.quantize.settings import FLOATS

INDEX_FILE = "model.safetensors.index.json"
SHARDS = "model-*-of-*.safetensors"

# What Transformers stores of the text encoder beside its parameters.
POSITION_TABLE, POSITION_IDS = "embeddings.position_embedding", "embeddings.position_ids"

# How far equal tables of sinusoids may be apart for each position, by rounding in float32.
ROUNDING = 1e-5


class Weights:
    """The tensors of a model of Transformers: `shapes` by name, read from the headers."""

    def __init__(self, directory: Path):
        self.directory = Path(directory)
        self.path = self.directory / WEIGHTS_FILE
        self._places = self._find()
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in self.files:
            self.shapes |= self._read_header(path)

    @property
    def files(self) -> list[Path]:
        """The files of the weights."""
        return sorted(set(self._places.values())) or [self.path]

    def arrays(self) -> dict[str, mx.array]:
        """All tensors by name. MLX reads each when it is used."""
        return {name: array for path in self.files for name, array in read_arrays(path).items()}

    def _find(self) -> dict[str, Path]:
        """The file of each tensor that the index names; empty without an index."""
        index = self.directory / INDEX_FILE
        if self.path.is_file():
            return {}
        if not index.is_file():
            kinds = ("pytorch_model*.bin", "*.h5", "*.msgpack")
            others = sorted(path.name for kind in kinds for path in self.directory.glob(kind))
            held = f"; {others[0]} is not read" if others else ""
            raise CheckpointError(
                f"{self.directory} has neither {WEIGHTS_FILE} nor {INDEX_FILE}{held}: load the "
                "model in Transformers and write it with save_pretrained"
            )
        self.path = index
        places = read_json_object(index, CheckpointError).get("weight_map")
        if not isinstance(places, Mapping) or not places:
            raise CheckpointError(f"{index} has no weight_map; download it again")
        for name, file in places.items():
            if not isinstance(file, str) or not re.fullmatch(r"[\w.-]{1,100}\.safetensors", file):
                raise CheckpointError(
                    f"{index}: {excerpt(name)} is in {shown(file)}; "
                    "expected the name of a safetensors file beside it"
                )
        files = sorted({self.directory / file for file in places.values()})
        if missing := [path.name for path in files if not path.is_file()]:
            raise CheckpointError(
                f"{self.directory} lacks {len(missing)} of the {len(files)} files of its weights, "
                f"such as {missing[0]}; download it again"
            )
        return {name: self.directory / file for name, file in places.items()}

    def _read_header(self, path: Path) -> dict[str, tuple[int, ...]]:
        """Names and shapes in one file. Raises CheckpointError if it is not as the index says."""
        header = read_header(path, "copy or download it again")
        for name, (kind, _) in header.items():
            if kind not in FLOATS and not (kind == "I64" and name.endswith(POSITION_IDS)):
                raise CheckpointError(
                    f"{path}: {excerpt(name)} is of type {kind}; "
                    f"expected one of {', '.join(FLOATS)}"
                )
        if self._places:
            expected = {name for name, place in self._places.items() if place == path}
            if wrong := sorted(expected ^ header.keys()):
                is_missing = wrong[0] in expected
                raise CheckpointError(
                    f"{path} and {INDEX_FILE} do not fit, {counted(len(wrong), 'tensor')} wrong: "
                    f"{excerpt(wrong[0])} is {'only in the index' if is_missing else 'not in it'}; "
                    "download both again"
                )
        return {name: shape for name, (_, shape) in header.items()}


def finite(array: mx.array, name: str, where: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """An array in float32. Raises CheckpointError if it holds NaN or infinity."""
    values = np.array(array.astype(mx.float32))
    if not np.isfinite(values).all():
        raise CheckpointError(f"{where}: {excerpt(name)} holds NaN or infinite values")
    return values


def buffer_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of what Transformers stores of a model beside its parameters."""
    start = {"TextEncoder": "", "FactorizedVideoCLIP": "text_model."}.get(config["model"])
    return () if start is None else (start + POSITION_TABLE, start + POSITION_IDS)


def buffers(config: Mapping[str, Any], max_length: int) -> Iterator[tuple[str, mx.array]]:
    """What Transformers stores of a model beside its parameters, with the official positions."""
    names = buffer_names(config)
    if names:
        yield names[0], PositionalEmbedding(config["model_dim"])(max_length)[0]
        yield names[1], mx.arange(max_length, dtype=mx.int64)[None]


def departs(table: mx.array, where: object) -> bool:
    """Whether a table of positions (L, D) is the one that Transformers makes, not the official one.

    Raises CheckpointError if it is neither.
    """
    length, width = table.shape
    # The official frequencies go down to 1 / 10,000, Transformers' to 10,000^(2 / D - 1).
    count = width // 2
    angles = np.arange(length)[:, None] * 1e4 ** (-np.arange(count) / max(count, 1))
    theirs = np.concatenate([np.sin(angles), np.cos(angles)], -1)
    official = np.array(PositionalEmbedding(width)(length)[0])[:, : 2 * count]
    stored = finite(table, POSITION_TABLE, Path(str(where)))[:, : 2 * count]
    apart = [float(np.abs(stored - one).max(initial=0)) for one in (official, theirs)]
    rounding = 0 if table.dtype == mx.float32 else 2**-8
    if min(apart) > ROUNDING * length + rounding:
        raise CheckpointError(
            f"{where}: {POSITION_TABLE} is not the table of sinusoids that VideoPrism has"
        )
    return apart[1] < apart[0]
