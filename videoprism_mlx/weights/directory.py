"""The format of a model directory: how its files are named, read, checked and written.

config.json          the configuration, the checksum of the weights, under "quantization" how they
                     are quantized, and under "source" where they come from. It, processor.json and
                     labels.json hold a checksum of their own
model.safetensors    the parameters, by their names in the model
sentencepiece.model  the tokenizer, for a video-text model
processor.json       how videos and texts are preprocessed, if not as the configuration implies
labels.json          the names of the classes, for a classifier
words.txt            the words that a small model was trained on; it warns of others
"""

import errno
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from safetensors import SafetensorError, safe_open

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import (
    CheckpointError,
    InputError,
    InputTypeError,
    are,
    counted,
    excerpt,
    printable,
    shown,
)
from videoprism_mlx.files.atomic import (
    flush,
    new_directory,
    new_file,
    replaced_directory,
    require_new_directory,
)
from videoprism_mlx.files.checksum import require_checksum, with_checksum
from videoprism_mlx.files.identity import FileIdentity
from videoprism_mlx.files.output import require_own
from videoprism_mlx.files.reading import read_json_object
from videoprism_mlx.files.record import as_json
from videoprism_mlx.models import checked_config
from videoprism_mlx.tokenizers import TOKENIZER_FILE, WORDS_FILE
from videoprism_mlx.weights.integrity import (
    CHECKSUM_KEY,
    examine,
    remember,
    require_intact,
    verify,
)
from videoprism_mlx.weights.outline import Shapes, outline
from videoprism_mlx.weights.quantize.layers import stored_config
from videoprism_mlx.weights.quantize.settings import (
    KEY,
    Packings,
    expected_types,
    packed_shapes,
    parse,
)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PROCESSOR_FILE = "processor.json"
LABELS_FILE = "labels.json"
MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, PROCESSOR_FILE, LABELS_FILE, WORDS_FILE)

# The results that training writes beside a model.
RESULT_FILE = "metrics.json"

# The folder inside a model directory in which `publish` prepares the files.
STAGED_FOLDER = ".publishing"

# The metadata of a safetensors file that MLX's tools expect.
MLX_FORMAT = {"format": "mlx"}

# How many wrong parameters an error lists.
LISTED = 2

Arrays = Mapping[str, mx.array]


def read_config(directory: Path) -> dict[str, Any]:
    """The content of a model directory's config.json."""
    path = Path(directory) / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{directory} is not a model directory: it has no {CONFIG_FILE}; "
            "expected a directory that `videoprism-mlx convert` has written"
        )
    return read_json_object(path, CheckpointError)


def stored_shapes(path: Path, packings: Packings | None = None) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file. Raises CheckpointError if the file is damaged.

    `packings` says which layers are quantized. The types must be those that it implies.
    """
    if not path.is_file():
        raise CheckpointError(f"{path.parent} has no {path.name}: the weights are missing")
    header = read_header(path, "convert or download it again")
    require_scales(path, header, packings)
    for name, (kind, _) in header.items():
        expected = expected_types(name, packings)
        if kind not in expected:
            raise CheckpointError(
                f"{path}: {excerpt(name)} is of type {kind}; "
                f"expected {'one of ' * (len(expected) > 1)}{', '.join(expected)}"
            )
    return {name: shape for name, (_, shape) in header.items()}


def read_header(path: Path, advice: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The type and shape of each array in a safetensors file, by name.

    Raises CheckpointError, which ends with `advice`, if the file is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in list(file.keys())}
            return {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file ({excerpt(error)}); {advice}"
        ) from None


def require_scales(path: Path, names: Iterable[str], packings: Packings | None) -> None:
    """Raises CheckpointError unless the layers that have scales are those in `packings`."""
    found = {name.removesuffix(".scales") for name in names if name.endswith(".scales")}
    expected = {layer for layer, each in (packings or {}).items() if each is not None}
    if packings is None and found:
        raise CheckpointError(
            f"{path} holds quantized weights, such as {excerpt(min(found))}, and {CONFIG_FILE} "
            f'beside it has no "{KEY}"; copy both files again from where they were made'
        )
    if missing := expected - found:
        raise CheckpointError(
            f'{path} has no scales for {excerpt(min(missing))}: "{KEY}" in {CONFIG_FILE} says that '
            f"{counted(len(expected), 'layer')} {are(len(expected))} quantized, and "
            f"{len(expected) - len(missing):,} {are(len(expected) - len(missing))}. Copy both "
            f'files again or, if the weights are not quantized, remove "{KEY}"'
        )


def wrong_parameters(expected: Shapes, found: Shapes) -> list[str]:
    """The names of those that are missing, unknown or of another shape."""
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    misshapen = (name for name in expected if found.get(name, expected[name]) != expected[name])
    return [*sorted(missing), *sorted(extra), *misshapen]


def problem(name: str, expected: Shapes, found: Shapes) -> str:
    """What is wrong with a parameter."""
    if name not in found:
        return f"missing: {excerpt(name)}, of shape {expected[name]}"
    if name not in expected:
        return f"not of this model: {excerpt(name)}, of shape {shown(found[name])}"
    return f"misshapen: {excerpt(name)} has shape {shown(found[name])}, expected {expected[name]}"


def check_parameters(expected: Shapes, found: Shapes, where: object) -> None:
    """Raises CheckpointError unless the expected parameters are found, and no others."""
    if wrong_parameters(expected, found):
        raise CheckpointError(misfit(expected, found, where))


def misfit(expected: Shapes, found: Shapes, where: object) -> str:
    """The error message about parameters that do not fit."""
    wrong = wrong_parameters(expected, found)
    listed = "; ".join(problem(name, expected, found) for name in wrong[:LISTED])
    more = f"; and {len(wrong) - LISTED:,} more" if len(wrong) > LISTED else ""
    count = f"{counted(len(wrong), 'parameter')} {are(len(wrong))}"
    return f"{where} does not fit the model, {count} wrong: {listed}{more}"


def named_parameters(model: nn.Module) -> dict[str, mx.array]:
    """A model's parameters by name."""
    return dict(cast(list[tuple[str, mx.array]], tree_flatten(model.parameters())))


