"""A model directory: config.json, model.safetensors and, where there is text, the tokenizer."""

import errno
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from safetensors import SafetensorError, safe_open

from videoprism_mlx.atomic import new_directory

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "sentencepiece.model"

# How many offending parameters an error lists.
LISTED = 8

Shapes = Mapping[str, tuple[int, ...]]


class CheckpointError(ValueError):
    """A checkpoint or model directory that cannot be used as it is."""


def read_config(directory: Path) -> dict[str, Any]:
    """The config.json of a model directory."""
    path = Path(directory) / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{directory} is no model directory: it has no {CONFIG_FILE}; "
            "expected what `videoprism-mlx convert` writes"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds a {type(config).__name__}; expected an object")
    return config


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file, whose header and length are checked."""
    if not path.is_file():
        raise CheckpointError(f"{path.parent} has no {path.name}: the weights are missing")
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file ({error}); convert or download it again"
        ) from None


def parameter_problems(expected: Shapes, found: Shapes) -> list[str]:
    """What is missing, too many or of another shape, a line each."""
    missing = expected.keys() - found.keys()
    extra = found.keys() - expected.keys()
    return [
        *(f"missing: {name}, of shape {expected[name]}" for name in sorted(missing)),
        *(f"not of this model: {name}, of shape {found[name]}" for name in sorted(extra)),
        *(
            f"misshapen: {name} has shape {found[name]}, expected {shape}"
            for name, shape in expected.items()
            if name not in missing and found[name] != shape
        ),
    ]


def check_parameters(expected: Shapes, found: Shapes, where: object) -> None:
    """Every expected parameter is there in its shape, and no other is."""
    if problems := parameter_problems(expected, found):
        listed = "\n  ".join(problems[:LISTED])
        more = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise CheckpointError(
            f"{where} does not fit the model, {len(problems)} parameters are wrong:\n"
            f"  {listed}{more}"
        )


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's parameters, none of which need exist yet."""
    return {name: array.shape for name, array in tree_flatten(model.parameters())}


def load_weights(model: nn.Module, directory: Path, part: str = "") -> None:
    """Gives every parameter of `model` its stored value: those under `part`, all by default."""
    path = Path(directory) / WEIGHTS_FILE
    found = {
        name.removeprefix(part): shape
        for name, shape in stored_shapes(path).items()
        if name.startswith(part)
    }
    expected = parameter_shapes(model)
    check_parameters(expected, found, path)
    stored = mx.load(str(path))
    arrays = [(name, stored[part + name]) for name in expected]
    for name, array in arrays:
        if not mx.issubdtype(array.dtype, mx.floating):
            raise CheckpointError(f"{path}: {name} is of type {array.dtype}; expected floats")
    model.load_weights(arrays)


def save_model(
    model: nn.Module, directory: str | Path, tokenizer: str | Path | None = None
) -> None:
    """Writes a model that this package built or loaded to the new directory `directory`."""
    arrays = dict(tree_flatten(model.parameters()))
    write_directory(directory, model.config, arrays, tokenizer=tokenizer)


def write_directory(
    directory: str | Path,
    config: Mapping[str, Any],
    arrays: Mapping[str, mx.array],
    source: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
) -> None:
    """Writes a model directory: whole, or not at all."""
    with new_directory(directory) as partial:
        described = dict(config) | ({"source": dict(source)} if source else {})
        text = json.dumps(described, indent=2) + "\n"
        (partial / CONFIG_FILE).write_text(text, encoding="utf-8")
        try:
            mx.save_safetensors(str(partial / WEIGHTS_FILE), dict(arrays), {"format": "mlx"})
        except RuntimeError as error:
            free = shutil.disk_usage(partial).free
            raise OSError(
                errno.ENOSPC,
                f"could not write the weights ({error}), with {free / 1e6:.0f} MB left on the disk",
                str(directory),
            ) from None
        if tokenizer is not None:
            shutil.copyfile(tokenizer, partial / TOKENIZER_FILE)
