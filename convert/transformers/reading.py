"""From a model of Transformers to a model directory."""

import dataclasses
import logging
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx

from videoprism_mlx.convert.flax import Conversion, as_parameter, tokenizer_for
from videoprism_mlx.convert.scales import scales_metadata
from videoprism_mlx.convert.transformers.config import (
    FLAX_LAYOUT,
    read_transformers_config,
)
from videoprism_mlx.convert.transformers.names import SCALE, Layout
from videoprism_mlx.convert.transformers.pooler import (
    AXES,
    narrowed,
    official_config,
)
from videoprism_mlx.convert.transformers.settings import (
    FILES,
    own_files,
)
from videoprism_mlx.convert.transformers.weights import (
    Weights,
    buffer_names,
    departs,
    finite,
)
from videoprism_mlx.errors import CheckpointError, InputError
from videoprism_mlx.files.atomic import new_directory
from videoprism_mlx.files.checksum import with_checksum
from videoprism_mlx.files.identity import FileIdentity, sha256
from videoprism_mlx.files.record import as_json, digest, own_version
from videoprism_mlx.models import parse_dtype
from videoprism_mlx.progress import bar
from videoprism_mlx.tokenizers import TEXT_MAX_LENGTH, TOKENIZER_FILE
from videoprism_mlx.weights import hub
from videoprism_mlx.weights.directory import (
    CONFIG_FILE,
    check_parameters,
    require_new_model,
    write_directory,
)

# How the names of converted models in the cache begin.
KEPT = "transformers-"

logger = logging.getLogger(__name__)


