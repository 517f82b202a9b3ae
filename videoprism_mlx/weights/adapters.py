"""Adapters: small matrices beside a model's linear layers, trained in their place (LoRA).

Shapes: I inputs of a layer, O its outputs, R rank.
"""

import dataclasses
import json
import math
import operator
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import CheckpointError, InputError
from videoprism_mlx.files.atomic import new_file, require_new_file
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.files.record import own_version
from videoprism_mlx.layers import AttenTokenPoolingLayer, Linear, StackedTransformer
from videoprism_mlx.weights.directory import WEIGHTS_FILE, check_parameters, stored_shapes

ADAPTERS_FILE = "adapters.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"

# What an adapter adds to the parameters of a layer.
ADAPTER_NAMES = ("lora_a", "lora_b")


class LoRALinear(Linear):
    """A linear layer and, beside it, its inputs through two matrices, (R, I) and (O, R).

    The layer's own parameters are frozen. The matrices may be of a finer type than they.
    """

    def __init__(self, linear: Linear, lora_a: mx.array, lora_b: mx.array, scale: float):
        output_dims, input_dims = linear.weight.shape
        super().__init__(input_dims, output_dims, parts=linear.parts)
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_a, self.lora_b = lora_a, lora_b
        self.scale = scale
        self.freeze(keys=["weight", "bias"])

    def __call__(self, inputs: mx.array) -> mx.array:
        """(..., I) to (..., O)."""
        lora_a, lora_b = (part.astype(inputs.dtype) for part in (self.lora_a, self.lora_b))
        return super().__call__(inputs) + self.scale * ((inputs @ lora_a.T) @ lora_b.T)

    def fused(self) -> Linear:
        """The one linear layer that does the same."""
        output_dims, input_dims = self.weight.shape
        linear = Linear(input_dims, output_dims, parts=self.parts)
        weight, lora_a, lora_b = (
            part.astype(mx.float32) for part in (self.weight, self.lora_a, self.lora_b)
        )
        linear.weight = (weight + self.scale * (lora_b @ lora_a)).astype(self.weight.dtype)
        linear.bias = self.bias
        return linear

    def to_quantized(self, *args: Any, **kwargs: Any) -> nn.Module:
        raise InputError("a layer with adapters cannot be quantized; fuse_adapters comes first")


@dataclasses.dataclass(frozen=True)
class AdapterSettings:
    """Which layers have adapters, and of what rank: they count `alpha` / `rank` times."""

    rank: int
    alpha: float
    towers: tuple[str, ...]
    layers: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("rank", self.rank), ("layers", self.layers)):
            if value is not None and operator.index(value) < 1:
                raise InputError(f"{name} is {value}; expected 1 or more")
        if not 0 < self.alpha < math.inf:
            raise InputError(f"alpha is {self.alpha}; expected a number above 0")


def add_adapters(
    model: VideoPrismModel,
    rank: int,
    alpha: float | None = None,
    towers: Collection[str] | None = None,
    layers: int | None = None,
    seed: int = 0,
) -> VideoPrismModel:
    """Freezes a model and gives its linear layers adapters, which change nothing as they start.

    `alpha` is `rank` by default, so that the scale is 1. `towers` are some of "video" and "text",
    by default all that the model has, and `layers` the last so many of each stack of layers, by
    default all; the pooler counts as video. What is trained are `lora_a` and `lora_b` alone, of
    float32. Returns the model.
    """
    has = model.towers
    chosen = has if towers is None else [towers] if isinstance(towers, str) else towers
    alpha = rank if alpha is None else alpha
    settings = AdapterSettings(rank, alpha, tuple(dict.fromkeys(chosen)), layers)
    linears = adapted_layers(model, settings)
    keys = mx.random.split(mx.random.key(operator.index(seed)), len(linears))
    arrays = {}
    for key, (path, linear) in zip(keys, linears.items(), strict=True):
        outputs, inputs = linear.weight.shape
        bound = inputs**-0.5
        arrays[f"{path}.lora_a"] = mx.random.uniform(-bound, bound, (rank, inputs), key=key)
        arrays[f"{path}.lora_b"] = mx.zeros((outputs, rank))
    return with_adapters(model, settings, linears, arrays)


def with_adapters(
    model: VideoPrismModel,
    settings: AdapterSettings,
    linears: Mapping[str, Linear],
    arrays: Mapping[str, mx.array],
) -> VideoPrismModel:
    """`model`, frozen, its linear layers with the adapters of their paths."""
    scale = settings.alpha / settings.rank
    model.freeze()
    adapted = [
        (path, LoRALinear(linear, *(arrays[f"{path}.{name}"] for name in ADAPTER_NAMES), scale))
        for path, linear in linears.items()
    ]
    model.update_modules(tree_unflatten(adapted))
    # Past nn.Module's own __setattr__, as the configuration is kept.
    model.adapters = settings
    return model


