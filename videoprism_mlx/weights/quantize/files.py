"""A model directory from another one: quantized, or dequantized."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from videoprism_mlx import convert
from videoprism_mlx.convert.scales import read_scales, scales_metadata
from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.files.output import require_writable
from videoprism_mlx.files.places import user_path
from videoprism_mlx.files.record import own_version
from videoprism_mlx.models import canonical_name, parse_dtype
from videoprism_mlx.tokenizers import TOKENIZER_FILE, WORDS_FILE
from videoprism_mlx.video.source import Source
from videoprism_mlx.weights.base import base_name
from videoprism_mlx.weights.directory import (
    LABELS_FILE,
    PROCESSOR_FILE,
    WEIGHTS_FILE,
    named_parameters,
    read_config,
    require_new_model,
    write_directory,
)
from videoprism_mlx.weights.loading import load_with_directory, model_outline
from videoprism_mlx.weights.outline import outline
from videoprism_mlx.weights.quantize.layers import is_quantized, packings_of, stored_config
from videoprism_mlx.weights.quantize.model import Said, check_arguments, dequantize, plan, quantize
from videoprism_mlx.weights.quantize.settings import in_words

# The ending of a Flax checkpoint.
CHECKPOINT = ".npz"

BESIDE = (TOKENIZER_FILE, PROCESSOR_FILE, LABELS_FILE, WORDS_FILE)


class Written(NamedTuple):
    """A model directory that was written. `parameters` are those before quantization."""

    output: Path
    model: str
    parameters: int
    bytes: int
    quantization: str | None  # In words.

    @property
    def bits(self) -> float:
        """The bits of a parameter on average, with scales and all that is not quantized."""
        return 8 * self.bytes / self.parameters


def quantize_to_directory(
    source: str | Path,
    output: str | Path,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str = "affine",
    *,
    layers: Mapping[str, Said] | None = None,
    budget_bits: float | None = None,
    calibration: Sequence[Source] | None = None,
    dtype: str | mx.Dtype | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
    revision: str | None = None,
    overwrite: bool = False,
) -> Written:
    """Quantizes a model and writes it to the new model directory `output`.

    `source` is a model's name, a model directory, a Hub id or a Flax `.npz`. `config` and
    `tokenizer` are for the last, as in `convert.flax_to_mlx`. `bits`, `group_size`, `mode`,
    `layers`, `budget_bits` and `calibration` are as in `vp.quantize`. `dtype` is the type of scales
    and of what is not quantized. With `overwrite`, an earlier model directory is replaced when the
    new one is complete.
    """
    settings: dict[str, Any] = dict(bits=bits, group_size=group_size, mode=mode, layers=layers)
    check(output, dtype, overwrite)
    check_arguments(**settings, budget_bits=budget_bits, calibration=calibration)
    with model_of(source, output, dtype, config, tokenizer, revision) as (outlined, load):
        plan(outlined, **settings)
        model, directory = load()
        made_from = origin(source, revision, directory, "quantized_from")
        quantize(model, **settings, budget_bits=budget_bits, calibration=calibration)
        return write(model, directory, output, made_from, overwrite)


def dequantize_to_directory(
    source: str | Path,
    output: str | Path,
    dtype: str | mx.Dtype | None = None,
    revision: str | None = None,
    overwrite: bool = False,
) -> Written:
    """Writes a quantized model, dequantized, to the new model directory `output`.

    `source` is a model directory or a Hub id. `dtype` and `overwrite` are as in
    `quantize_to_directory`.
    """
    check(output, dtype, overwrite)
    outlined, _ = model_outline(source, revision)
    if not is_quantized(outlined):
        raise InputError(f"{source} is not quantized, so there is nothing to dequantize")
    model, directory = load_with_directory(source, dtype, revision)
    made_from = origin(source, revision, directory, "dequantized_from")
    return write(dequantize(model), directory, output, made_from, overwrite)


def check(output: str | Path, dtype: str | mx.Dtype | None, overwrite: bool) -> None:
    """Raises an error if the output cannot be written, or the type is unknown."""
    require_writable(Path(output))
    require_new_model(Path(output), overwrite)
    if dtype is not None:
        parse_dtype(dtype)


@contextmanager
def model_of(
    source: str | Path,
    output: str | Path,
    dtype: str | mx.Dtype | None,
    config: str | Path | Mapping[str, Any] | None,
    tokenizer: str | Path | None,
    revision: str | None,
) -> Iterator[tuple[VideoPrismModel, Callable[[], tuple[VideoPrismModel, Path]]]]:
    """A model without its weights, and a function that loads it and gives its directory.

    A Flax checkpoint is first converted, to a folder that is removed after the block.
    """
    path = user_path(source)
    if canonical_name(str(source)) is not None or path.suffix != CHECKPOINT or path.is_dir():
        for name, value in (("config", config), ("tokenizer", tokenizer)):
            if value is not None:
                raise InputError(
                    f"{name} (--{name}) has no effect on {source}, which is no Flax .npz; "
                    "leave it out"
                )
        outlined, _ = model_outline(source, revision)
        yield outlined, lambda: load_with_directory(source, dtype, revision)
        return
    if revision is not None:
        raise InputError("revision (--revision) has no effect on a local file; leave it out")
    parent = Path(output).absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=parent) as folder:
        directory = Path(folder) / "model"
        convert.flax_to_mlx(path, directory, config, tokenizer=tokenizer)
        outlined, _ = model_outline(directory)
        yield outlined, lambda: load_with_directory(directory, dtype)


def origin(source: str | Path, revision: str | None, directory: Path, key: str) -> dict[str, Any]:
    """What config.json says under "source": where the weights were made from, and how."""
    before = read_config(directory).get("source")
    kept = dict(before) if isinstance(before, Mapping) else {}
    checksum = sha256(directory / WEIGHTS_FILE)
    made = {
        key: base_name(source, revision),
        f"{key}_weights": checksum,
        "converter": converter(),
    }
    return kept | made


def converter() -> str:
    """What wrote a model directory."""
    return f"videoprism_mlx {own_version()}"


def write(
    model: VideoPrismModel,
    directory: Path,
    output: str | Path,
    source: Mapping[str, Any],
    overwrite: bool,
) -> Written:
    """Writes a model, with what lies beside its weights in `directory`."""
    arrays = named_parameters(model)
    config = stored_config(model)
    copied = [directory / name for name in BESIDE if (directory / name).is_file()]
    write_directory(
        output,
        config,
        arrays,
        source,
        copied=copied,
        overwrite=overwrite,
        metadata=scales_metadata(read_scales(directory / WEIGHTS_FILE)),  # Of LayerNorms.
    )
    packings = packings_of(model)
    size = sum(array.nbytes for array in arrays.values())
    words = in_words(packings) if is_quantized(model) else None
    return Written(Path(output), config["model"], count(model), size, words)


def count(model: VideoPrismModel) -> int:
    """How many parameters a model has before quantization."""
    return sum(math.prod(shape) for shape in outline(model.config).shapes.values())
