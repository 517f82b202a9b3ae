"""A model with its adapters added to the weights: loading it, and writing it as one model."""

from pathlib import Path

import mlx.core as mx

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.files.output import require_writable
from videoprism_mlx.models import parse_dtype
from videoprism_mlx.progress import bar
from videoprism_mlx.tokenizers import TOKENIZER_FILE
from videoprism_mlx.weights.adapters import (
    ADAPTERS_FILE,
    adapters_directory,
    base_model,
    check_adapters,
    fuse_adapters,
    load_adapters,
)
from videoprism_mlx.weights.base import base_name
from videoprism_mlx.weights.directory import (
    LABELS_FILE,
    PROCESSOR_FILE,
    WEIGHTS_FILE,
    named_parameters,
    require_new_model,
    write_directory,
)
from videoprism_mlx.weights.loading import finished, load_with_directory, model_outline
from videoprism_mlx.weights.quantize.layers import stored_config


def load_fused(
    name_or_dir: str | Path,
    adapters: str | Path,
    dtype: str | mx.Dtype | None = None,
    revision: str | None = None,
) -> tuple[VideoPrismModel, Path]:
    """As `load_with_directory`, with adapters added to the weights.

    The adapters are added in the stored type, and the sum is rounded once to `dtype`.
    """
    if dtype is not None:
        parse_dtype(dtype)
    adapters = adapters_directory(adapters)
    check_adapters(model_outline(name_or_dir, revision)[0], adapters)
    model, directory = load_with_directory(name_or_dir, revision=revision)
    return finished(fuse_adapters(load_adapters(model, adapters)), dtype), directory


def fuse_to_directory(
    name_or_dir: str | Path | None,
    adapters: str | Path,
    output: str | Path,
    dtype: str | mx.Dtype | None = None,
    revision: str | None = None,
    overwrite: bool = False,
) -> dict[str, str]:
    """Writes a model with adapters added to its weights to the new model directory `output`.

    With `overwrite`, an earlier model directory there is replaced when the new one is complete.

    `adapters` is a directory or a Hub id. By default, `name_or_dir` is the model that they were
    trained on. The tokenizer, labels and settings of the processor are copied. Returns what
    config.json says under "source": the name of the model and the checksums of its weights and of
    the adapters.
    """
    require_writable(Path(output))
    require_new_model(Path(output), overwrite)
    adapters = adapters_directory(adapters)
    name_or_dir = base_model(adapters) if name_or_dir is None else name_or_dir
    model, directory = load_fused(name_or_dir, adapters, dtype, revision)
    source = {
        "base": base_name(name_or_dir, revision),
        "base_weights": sha256(directory / WEIGHTS_FILE),
        "adapters": sha256(adapters / ADAPTERS_FILE),
    }
    arrays = named_parameters(model)
    for array in bar(list(arrays.values()), "fusing", "array"):
        mx.eval(array)
    # Adapters may have been trained on clips of other settings than those of the model.
    processor = adapters / PROCESSOR_FILE
    if not processor.is_file():
        processor = directory / PROCESSOR_FILE
    beside = [directory / TOKENIZER_FILE, processor, directory / LABELS_FILE]
    copied = [file for file in beside if file.is_file()]
    config = stored_config(model)
    write_directory(output, config, arrays, source, copied=copied, overwrite=overwrite)
    return source