def adapted_layers(model: VideoPrismModel, settings: AdapterSettings) -> dict[str, Linear]:
    """The linear layers that adapters are for, by path."""
    has = model.towers
    if not settings.towers or not set(settings.towers) <= set(has):
        raise InputError(
            f"towers are {', '.join(settings.towers) or 'none'}; a {type(model).__name__} "
            f"has {' and '.join(has)}"
        )
    linears: dict[str, Linear] = {}
    for name, part in model.named_modules():
        is_text = model.towers == ("text",) or name.startswith("text_encoder.")
        if ("text" if is_text else "video") not in settings.towers:
            continue
        if isinstance(part, StackedTransformer):
            numbered = list(enumerate(part.x_layers))[-(settings.layers or 0) :]
            chosen = [(f"{name}.x_layers.{number}", layer) for number, layer in numbered]
        elif isinstance(part, AttenTokenPoolingLayer):
            chosen = [(name, part)]
        else:
            continue
        for prefix, layer in chosen:
            for path, linear in layer.named_modules():
                if isinstance(linear, (nn.Linear, nn.QuantizedLinear)):
                    linears[f"{prefix}.{path}"] = linear
    linears = dict(sorted(linears.items()))
    for path, linear in linears.items():
        if isinstance(linear, LoRALinear):
            raise InputError(f"{path} has an adapter already; fuse_adapters comes first")
        if isinstance(linear, nn.QuantizedLinear):
            raise InputError(f"{path} is quantized; give adapters to the model as it was before")
        if settings.rank > min(linear.weight.shape):
            raise InputError(
                f"rank is {settings.rank}; expected {min(linear.weight.shape)} at most, "
                f"as wide as {path}"
            )
    return linears


def adapted_modules(model: VideoPrismModel) -> dict[str, LoRALinear]:
    """The layers of a model that have adapters, by path. ValueError if it was given none."""
    if model.adapters is None:
        raise InputError(f"this {type(model).__name__} was given no adapters; see add_adapters")
    return {path: each for path, each in model.named_modules() if isinstance(each, LoRALinear)}


def fuse_adapters(model: VideoPrismModel) -> VideoPrismModel:
    """Adds a model's adapters to its weights: a model like any other again. Returns it."""
    fused = [(path, each.fused()) for path, each in adapted_modules(model).items()]
    model.update_modules(tree_unflatten(fused))
    model.adapters = None
    model.directory = None  # Its weights are no longer those there.
    return model.unfreeze()


def save_adapters(model: VideoPrismModel, directory: str | Path, base: str | Path) -> None:
    """Writes a model's adapters alone; `base` is the name or directory of what they are added to.

    The directory may hold other things. It has adapters once its adapter_config.json is there.
    """
    arrays = {
        f"{path}.{name}": each[name]
        for path, each in adapted_modules(model).items()
        for name in ADAPTER_NAMES
    }
    directory = Path(directory)
    require_new_file(directory / ADAPTER_CONFIG_FILE)
    described = {
        **dataclasses.asdict(model.adapters),
        "base": {"name": str(base), "weights": base_checksum(model, base)},
        "version": own_version(),
    }
    with new_file(directory / ADAPTERS_FILE, replace=True) as partial, open(partial, "wb") as file:
        mx.save_safetensors(file, arrays, {"format": "mlx"})
    with new_file(directory / ADAPTER_CONFIG_FILE) as partial:
        partial.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def base_checksum(model: VideoPrismModel, base: str | Path | None = None) -> str | None:
    """The checksum of the file that a model's weights were read from; None if it is not known."""
    directory = model.directory or base
    path = None if directory is None else Path(directory) / WEIGHTS_FILE
    return sha256(path) if path and path.is_file() else None


def read_adapter_config(directory: Path) -> tuple[AdapterSettings, dict[str, Any]]:
    """What an adapter_config.json says of the adapters, and of what they are added to."""
    path = directory / ADAPTER_CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{directory} holds no adapters: it has no {ADAPTER_CONFIG_FILE}; "
            "expected what save_adapters writes"
        )
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        fields = [field.name for field in dataclasses.fields(AdapterSettings)]
        values = {name: described[name] for name in fields}
        settings = AdapterSettings(**values | {"towers": tuple(values["towers"])})
        base = described["base"]
        return settings, {"name": base["name"], "weights": base["weights"]}
    except KeyError as error:
        raise CheckpointError(f"{path} does not describe adapters: it lacks {error}") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe adapters: {error}") from None


def load_adapters(model: VideoPrismModel, directory: str | Path) -> VideoPrismModel:
    """Gives a loaded model the adapters in a directory, frozen as by add_adapters. Returns it.

    They must be those of its layers, all and no others, and of these very weights where the file
    that the model was read from is known. If anything is wrong the model stays as it was.
    """
    directory = Path(directory).expanduser()
    settings, base = read_adapter_config(directory)
    path = directory / ADAPTERS_FILE
    linears = adapted_layers(model, settings)
    expected = {}
    for name, linear in linears.items():
        outputs, inputs = linear.weight.shape
        expected[f"{name}.lora_a"] = (settings.rank, inputs)
        expected[f"{name}.lora_b"] = (outputs, settings.rank)
    check_parameters(expected, stored_shapes(path), path)
    checksum = base_checksum(model)
    if None not in (checksum, base["weights"]) and checksum != base["weights"]:
        raise CheckpointError(
            f"{directory} was trained on {base['name']}, whose weights have the checksum "
            f"{base['weights']}; those of {model.directory} have {checksum}. Load that model"
        )
    return with_adapters(model, settings, linears, dict(mx.load(str(path))))
