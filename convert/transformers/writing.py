"""From a model directory to a model for Transformers."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from videoprism_mlx.convert.flax import Conversion, tokenizer_for
from videoprism_mlx.convert.scales import read_scales, scale_of
from videoprism_mlx.convert.transformers.config import (
    FLAX_LAYOUT,
    transformers_config,
)
from videoprism_mlx.convert.transformers.names import SCALE, Layout
from videoprism_mlx.convert.transformers.pooler import (
    AXES,
    wide_config,
    widened,
)
from videoprism_mlx.convert.transformers.settings import (
    FILES,
    json_bytes,
    label_settings,
    read_processor,
    transformers_files,
)
from videoprism_mlx.convert.transformers.weights import (
    buffers,
)
from videoprism_mlx.errors import CheckpointError, InputError
from videoprism_mlx.files.atomic import new_directory, replaced_directory, require_new_directory
from videoprism_mlx.files.output import require_own
from videoprism_mlx.progress import bar
from videoprism_mlx.tokenizers import C4_EN_VOCABULARY_SIZE, TOKENIZER_FILE
from videoprism_mlx.weights.directory import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    check_shapes,
    mlx_path,
    read_arrays,
    read_checked_config,
    write_arrays,
)
from videoprism_mlx.weights.integrity import require_intact
from videoprism_mlx.weights.quantize.settings import require_dense

CLASSIFIER = "FactorizedVideoClassifier"

logger = logging.getLogger(__name__)


def mlx_to_transformers(
    model_dir: str | Path, output: str | Path, overwrite: bool = False
) -> Conversion:
    """Writes a model directory as one for Transformers, in float32, to the new directory `output`.

    With `overwrite`, an earlier one there is replaced when the new one is complete. Transformers
    loads it with from_pretrained, without missing or unexpected parameters.
    """
    model_dir, output = Path(model_dir), Path(output)
    require_new_transformers(output, overwrite)
    config, described = read_checked_config(model_dir)
    require_dense(model_dir, described)
    check_shapes(model_dir, config, described)
    length = read_processor(model_dir, config)["max_length"]
    content = expressed(model_dir, config, described, length)
    path = model_dir / WEIGHTS_FILE
    require_intact(path, described)
    files = dict(transformers_files(model_dir, config, own_tokenizer(model_dir, config)))
    arrays = dict(transformers_arrays(path, config))
    count = sum(array.size for array in arrays.values())
    arrays |= buffers(config, length)
    with (
        replaced_directory(output) if overwrite else nullcontext(output) as new,
        new_directory(new) as partial,
    ):
        write_arrays(partial / WEIGHTS_FILE, arrays, {"format": "pt"})
        (partial / CONFIG_FILE).write_bytes(json_bytes(content))
        for name, one in files.items():
            (partial / name).write_bytes(one)
    return Conversion(output, content["architectures"][0], count, 4 * count)


def own_tokenizer(model_dir: Path, config: Mapping[str, Any]) -> Path | None:
    """The tokenizer of a model directory, or c4_en if the vocabulary is its."""
    if (model_dir / TOKENIZER_FILE).is_file():
        return model_dir / TOKENIZER_FILE
    if config.get("vocabulary_size", C4_EN_VOCABULARY_SIZE) != C4_EN_VOCABULARY_SIZE:
        logger.info("%s has no tokenizer, so the model for Transformers gets none", model_dir)
        return None
    return tokenizer_for(config, None)


def require_new_transformers(output: Path, overwrite: bool) -> None:
    """Raises an error unless a model for Transformers can be written to a directory."""
    mlx_path(output)
    if overwrite:
        require_own(output, "a model for Transformers", [CONFIG_FILE], FILES)
    else:
        require_new_directory(output, or_overwrite=True)


def expressed(
    model_dir: Path, config: Mapping[str, Any], described: Mapping[str, Any], length: int
) -> dict[str, Any]:
    """The content of the config.json for Transformers of a model directory."""
    try:
        if config["model"] == CLASSIFIER:
            wide_config(config)
        content = transformers_config(config, length)
    except InputError as error:
        raise CheckpointError(f"{model_dir} cannot go to Transformers: {error}") from None
    if config["model"] == CLASSIFIER:
        content |= label_settings(model_dir, config["num_classes"])
    source = described.get("source")
    if isinstance(source, Mapping) and source.get("layout") == "unscanned":
        content[FLAX_LAYOUT] = "unscanned"
    return content


def transformers_arrays(path: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, mx.array]]:
    """The parameters in a file of weights by Transformers' names and in its layout, in float32.

    `config` is that of the weights.
    """
    stored, scales = read_arrays(path), read_scales(path)
    values: dict[str, Any] = {}
    if config["model"] == CLASSIFIER:
        values = {name: np.array(stored.pop(name).astype(mx.float32)) for name in AXES}
        if not config.get("pooler_dim"):
            values = widened(values, config)
        config = wide_config(config)
    for each in bar(Layout(config).leaves, "converting", "array"):
        value = values.get(each.name)
        if value is None:
            value = np.array(stored.pop(each.name).astype(mx.float32))
        if each.rule is SCALE:
            new = scale_of(value, scales.get(each.name))
        else:
            new = each.rule.to_transformers(value)
        yield each.key, mx.array(np.ascontiguousarray(new))
