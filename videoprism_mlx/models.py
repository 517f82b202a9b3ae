"""The known models and their configurations; building a model from one."""

import inspect
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from videoprism_mlx.encoders import (
    FactorizedEncoder,
    FactorizedVideoClassifier,
    FactorizedVideoCLIP,
    TextEncoder,
    VideoPrismModel,
)
from videoprism_mlx.errors import InputError, InputTypeError, shown, suggestion, whole_number
from videoprism_mlx.tokenizers import C4_EN_VOCABULARY_SIZE

KINETICS_400_CLASSES = 400

MODEL_CLASSES: dict[str, type[VideoPrismModel]] = {
    cls.__name__: cls
    for cls in (FactorizedEncoder, FactorizedVideoCLIP, FactorizedVideoClassifier, TextEncoder)
}

_BACKBONES = {
    "base": dict(
        patch_size=18,
        pos_emb_shape=(16, 16, 16),
        model_dim=768,
        num_spatial_layers=12,
        num_temporal_layers=4,
        num_heads=12,
        mlp_dim=3072,
        atten_logit_cap=50.0,
    ),
    "large": dict(
        patch_size=18,
        pos_emb_shape=(8, 16, 16),
        model_dim=1024,
        num_spatial_layers=24,
        num_temporal_layers=4,
        num_heads=16,
        mlp_dim=4096,
        atten_logit_cap=50.0,
    ),
    "giant": dict(
        patch_size=18,
        pos_emb_shape=(8, 16, 16),
        model_dim=1408,
        num_spatial_layers=40,
        num_temporal_layers=4,
        num_heads=16,
        mlp_dim=6144,
        atten_logit_cap=50.0,
    ),
}

_TEXT_TOWERS = {
    "base": dict(num_unimodal_layers=12, norm_policy="pre"),
    "large": dict(num_unimodal_layers=12, norm_policy="pre"),
    "giant": dict(num_unimodal_layers=16, norm_policy="primer_hybrid"),
}

CONFIGS: dict[str, dict[str, Any]] = {}
for _size, _backbone in _BACKBONES.items():
    CONFIGS[f"videoprism_v1_{_size}"] = dict(model="FactorizedEncoder", **_backbone)
    CONFIGS[f"videoprism_lvt_v1_{_size}"] = dict(
        model="FactorizedVideoCLIP",
        **_backbone,
        num_auxiliary_layers=2,
        vocabulary_size=C4_EN_VOCABULARY_SIZE,
        enable_causal_atten=True,
        **_TEXT_TOWERS[_size],
    )
    CONFIGS[f"videoprism_vc_v1_{_size}"] = dict(
        model="FactorizedVideoClassifier",
        encoder_params=_backbone,
        num_classes=KINETICS_400_CLASSES,
    )


# The small model that comes with the package, trained on the clips of demo/world.py.
DEMO_MODEL = "videoprism_lvt_demo_tiny"
SHIPPED = {DEMO_MODEL: Path(__file__).parent / "demo" / "model"}
CONFIGS[DEMO_MODEL] = dict(
    model="FactorizedVideoCLIP",
    patch_size=16,
    pos_emb_shape=(4, 4, 4),
    model_dim=96,
    num_spatial_layers=3,
    num_temporal_layers=1,
    num_heads=4,
    mlp_dim=384,
    atten_logit_cap=50.0,
    vocabulary_size=128,
    enable_causal_atten=True,
    num_unimodal_layers=2,
    norm_policy="pre",
)


class Release(NamedTuple):
    """A published checkpoint: its Hugging Face repository and file."""

    repository: str
    filename: str


RELEASES = {
    "videoprism_public_v1_base": Release(
        "google/videoprism-base-f16r288", "flax_base_f16r288_repeated.npz"
    ),
    "videoprism_public_v1_large": Release(
        "google/videoprism-large-f8r288", "flax_large_f8r288_repeated.npz"
    ),
    "videoprism_lvt_public_v1_base": Release(
        "google/videoprism-lvt-base-f16r288", "flax_lvt_base_f16r288_repeated.npz"
    ),
    "videoprism_lvt_public_v1_large": Release(
        "google/videoprism-lvt-large-f8r288", "flax_lvt_large_f8r288_repeated.npz"
    ),
}

# The name of a released checkpoint is that of its configuration with "public_" added.
for _name in RELEASES:
    CONFIGS[_name] = CONFIGS[_name.replace("public_", "")]

# What a config.json says beside the settings of the model: where its weights come from, how their
# Flax checkpoint was laid out, how they are quantized, their checksum and its own.
NOT_SETTINGS = ("source", "scan", "quantization", "weights_sha256", "crc32")

