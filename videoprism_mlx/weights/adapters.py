"""Adapters (LoRA): small matrices beside a model's linear layers, trained instead of their weights.

A directory holds adapters in two files:

    adapters.safetensors  the matrices, by the names of their layers in the model
    adapter_config.json   their settings, and the model that they belong to

Shapes: I inputs and O outputs of a layer, R rank of its adapter.
"""

import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import CheckpointError, InputError, excerpt, shown, whole_number
from videoprism_mlx.files.atomic import new_file, require_new_file
from videoprism_mlx.files.checksum import require_checksum, with_checksum
from videoprism_mlx.files.places import user_path
from videoprism_mlx.files.reading import parse_json, read_text
from videoprism_mlx.files.record import as_json, own_version
from videoprism_mlx.layers import AttenTokenPoolingLayer, StackedTransformer
from videoprism_mlx.weights import hub
from videoprism_mlx.weights.base import (
    base_checksum,
    base_name,
    other_base,
    other_weights,
    require_name,
    weights_checksum,
)
from videoprism_mlx.weights.directory import (
    CONFIG_FILE,
    PROCESSOR_FILE,
    misfit,
    read_arrays,
    stored_shapes,
    write_arrays,
    wrong_parameters,
)
from videoprism_mlx.weights.integrity import CHECKSUM_KEY, examine, require_intact
from videoprism_mlx.weights.lora import (
    ADAPTER_NAMES,
    Adapted,
    AnyLinear,
    LoRALinear,
    LoRAQuantizedLinear,
    with_adapter,
)
from videoprism_mlx.weights.quantize.layers import freeze_packed, replace_layers

ADAPTERS_FILE = "adapters.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_FILES = (ADAPTER_CONFIG_FILE, ADAPTERS_FILE, PROCESSOR_FILE)

# A larger one is a mistake: usual ones are from 1 to 512, and rounding hides the weight beyond.
MOST_ALPHA = 1e6


@dataclasses.dataclass(frozen=True)
class AdapterSettings:
    """Which layers have adapters, and of what rank. Outputs are scaled by `alpha` / `rank`."""

    rank: int
    alpha: float
    towers: tuple[str, ...]
    layers: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("rank", self.rank), ("layers", self.layers)):
            if value is not None and whole_number(value, name) < 1:
                raise InputError(f"{name} is {shown(value)}; expected 1 or more")
        if not isinstance(self.alpha, Real) or not 0 < self.alpha <= MOST_ALPHA:
            raise InputError(
                f"alpha is {shown(self.alpha)}; expected a number above 0, at most {MOST_ALPHA:g}"
            )


def add_adapters(
    model: VideoPrismModel,
    rank: int,
    alpha: float | None = None,
    towers: Collection[str] | None = None,
    layers: int | None = None,
    seed: int = 0,
) -> VideoPrismModel:
    """Freezes a model and adds adapters to its linear layers. Returns the model.

    New adapters do not change the outputs. Only `lora_a` and `lora_b` are trained, in float32.
    `alpha` is `rank` by default, which gives a scale of 1. `towers` are one or both of "video" and
    "text", by default all that the model has; the pooler belongs to "video". `layers` is how many
    layers at the end of each stack get adapters, by default all.
    """
    has = model.towers
    chosen = has if towers is None else [towers] if isinstance(towers, str) else towers
    alpha = rank if alpha is None else alpha
    settings = AdapterSettings(rank, alpha, tuple(dict.fromkeys(chosen)), layers)
    linears = adapted_layers(model, settings)
    keys = mx.random.split(random_key(seed), len(linears))
    arrays = {}
    for key, (path, linear) in zip(keys, linears.items(), strict=True):
        outputs, inputs = linear.dims
        bound = inputs**-0.5
        arrays[f"{path}.lora_a"] = mx.random.uniform(-bound, bound, (rank, inputs), key=key)
        arrays[f"{path}.lora_b"] = mx.zeros((outputs, rank))
    return with_adapters(model, settings, linears, arrays)


def with_adapters(
    model: VideoPrismModel,
    settings: AdapterSettings,
    linears: Mapping[str, AnyLinear],
    arrays: Mapping[str, mx.array],
) -> VideoPrismModel:
    """Freezes `model` and gives each of `linears` the adapter of its path in `arrays`."""
    scale = settings.alpha / settings.rank
    model.freeze()
    adapted: list[tuple[str, nn.Module]] = []
    for path, linear in linears.items():
        lora_a, lora_b = (arrays[f"{path}.{name}"] for name in ADAPTER_NAMES)
        adapted.append((path, with_adapter(linear, lora_a, lora_b, scale)))
    replace_layers(model, adapted)
    model.adapters = settings
    return model