def read_checked_config(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The checked configuration of a model directory, and all that its config.json holds."""
    described = read_config(directory)
    try:
        config = checked_config(described)
    except InputError as error:
        raise CheckpointError(f"{directory / CONFIG_FILE}: {error}") from None
    require_checksum(described, Path(directory) / CONFIG_FILE, CheckpointError)
    return config, described


def check_shapes(
    directory: Path, config: Mapping[str, Any], described: Mapping[str, Any]
) -> Packings | None:
    """Raises CheckpointError unless a directory holds the parameters that its config.json means.

    `config` is its checked configuration, and `described` all that it holds. It reads the header of
    the weights and builds no layers, so it takes a moment. Returns how the layers are quantized;
    None if no layer is.
    """
    path = Path(directory) / WEIGHTS_FILE
    shapes, packings = described_shapes(directory, config, described)
    check_parameters(packed_shapes(shapes, packings), stored_shapes(path, packings), path)
    return packings


def described_shapes(
    directory: Path, config: Mapping[str, Any], described: Mapping[str, Any]
) -> tuple[Shapes, Packings | None]:
    """The shapes of a model's parameters before quantization, and how its layers are quantized."""
    try:
        shapes = outline(config).shapes
    except InputError as error:
        raise CheckpointError(f"{Path(directory) / CONFIG_FILE}: {error}") from None
    return shapes, parse(described, shapes, Path(directory) / CONFIG_FILE)


def verify_weights(directory: Path) -> dict[str, Any]:
    """Reads all weights of a model directory. Raises CheckpointError unless they are intact.

    Returns their checksum, and whether config.json holds it, so that it was compared.
    """
    config, described = read_checked_config(directory)
    path = Path(directory) / WEIGHTS_FILE
    stored_shapes(path, described_shapes(directory, config, described)[1])
    checksum = verify(path, described.get(CHECKSUM_KEY))
    return {"sha256": checksum, "compared": CHECKSUM_KEY in described}


def load_weights(model: nn.Module, directory: Path, described: Mapping[str, Any]) -> None:
    """Loads the parameters of `model`, whose shapes `check_shapes` has compared."""
    path = Path(directory) / WEIGHTS_FILE
    require_intact(path, described)
    model.load_weights(mlx_path(path))


def save_model(
    model: nn.Module, directory: str | Path, tokenizer: str | Path | None = None
) -> None:
    """Writes a model to the new model directory `directory`.

    It must be a model that this package has built or loaded. `tokenizer` is a .model file to copy.
    """
    if not isinstance(model, VideoPrismModel) or not model.has_config:
        raise InputTypeError(
            f"a {type(model).__name__} without a configuration cannot be saved; "
            "expected a model from get_model or one of the load functions"
        )
    config = stored_config(model)
    write_directory(directory, config, named_parameters(model), tokenizer=tokenizer)


def require_new_model(directory: Path, overwrite: bool) -> None:
    """Raises an error unless a model can be written to a directory.

    It must be new or empty or, with `overwrite`, hold a model and nothing else.
    """
    mlx_path(directory)
    if overwrite:
        require_own(directory, "a model", [CONFIG_FILE], MODEL_FILES)
    else:
        require_new_directory(directory, or_overwrite=True)


def write_directory(
    directory: str | Path,
    config: Mapping[str, Any],
    arrays: Arrays,
    source: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
    copied: Iterable[Path] = (),
    overwrite: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a new model directory, complete or not at all.

    `source` says where the weights come from. `copied` are other files to copy, names and all. With
    `overwrite`, an earlier directory is replaced. `metadata` goes into the file of the weights.
    Raises CheckpointError if a parameter is not finite.
    """
    with replaced_directory(directory) if overwrite else nullcontext(directory) as new:
        checksum = _write_files(new, config, arrays, source, tokenizer, copied, metadata)
    remember(FileIdentity.of(Path(directory) / WEIGHTS_FILE), checksum)


def _write_files(
    directory: str | Path,
    config: Mapping[str, Any],
    arrays: Arrays,
    source: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
    copied: Iterable[Path] = (),
    metadata: Mapping[str, str] | None = None,
) -> str:
    """As `write_directory`. Returns the checksum of the weights."""
    with new_directory(directory) as partial:
        write_arrays(partial / WEIGHTS_FILE, arrays, {**MLX_FORMAT, **(metadata or {})})
        # The disk takes the file while its checksum is computed.
        with ThreadPoolExecutor(1) as background:
            flushed = background.submit(flush, partial / WEIGHTS_FILE)
            checksum = examine(partial / WEIGHTS_FILE)
            flushed.result()
        described = dict(config) | {CHECKSUM_KEY: checksum}
        described |= {"source": dict(source)} if source else {}
        text = as_json(with_checksum(described)) + "\n"
        (partial / CONFIG_FILE).write_text(text, encoding="utf-8")
        if tokenizer is not None:
            shutil.copyfile(tokenizer, partial / TOKENIZER_FILE)
        for file in copied:
            shutil.copyfile(file, partial / file.name)
    return checksum


def write_arrays(
    path: Path, arrays: Arrays, metadata: Mapping[str, str] = MLX_FORMAT, is_sorted: bool = False
) -> None:
    """Writes a safetensors file, whose name must end so.

    The same arrays give the same bytes in any order. With `is_sorted`, their order is kept.
    """
    ordered = dict(arrays if is_sorted else sorted(arrays.items()))
    name = mlx_path(path)
    try:
        mx.save_safetensors(name, ordered, dict(metadata))
    except RuntimeError as error:  # MLX does not say why. The disk is likely to be full.
        raise OSError(errno.ENOSPC, f"could not write the weights ({error})") from None


def read_arrays(path: Path) -> dict[str, mx.array]:
    """The arrays of a safetensors file. `stored_shapes` must have checked it."""
    return cast(dict[str, mx.array], mx.load(mlx_path(path)))


def mlx_path(path: Path) -> str:
    """A path as MLX takes it. Raises InputError if it is not UTF-8, which MLX cannot open."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{printable(path)} cannot be used: its name, or that of a folder it is in, is not "
            "UTF-8, which MLX expects; rename it"
        ) from None
    return str(path)


def publish(
    model: VideoPrismModel,
    directory: str | Path,
    files: Mapping[str, str],
    source: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
) -> None:
    """Writes `model` into `directory`, which may hold other things and an earlier model.

    `files` are the texts of further files, by name. All files are written to a folder inside
    first. Then the earlier config.json is removed, and the new one is moved into place last: a
    directory without it is not a model directory, so no other process sees a mixture.
    """
    directory = Path(directory)
    staged = directory / STAGED_FOLDER
    shutil.rmtree(staged, ignore_errors=True)  # A killed run may have left it.
    arrays = named_parameters(model)
    checksum = _write_files(staged, stored_config(model), arrays, source, tokenizer)
    for name, text in files.items():
        with new_file(staged / name) as partial:
            partial.write_text(text, encoding="utf-8")
    (directory / CONFIG_FILE).unlink(missing_ok=True)
    for path in sorted(staged.iterdir(), key=lambda path: path.name == CONFIG_FILE):
        os.replace(path, directory / path.name)
    staged.rmdir()
    remember(FileIdentity.of(directory / WEIGHTS_FILE), checksum)