# Endings of the settings that may be zero. Every other size is above zero.
MAY_BE_ZERO = ("_layers", "_class_tokens", "pooler_dim")

# The most that a setting may be, by the ending of its name: ten times and more of what the largest
# transformers have. Above is a damaged configuration, which would exhaust the memory.
MOST = {
    "_layers": 1000,
    "_class_tokens": 2**16,
    "_heads": 2**12,
    "_cap": 10**6,
    "patch_size": 2**10,
    "pos_emb_shape": 2**16,
    "model_dim": 2**16,
    "mlp_dim": 2**18,
    "pooler_dim": 2**18,
    "vocabulary_size": 2**24,
    "num_classes": 2**24,
}

# A hundred times as many as the largest VideoPrism has.
MOST_PARAMETERS = 10**11

_DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


def has_model(name: str) -> bool:
    """Whether `name` is a configuration or the Hugging Face id of a released checkpoint."""
    return canonical_name(name) is not None


def canonical_name(name: str) -> str | None:
    """The name in CONFIGS that a name or Hugging Face id stands for; None if it is unknown."""
    if not isinstance(name, str):
        raise InputTypeError(f"a model's name is {name!r}; expected a string")
    if name in CONFIGS:
        return name
    return next((key for key, release in RELEASES.items() if release.repository == name), None)


def known_names() -> list[str]:
    """Every name that `get_model` accepts."""
    return [*CONFIGS, *(release.repository for release in RELEASES.values())]


def known_models(name: str) -> str:
    """The end of an error about an unknown name: the closest known one, and those with weights.

    A released checkpoint is named rather than the configuration without weights that it fits.
    """
    releases = {
        other: release
        for release in RELEASES
        for other in CONFIGS
        if other not in RELEASES and CONFIGS[other] is CONFIGS[release]
    }
    return (
        f"{suggestion(name, known_names(), releases)}. Those with weights are "
        f"{', '.join([*RELEASES, *SHIPPED])}; `videoprism-mlx info` (list_models()) lists all"
    )


def unpublished(name: str) -> str:
    """The error message for the name of a configuration without published weights."""
    published = [release for release in RELEASES if CONFIGS[release] is CONFIGS[name]]
    return (
        f"{name} is a configuration without published weights"
        f"{'; the weights of ' + published[0] + ' fit it' if published else ''}. Convert your own "
        f"checkpoint with `videoprism-mlx convert CHECKPOINT.npz -o DIRECTORY --config {name}` and "
        "load the directory, or use get_model for a model with random weights"
    )


def get_config(name_or_config: str | Mapping[str, Any]) -> dict[str, Any]:
    """The checked configuration of that name, or the given configuration, checked."""
    if isinstance(name_or_config, Mapping):
        return checked_config(name_or_config)
    name = canonical_name(name_or_config)
    if name is None:
        raise InputError(f"no model is called {name_or_config!r}{known_models(name_or_config)}")
    return checked_config(CONFIGS[name])