def random_key(seed: int) -> mx.array:
    """MLX's random key for a seed."""
    if not 0 <= whole_number(seed, "seed") < 2**64:
        raise InputError(f"seed is {seed}; expected 0 to 2**64 - 1")
    return mx.random.key(whole_number(seed, "seed"))


def adapted_layers(model: VideoPrismModel, settings: AdapterSettings) -> dict[str, AnyLinear]:
    """The linear layers that get adapters, by path. Raises InputError if one cannot have any."""
    if not settings.towers or not all(tower in model.towers for tower in settings.towers):
        raise InputError(
            f"towers are {excerpt(', '.join(map(str, settings.towers)) or 'none')}; "
            f"{model.called} has {' and '.join(model.towers)}"
        )
    linears: dict[str, AnyLinear] = {}
    for path, linear in sorted(chosen_layers(model, settings), key=lambda pair: pair[0]):
        if isinstance(linear, Adapted):
            raise InputError(f"{path} has an adapter already; call fuse_adapters first")
        if not isinstance(linear, AnyLinear):
            raise InputError(f"{path} is a {type(linear).__name__}; quantize with vp.quantize")
        if settings.rank > min(linear.dims):
            raise InputError(
                f"rank is {shown(settings.rank)}; expected {min(linear.dims)} at most, "
                f"the width of {path}"
            )
        linears[path] = linear
    if not linears:
        raise InputError(f"{model.called} has no layers that adapters could be in")
    return linears


def chosen_layers(
    model: VideoPrismModel, settings: AdapterSettings
) -> Iterator[tuple[str, nn.Module]]:
    """The linear layers of the chosen towers and layers, quantized or not, with their paths."""
    for name, part in model.named_modules():
        is_text = model.towers == ("text",) or name.startswith("text_encoder.")
        if ("text" if is_text else "video") not in settings.towers:
            continue
        blocks: list[tuple[str, nn.Module]] = []
        if isinstance(part, StackedTransformer):
            blocks += [(f"{name}.x_layers.{i}", layer) for i, layer in enumerate(part.x_layers)]
            blocks = blocks[-(settings.layers or 0) :]
        elif isinstance(part, AttenTokenPoolingLayer):
            blocks.append((name, part))
        for prefix, block in blocks:
            for path, linear in block.named_modules():
                if isinstance(linear, (nn.Linear, nn.QuantizedLinear)):
                    yield f"{prefix}.{path}", linear


def adapted_modules(model: VideoPrismModel) -> dict[str, LoRALinear | LoRAQuantizedLinear]:
    """The layers of a model that have adapters, by path. Raises InputError without adapters."""
    if not isinstance(model, VideoPrismModel) or model.adapters is None:
        raise InputError(f"this {type(model).__name__} has no adapters; see add_adapters")
    kinds = (LoRALinear, LoRAQuantizedLinear)
    return {path: each for path, each in model.named_modules() if isinstance(each, kinds)}


def fuse_adapters(model: VideoPrismModel) -> VideoPrismModel:
    """Adds a model's adapters to its weights, so that it has no adapters any more. Returns it.

    Layers that were quantized are dequantized for that, and stay so: in a few bits, most of what
    the adapters have learned would be lost.
    """
    fused = [(path, each.fused()) for path, each in adapted_modules(model).items()]
    replace_layers(model, fused)
    model.adapters = None
    model.directory = None  # Its weights differ from those there now.
    model.unfreeze()
    freeze_packed(model)
    return model


def save_adapters(model: VideoPrismModel, directory: str | Path, base: str | Path) -> None:
    """Writes the adapters of a model. `base` is the name or directory of the model without them.

    The directory may hold other things. The adapter_config.json is written last.
    """
    arrays = {
        f"{path}.{name}": each[name]
        for path, each in adapted_modules(model).items()
        for name in ADAPTER_NAMES
    }
    directory = Path(directory)
    require_new_file(directory / ADAPTER_CONFIG_FILE)
    described: dict[str, Any] = {
        **dataclasses.asdict(model.adapters),
        "base": {"name": base_name(base), "weights": base_checksum(model, base)},
        "version": own_version(),
    }
    with new_file(directory / ADAPTERS_FILE, replace=True) as partial:
        write_arrays(partial, arrays, is_sorted=True)
        described[CHECKSUM_KEY] = examine(partial)
    with new_file(directory / ADAPTER_CONFIG_FILE) as partial:
        partial.write_text(as_json(with_checksum(described)) + "\n", encoding="utf-8")


