"""From a Flax checkpoint to a model directory, and back."""

import logging
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from videoprism_mlx.convert.npz import BFLOAT16, Archive
from videoprism_mlx.convert.rules import SCALE, Array, Layout, Leaf
from videoprism_mlx.convert.scales import Scales, read_scales, scale_of, scales_metadata
from videoprism_mlx.errors import CheckpointError, DownloadError, InputError, counted
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.checksum import require_checksum
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.files.npz import write_array
from videoprism_mlx.files.reading import read_json
from videoprism_mlx.files.record import own_version
from videoprism_mlx.models import (
    CONFIGS,
    canonical_name,
    checked_config,
    get_config,
    parse_dtype,
)
from videoprism_mlx.progress import bar
from videoprism_mlx.tokenizers import C4_EN_VOCABULARY_SIZE, SentencePieceTokenizer, tokenizer_path
from videoprism_mlx.weights.directory import (
    WEIGHTS_FILE,
    check_parameters,
    check_shapes,
    misfit,
    read_arrays,
    read_checked_config,
    require_new_model,
    write_directory,
    wrong_parameters,
)
from videoprism_mlx.weights.integrity import require_intact
from videoprism_mlx.weights.outline import Shapes
from videoprism_mlx.weights.quantize.settings import require_dense

READABLE = {np.dtype(name) for name in ("float16", "float32", "float64")} | {BFLOAT16}

logger = logging.getLogger(__name__)


class Conversion(NamedTuple):
    """What a conversion has written."""

    output: Path
    model: str
    parameters: int
    bytes: int