def transformers_to_mlx(
    directory: str | Path,
    output: str | Path,
    dtype: str | mx.Dtype = "float32",
    tokenizer: str | Path | None = None,
    origin: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Converts a model that Transformers has written to the new model directory `output`.

    The arguments are those of `flax_to_mlx`. The tokenizer, the settings of the video processor
    and the names of classes come along.
    """
    directory = Path(directory)
    mlx_dtype = parse_dtype(dtype)
    require_new_model(Path(output), overwrite)
    config, described = read_transformers_config(directory)
    weights = checked_weights(directory, config, described)
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(1) as background:
        beside = write_beside(Path(scratch), directory, config, described)
        if tokenizer is not None or TOKENIZER_FILE not in beside:
            tokenizer = tokenizer_for(config, tokenizer)
        else:
            tokenizer = beside[TOKENIZER_FILE]
        copied = [path for name, path in beside.items() if name != TOKENIZER_FILE]
        checksums = background.submit(checksums_of, weights)
        config, named, scales = own_arrays(weights, config, mlx_dtype)
        source = source_of(weights, described, origin) | {"sha256": checksums.result()}
        write_directory(
            output, config, named, source, tokenizer, copied, overwrite, scales_metadata(scales)
        )
    return Conversion(
        Path(output),
        config["model"],
        sum(array.size for array in named.values()),
        sum(array.nbytes for array in named.values()),
    )


def own_arrays(
    weights: Weights, config: dict[str, Any], dtype: mx.Dtype
) -> tuple[dict[str, Any], dict[str, mx.array], dict[str, Any]]:
    """The parameters by our names and in our layout, and the scales of the LayerNorms.

    Comes with the configuration, which is that of the official pooler if the weights are.
    """
    scales: dict[str, Any] = {}
    named: dict[str, mx.array] = {}
    stored = weights.arrays()
    tables = [stored.pop(name) for name in buffer_names(config) if name in stored]
    if tables and departs(tables[0], weights.path):
        logger.info(
            "%s has Transformers' own positions of texts; the official ones are used",
            weights.directory,
        )
    pooler: dict[str, Any] = {}
    for each in bar(Layout(config).leaves, "converting", "array"):
        array = finite(stored.pop(each.key), each.key, weights.path)
        if each.rule is SCALE and dtype == mx.float32:
            scales[each.name] = array
        if each.name in AXES and "pooler_dim" in config:
            pooler[each.name] = array
            continue
        named[each.name] = as_parameter(
            each.rule.to_mlx(array), dtype, f"{weights.path}: {each.key}"
        )
    if pooler:
        if (official := narrowed(pooler, config)) is not None:
            config, pooler = official_config(config), official
        for name, array in pooler.items():
            named[name] = as_parameter(array, dtype, f"{weights.path}: {name}")
    return config, named, scales


def checked_weights(
    directory: Path, config: Mapping[str, Any], described: Mapping[str, Any]
) -> Weights:
    """The weights in a directory, whose headers fit the configuration."""
    weights = Weights(directory)
    try:
        expected = Layout(config).shapes
    except InputError as error:
        raise CheckpointError(f"{directory / CONFIG_FILE}: {error}") from None
    text = described.get("text_config") or described
    length = text.get("max_position_embeddings", TEXT_MAX_LENGTH)
    shapes = [(length, config.get("model_dim")), (1, length)]
    # Only Transformers' own text encoder needs them.
    optional = {
        name: shape
        for name, shape in zip(buffer_names(config), shapes, strict=False)
        if name in weights.shapes
    }
    check_parameters({**expected, **optional}, weights.shapes, weights.path)
    return weights


def checksums_of(weights: Weights) -> str | dict[str, str]:
    """The checksum of the weights, or that of each shard."""
    if weights.files == [weights.path]:
        return sha256(weights.path)
    return {path.name: sha256(path) for path in weights.files}


def source_of(
    weights: Weights, described: Mapping[str, Any], origin: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Where a model of Transformers comes from, for a config.json."""
    source = {
        **(origin or {"directory": str(weights.directory.absolute())}),
        "format": "transformers",
        "file": weights.path.name,
        "converter": f"videoprism_mlx {own_version()}",
    }
    if described.get(FLAX_LAYOUT) == "unscanned":
        source["layout"] = "unscanned"
    return source


def write_beside(
    folder: Path, directory: Path, config: Mapping[str, Any], described: Mapping[str, Any]
) -> dict[str, Path]:
    """Writes to `folder` what belongs to a model beside its weights. Returns the files by name."""
    written = {}
    for name, content in own_files(directory, config, described):
        written[name] = folder / name
        written[name].write_bytes(content)
    return written


def kept(directory: Path, origin: Mapping[str, Any] | None = None) -> Path:
    """The model directory of a model of Transformers, from the cache or made now."""
    checked_weights(directory, *read_transformers_config(directory))  # Before anything is said.
    output = hub.converted_directory(kept_name(directory))
    if not (output / CONFIG_FILE).is_file():
        logger.info("converting %s to %s", directory, output)
        try:
            transformers_to_mlx(directory, output, origin=origin)
        except FileExistsError:
            # Another process has converted the same model meanwhile.
            if not (output / CONFIG_FILE).is_file():
                raise
    return output


def outlined(directory: Path, has_weights: bool = True) -> Path:
    """The model directory of a model of Transformers without its weights, kept in the cache.

    With `has_weights`, the headers of the weights must fit.
    """
    config, described = read_transformers_config(directory)
    if has_weights:
        checked_weights(directory, config, described)
    output = hub.converted_directory(f"{kept_name(directory)}-settings")
    if not (output / CONFIG_FILE).is_file():
        try:
            with new_directory(output) as partial:
                write_beside(partial, directory, config, described)
                source = {"directory": str(directory.absolute()), "format": "transformers"}
                text = as_json(with_checksum({**config, "source": source})) + "\n"
                (partial / CONFIG_FILE).write_text(text, encoding="utf-8")
        except FileExistsError:
            if not (output / CONFIG_FILE).is_file():
                raise
    return output


def kept_name(directory: Path) -> str:
    """What the converted model of a directory is called in the cache.

    It has a short checksum of the paths, sizes and times of the files.
    """
    names = (*FILES, *sorted(path.name for path in directory.glob("*.safetensors")))
    paths = [directory / name for name in dict.fromkeys(names)]
    state = [dataclasses.asdict(FileIdentity.of(path)) for path in paths if path.is_file()]
    return f"{KEPT}{digest(state)}"