def checked_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config`, checked, with "model" first and then the settings of its class.

    Raises InputError if a setting is unknown, missing, of the wrong type or implausibly large.
    The keys NOT_SETTINGS are left out.
    """
    if not isinstance(config, Mapping):
        raise InputError(f"the configuration is {shown(config)}; expected a mapping of settings")
    config = {str(key): value for key, value in config.items() if key not in NOT_SETTINGS}
    class_name = config.pop("model", None)
    if not isinstance(class_name, str) or class_name not in MODEL_CLASSES:
        raise InputError(
            f'the configuration\'s "model" is {shown(class_name)}; '
            f"expected one of {', '.join(MODEL_CLASSES)}"
        )
    keywords = inspect.signature(MODEL_CLASSES[class_name]).parameters
    check_keywords(config, keywords, class_name)
    if class_name == "FactorizedVideoClassifier":
        params = {str(key): v for key, v in config["encoder_params"].items() if key != "scan"}
        check_keywords(params, inspect.signature(FactorizedEncoder).parameters, "encoder_params")
        config["encoder_params"] = params
    if (parameters := parameter_estimate(class_name, config)) > MOST_PARAMETERS:
        raise InputError(
            f"the configuration describes a {class_name} of about {parameters:.1g} parameters; "
            f"expected at most {MOST_PARAMETERS:.0g}"
        )
    return dict(model=class_name, **config)


def parameter_estimate(class_name: str, config: Mapping[str, Any]) -> int:
    """About how many parameters a model has, without biases and norms."""
    settings = with_defaults(class_name, config)
    if class_name == "FactorizedVideoClassifier":
        encoder = settings["encoder_params"]
        width = with_defaults("FactorizedEncoder", encoder)["model_dim"]
        head = int(width * (4 * (settings["pooler_dim"] or width) + settings["num_classes"]))
        return parameter_estimate("FactorizedEncoder", encoder) + head
    width, mlp_dim = settings["model_dim"], settings["mlp_dim"]

    def layers(hidden_dim: int, *names: str) -> int:
        count = sum(settings[name] for name in names)
        return int(count * width * (4 * width + 2 * hidden_dim))

    total = width * settings.get("vocabulary_size", 0)
    if class_name == "TextEncoder":
        return int(total + layers(mlp_dim, "num_layers"))
    frames, rows, columns = settings["pos_emb_shape"]
    total += width * (3 * settings["patch_size"] ** 2 + frames + rows * columns)
    total += layers(mlp_dim, "num_spatial_layers", "num_temporal_layers")
    if class_name == "FactorizedVideoCLIP":
        total += layers(mlp_dim, "num_auxiliary_layers") + 16 * width**2
        total += layers(4 * width, "num_unimodal_layers")
    return int(total)


def with_defaults(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, with the defaults of the settings that it leaves out."""
    parameters = inspect.signature(MODEL_CLASSES[class_name]).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    return defaults | dict(config)


def whole_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A checked configuration with the defaults of its class, in values of JSON.

    Those of two configurations are equal if they are of the same model.
    """
    whole: dict[str, Any] = json.loads(json.dumps(with_defaults(config["model"], config)))
    return whole


def check_keywords(
    config: Mapping[str, Any], keywords: Mapping[str, inspect.Parameter], owner: str
) -> None:
    """Checks that all settings are known and of the right type, and that none is missing."""
    for key, value in config.items():
        if key not in keywords:
            raise InputError(
                f"{owner} has no setting {shown(key)}{suggestion(key[:80], keywords)}. "
                f"It takes: {', '.join(keywords)}"
            )
        kind, expected = _KINDS[keywords[key].annotation]
        if key.endswith(MAY_BE_ZERO):
            kind, expected = _is_count, "a whole number"
        most = next((most for ending, most in MOST.items() if key.endswith(ending)), None)
        if most is not None:
            expected += f", at most {most:,}"
        sizes = value if isinstance(value, (list, tuple)) else [value]
        if not kind(value) or (most is not None and any(size > most for size in sizes)):
            raise InputError(f"{owner}: {key} is {shown(value)}; expected {expected}")
    for key, parameter in keywords.items():
        if parameter.default is inspect.Parameter.empty and key not in config:
            raise InputError(f"{owner} needs the setting {key!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_cap(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value < math.inf


def _is_size(value: Any) -> bool:
    return _is_count(value) and value > 0


def _is_shape(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_is_size, value))


# For each type that a class declares: how to check a setting, and what the error says is expected.
_KINDS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (_is_size, "a whole number above zero"),
    float: (_is_cap, "a number, 0 or above"),
    bool: (lambda v: isinstance(v, bool), "true or false"),
    str: (lambda v: isinstance(v, str), "a string"),
    tuple[int, int, int]: (_is_shape, "three whole numbers above zero"),
    dict[str, Any]: (lambda v: isinstance(v, Mapping), "a mapping of encoder settings"),
}


def parse_dtype(dtype: str | mx.Dtype) -> mx.Dtype:
    """The MLX type of that name. Raises InputError unless it is one of the floating-point types."""
    name = str(dtype).removeprefix("mlx.core.")
    if name not in _DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def build(config: Mapping[str, Any]) -> VideoPrismModel:
    """The model that a checked configuration describes, with random weights.

    MLX computes the weights only when they are used. The model keeps the configuration as
    `model.config`, for saving.
    """
    keywords = dict(config)
    model = MODEL_CLASSES[keywords.pop("model")](**keywords)
    # MLX draws each key from the one before. Without this, the chain of all keys would be kept.
    mx.eval(mx.random.state)
    model.describe(config)
    return model


def get_model(
    name: str | Mapping[str, Any],
    dtype: str | mx.Dtype | None = None,
    num_classes: int | None = None,
) -> VideoPrismModel:
    """A model with random weights: by name, by Hugging Face id, or from a config mapping.

    `dtype` is the type of parameters and activations, by default float32. `num_classes` is the
    number of classes of a classifier (`videoprism_vc_v1_*`), by default the 400 of Kinetics.
    """
    config = get_config(name)
    if num_classes is not None:
        config = checked_config(config | {"num_classes": whole_number(num_classes, "num_classes")})
    model = build(config)
    if dtype is not None:
        model.set_dtype(parse_dtype(dtype))
    return model