def read_adapter_config(directory: Path) -> tuple[AdapterSettings, dict[str, Any]]:
    """The settings in an adapter_config.json, and the name and checksum of the base model.

    The checksum of the adapters themselves is under CHECKSUM_KEY.
    """
    path = directory / ADAPTER_CONFIG_FILE
    if not directory.exists():
        raise CheckpointError(f"{directory} does not exist; expected what save_adapters writes")
    if not path.is_file():
        raise CheckpointError(
            f"{directory} holds no adapters: it has no {ADAPTER_CONFIG_FILE}; "
            "expected what save_adapters writes"
        )
    text = read_text(path, CheckpointError)
    try:
        described = parse_json(text, "it")
        fields = [field.name for field in dataclasses.fields(AdapterSettings)]
        values = {name: described[name] for name in fields}
        settings = AdapterSettings(**values | {"towers": tuple(values["towers"])})
        base = described["base"]
        known = {"name": base["name"], "weights": base["weights"]}
    except KeyError as error:
        raise CheckpointError(
            f"{path} does not contain valid settings of adapters: {error} is missing"
        ) from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not contain valid settings of adapters: {excerpt(error, 200)}"
        ) from None
    require_checksum(described, path, CheckpointError)
    return settings, {**known, CHECKSUM_KEY: described.get(CHECKSUM_KEY)}


def adapters_directory(adapters: str | Path) -> Path:
    """The local directory of adapters, which may be on the Hub: you/adapters or you/adapters@v1."""
    path = user_path(adapters)
    repository, revision = hub.split_revision(adapters)
    if path.exists() or not hub.looks_like_repository(repository):
        return path
    return hub.download_model(repository, revision, ADAPTER_FILES, ADAPTER_CONFIG_FILE)


def is_adapters(directory: str | Path) -> bool:
    """Whether this is a directory of adapters, and not a model directory."""
    path = user_path(directory)
    return (path / ADAPTER_CONFIG_FILE).is_file() and not (path / CONFIG_FILE).exists()


def base_model(adapters: str | Path) -> str:
    """The name or directory of the model that adapters were trained on.

    Raises CheckpointError if it is a directory that is not there.
    """
    directory = adapters_directory(adapters)
    name = str(read_adapter_config(directory)[1]["name"])
    if os.path.isabs(name) and not os.path.isdir(name):
        raise CheckpointError(
            f"{directory} was trained on {excerpt(name, 250)}, which is not there any more; name "
            "the model's directory with --model (the argument for the model)"
        )
    return name


def load_adapters(model: VideoPrismModel, directory: str | Path) -> VideoPrismModel:
    """Adds the adapters in a directory to a loaded model, and freezes it. Returns the model.

    They may be on the Hub: you/adapters or you/adapters@v1. Raises CheckpointError unless they fit
    the layers of the model, and its weights as well if the file of the weights is known. The model
    stays as it was then.
    """
    directory = adapters_directory(directory)
    settings, linears = check_adapters(model, directory)
    path = directory / ADAPTERS_FILE
    require_intact(path, read_adapter_config(directory)[1])
    return with_adapters(model, settings, linears, read_arrays(path))


def check_adapters(
    model: VideoPrismModel, directory: str | Path
) -> tuple[AdapterSettings, dict[str, AnyLinear]]:
    """The settings of the adapters in a directory, and the layers of `model` that they are for.

    `model` may be without its weights. Raises CheckpointError if it is known that the adapters
    belong to another model.
    """
    directory = adapters_directory(directory)
    settings, base = read_adapter_config(directory)
    require_name(model, directory, base)
    try:
        linears = adapted_layers(model, settings)
    except InputError as error:
        raise CheckpointError(f"{directory} does not fit the model: {error}") from None
    expected = {}
    for name, linear in linears.items():
        outputs, inputs = linear.dims
        expected[f"{name}.lora_a"] = (settings.rank, inputs)
        expected[f"{name}.lora_b"] = (outputs, settings.rank)
    path = directory / ADAPTERS_FILE
    found = stored_shapes(path)
    checksum = weights_checksum(model)
    is_base = None not in (checksum, base["weights"]) and checksum == base["weights"]
    if wrong_parameters(expected, found):
        problem = misfit(expected, found, path)
        raise CheckpointError(problem) if is_base else other_base(model, directory, base, problem)
    if not is_base and None not in (checksum, base["weights"]):
        raise other_weights(model, directory, base, checksum)
    return settings, linears