def flax_to_mlx(
    checkpoint: str | Path,
    output: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    dtype: str | mx.Dtype = "float32",
    tokenizer: str | Path | None = None,
    origin: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Converts an official `.npz` checkpoint to the new model directory `output`.

    With `overwrite`, an earlier model directory there is replaced when the new one is complete.

    `config` is a name, the path of a config.json, or such a mapping. It can be left out if the
    checkpoint has the shapes of a known configuration. `tokenizer` is the SentencePiece model to
    put beside a video-text model, by default c4_en. `origin` goes into the config.json.
    """
    mlx_dtype = parse_dtype(dtype)
    require_new_model(Path(output), overwrite)
    with Archive(Path(checkpoint)) as archive, ThreadPoolExecutor(1) as background:
        if config is None:
            config = matching_config(archive.shapes, archive.path)
        else:
            config = given_config(config)
        layout = Layout(config)
        check_parameters(layout.expected(archive.shapes), archive.shapes, archive.path)
        check_types(archive)
        tokenizer = tokenizer_for(config, tokenizer)

        checksum = background.submit(sha256, archive.path)
        arrays: dict[str, mx.array] = {}
        scales: dict[str, Array] = {}
        for group in bar(list(layout.groups.values()), "converting", "array"):
            arrays |= read_group(archive, group, mlx_dtype, scales)
        stacks = [key for key, group in layout.groups.items() if group[0].layer is not None]
        is_scanned = any(key in archive.shapes for key in [*stacks, *layout.empty])
        source = {
            **(origin or {}),
            "file": archive.path.name,
            "sha256": checksum.result(),
            "layout": "scanned" if is_scanned else "unscanned",
            "converter": f"videoprism_mlx {own_version()}",
        }
    metadata = scales_metadata(scales) if mlx_dtype == mx.float32 else {}
    write_directory(
        output, config, arrays, source, tokenizer, overwrite=overwrite, metadata=metadata
    )
    return Conversion(
        Path(output),
        config["model"],
        sum(array.size for array in arrays.values()),
        sum(array.nbytes for array in arrays.values()),
    )


def mlx_to_flax(
    model_dir: str | Path,
    output: str | Path,
    scan: bool | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Writes a model directory as an official `.npz`, in float32, to the new file `output`.

    With `overwrite`, a file there is replaced.

    `scan` says whether a stack of layers is one array. By default it is, as in the published
    checkpoints, unless the model came from a checkpoint in which it was not.
    """
    path = Path(model_dir) / WEIGHTS_FILE
    config, described = read_checked_config(Path(model_dir))
    require_dense(model_dir, described)
    if scan is None:
        source = described.get("source")
        scan = not isinstance(source, Mapping) or source.get("layout") != "unscanned"
    require_official(Path(model_dir), config)
    check_shapes(Path(model_dir), config, described)
    require_intact(path, described)
    layout = Layout(config)

    stored, scales = read_arrays(path), read_scales(path)
    size = 0
    with (
        new_file(output, replace=overwrite) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive,
    ):
        for key, group in bar(list(layout.groups.items()), "converting", "array"):
            layers = [to_flax(each, stored.pop(each.name), layout.heads, scales) for each in group]
            if group[0].layer is None:
                entries = {key: layers[0]}
            elif scan:
                entries = {key: np.stack(layers)}
            else:
                entries = {each.own_key: layer for each, layer in zip(group, layers, strict=True)}
            for entry, array in entries.items():
                write_array(archive, entry, array)
                size += array.size
        for key, shape in layout.empty.items() if scan else ():
            write_array(archive, key, np.zeros(shape, np.float32))
    return Conversion(Path(output), config["model"], size, 4 * size)


def require_official(model_dir: Path, config: Mapping[str, Any]) -> None:
    """Raises CheckpointError if the official model has another pooler."""
    width = config.get("pooler_dim", 0)
    if width and width != (official := config["encoder_params"]["model_dim"]):
        raise CheckpointError(
            f"{model_dir} cannot go to Flax: its pooler is {width} wide, as in Transformers, and "
            f"the official one {official}"
        )


def given_config(config: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of that name, in that file or model directory, or in that mapping."""
    if isinstance(config, Mapping):
        return get_config(config)
    path = Path(config)
    if canonical_name(str(config)) is None:
        if path.is_dir():
            return read_checked_config(path)[0]
        if path.is_file():
            try:
                found = read_json(path, CheckpointError)
                checked = checked_config(found)
            except InputError as error:
                raise CheckpointError(f"{path} is not a configuration: {error}") from None
            require_checksum(found, path, CheckpointError)
            return checked
    return get_config(str(config))  # If the name is unknown, its error lists the known ones.


def matching_config(shapes: Shapes, path: Path) -> dict[str, Any]:
    """The known configuration that has the shapes of a checkpoint.

    An unknown one is not guessed, because shapes do not tell everything about a model: they do not
    depend on the logit cap or on causality.
    """
    closest: Shapes = {}
    fewest: int | None = None
    for config in CONFIGS.values():
        if "num_classes" in config:
            classes = shapes.get("params/projection/linear/bias", (1,))[-1]
            config = config | {"num_classes": classes}
        config = checked_config(config)
        expected = Layout(config).expected(shapes)
        problems = len(wrong_parameters(expected, shapes))
        if not problems:
            return config
        if fewest is None or problems < fewest:
            closest, fewest = expected, problems
    raise CheckpointError(
        f"{misfit(closest, shapes, path)}. That is compared with the closest of the known "
        "configurations. If this is a model of your own, give its configuration with config= "
        "(--config): a config.json or a mapping"
    )


def check_types(archive: Archive) -> None:
    """Raises CheckpointError unless all arrays are of floating-point types."""
    for key, header in archive.headers.items():
        if header.dtype.newbyteorder("=") not in READABLE:
            raise CheckpointError(
                f"{archive.path}: {key} is of type {header.dtype}; expected floating-point numbers"
            )


def tokenizer_for(config: Mapping[str, Any], given: str | Path | None) -> Path | None:
    """The tokenizer to put beside a model: the given one, or c4_en if the vocabulary is its."""
    if "vocabulary_size" not in config:
        return None
    if given is not None:
        size = SentencePieceTokenizer(given).vocab_size
        if size > config["vocabulary_size"]:
            raise InputError(
                f"{given} has {counted(size, 'piece')}; "
                f"the model's vocabulary is {config['vocabulary_size']}"
            )
        return Path(given)
    if config["vocabulary_size"] != C4_EN_VOCABULARY_SIZE:
        logger.info(
            "this model gets no tokenizer; name its .model file with --tokenizer (tokenizer=)"
        )
        return None
    try:
        return tokenizer_path("c4_en")
    except (DownloadError, InputError) as error:  # The model works without it.
        logger.warning("this model gets no tokenizer: %s", error)
        return None


def read_group(
    archive: Archive, group: list[Leaf], dtype: mx.Dtype, scales: dict[str, Array]
) -> Iterator[tuple[str, mx.array]]:
    """The parameters of one key of a scanned checkpoint, from either layout.

    If they are weights of LayerNorms, their scales are added to `scales`.
    """
    stack = archive.read(group[0].key) if group[0].key in archive.shapes else None
    for index, each in enumerate(group):
        if stack is None:
            array = archive.read(each.own_key)
        else:
            array = stack if each.layer is None else stack[index]
        if not np.isfinite(array).all():
            raise CheckpointError(f"{archive.path}: {each.key} holds NaN or infinite values")
        if each.rule is SCALE:
            scales[each.name] = array.astype(np.float32)
        yield each.name, as_parameter(each.rule.to_mlx(array), dtype, f"{archive.path}: {each.key}")


def as_parameter(array: Array, dtype: mx.Dtype, what: str) -> mx.array:
    """An array in that type. If it is too narrow, raises an error that begins with `what`."""
    is_wide = array.dtype != np.float32
    with np.errstate(over="ignore"):  # It is checked below.
        array = np.ascontiguousarray(array, np.float32)
    parameter = mx.array(array).astype(dtype)
    if (is_wide or dtype != mx.float32) and not mx.isfinite(parameter).all().item():
        raise CheckpointError(
            f"{what} holds values beyond the range of {dtype}; convert to a wider type"
        )
    return parameter


def to_flax(each: Leaf, array: mx.array, heads: int, scales: Scales) -> Array:
    """A parameter in Flax's layout, in float32. `scales` are those that are kept."""
    values = np.array(array.astype(mx.float32))
    if each.rule is SCALE:
        return scale_of(values, scales.get(each.name))
    return each.rule.to_flax(values, heads)
