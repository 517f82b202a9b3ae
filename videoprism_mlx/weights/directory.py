"""A model directory: config.json, model.safetensors and, where there is text, the tokenizer."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from safetensors import SafetensorError, safe_open

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import CheckpointError, InputTypeError
from videoprism_mlx.files.atomic import new_directory, new_file
from videoprism_mlx.tokenizers import TOKENIZER_FILE

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PROCESSOR_FILE = "processor.json"
LABELS_FILE = "labels.json"

# What a training says of itself beside the model.
RESULT_FILE = "metrics.json"

# Where a model waits until all of it is written.
STAGED_FOLDER = ".publishing"

# The types of a model's parameters, as a safetensors file calls them.
STORED_TYPES = ("F32", "BF16", "F16")

# How many offending parameters an error lists.
LISTED = 8

Shapes = Mapping[str, tuple[int, ...]]


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
    """Names and shapes in a safetensors file, whose header, types and length are checked."""
    if not path.is_file():
        raise CheckpointError(f"{path.parent} has no {path.name}: the weights are missing")
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in list(file.keys())}
            for name, stored in slices.items():
                if stored.get_dtype() not in STORED_TYPES:
                    raise CheckpointError(
                        f"{path}: {name} is of type {stored.get_dtype()}; "
                        f"expected one of {', '.join(STORED_TYPES)}"
                    )
            return {name: tuple(stored.get_shape()) for name, stored in slices.items()}
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
        wrong = "1 parameter is" if len(problems) == 1 else f"{len(problems)} parameters are"
        raise CheckpointError(f"{where} does not fit the model, {wrong} wrong:\n  {listed}{more}")


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's parameters, none of which need exist yet."""
    return {name: array.shape for name, array in tree_flatten(model.parameters())}


def check_weights(directory: Path, model: nn.Module) -> None:
    """That the weights in a directory are those of `model`: all of them, and no others."""
    path = Path(directory) / WEIGHTS_FILE
    check_parameters(parameter_shapes(model), stored_shapes(path), path)


def load_weights(model: nn.Module, directory: Path) -> None:
    """Gives every parameter of `model` its stored value, once all are known to be there."""
    check_weights(directory, model)
    model.load_weights(str(Path(directory) / WEIGHTS_FILE))


def save_model(
    model: nn.Module, directory: str | Path, tokenizer: str | Path | None = None
) -> None:
    """Writes a model that this package built or loaded to the new directory `directory`."""
    if not isinstance(model, VideoPrismModel) or not model.has_config:
        raise InputTypeError(
            f"a {type(model).__name__} without a configuration cannot be saved; "
            "expected a model from get_model or one of the load functions"
        )
    arrays = dict(tree_flatten(model.parameters()))
    write_directory(directory, model.config, arrays, tokenizer=tokenizer)


def write_directory(
    directory: str | Path,
    config: Mapping[str, Any],
    arrays: Mapping[str, mx.array],
    source: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
    copied: Iterable[Path] = (),
) -> None:
    """Writes a model directory, `copied` files with it: whole, or not at all."""
    with new_directory(directory) as partial:
        described = dict(config) | ({"source": dict(source)} if source else {})
        text = json.dumps(described, indent=2) + "\n"
        (partial / CONFIG_FILE).write_text(text, encoding="utf-8")
        write_arrays(partial / WEIGHTS_FILE, arrays, {"format": "mlx"})
        if tokenizer is not None:
            shutil.copyfile(tokenizer, partial / TOKENIZER_FILE)
        for file in copied:
            shutil.copyfile(file, partial / file.name)


def write_arrays(path: Path, arrays: Mapping[str, mx.array], metadata: Mapping[str, str]) -> None:
    """Writes a file that is called *.safetensors, the same bytes whatever the order of arrays."""
    try:
        mx.save_safetensors(str(path), dict(sorted(arrays.items())), dict(metadata))
    except RuntimeError as error:
        raise OSError(errno.ENOSPC, f"could not write the weights ({error})") from None


def publish(
    model: VideoPrismModel,
    directory: str | Path,
    files: Mapping[str, str],
    source: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
) -> None:
    """Makes `directory`, whatever else it holds, the model directory of `model`.

    `files` are texts by name, to put beside the weights. An earlier model is replaced. Nothing is
    touched before all is written; then config.json goes first and comes last, for a directory
    without it is no model.
    """
    directory = Path(directory)
    staged = directory / STAGED_FOLDER
    shutil.rmtree(staged, ignore_errors=True)  # A killed run may have left it.
    arrays = dict(tree_flatten(model.parameters()))
    write_directory(staged, model.config, arrays, source, tokenizer)
    for name, text in files.items():
        with new_file(staged / name) as partial:
            partial.write_text(text, encoding="utf-8")
    (directory / CONFIG_FILE).unlink(missing_ok=True)
    for path in sorted(staged.iterdir(), key=lambda path: path.name == CONFIG_FILE):
        os.replace(path, directory / path.name)
    staged.rmdir()
