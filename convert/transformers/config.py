"""Transformers' config.json and our configuration, both ways.

What a configuration of Transformers says and a model here cannot do is an error, so that no model
silently computes something else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import CheckpointError, InputError, excerpt, shown
from videoprism_mlx.files.reading import read_json_object
from videoprism_mlx.models import checked_config, with_defaults
from videoprism_mlx.tokenizers import TEXT_MAX_LENGTH
from videoprism_mlx.weights.directory import CONFIG_FILE

# Our class, for each class in Transformers.
CLASSES = {
    "VideoPrismVisionModel": "FactorizedEncoder",
    "VideoPrismClipModel": "FactorizedVideoCLIP",
    "VideoPrismForVideoClassification": "FactorizedVideoClassifier",
    "VideoPrismTextModel": "TextEncoder",
}

# Transformers' class for each kind of configuration, if it does not say which.
MODEL_TYPES = {
    "videoprism": "VideoPrismClipModel",
    "videoprism_vision_model": "VideoPrismVisionModel",
    "videoprism_text_model": "VideoPrismTextModel",
}

# Settings by their names here, with Transformers' names and defaults.
BOTH = {
    "model_dim": ("hidden_size", 768),
    "mlp_dim": ("intermediate_size", 3072),
    "num_heads": ("num_attention_heads", 12),
    "atten_logit_cap": ("attn_logit_softcapping", 50.0),
}
VISION = BOTH | {
    "num_spatial_layers": ("num_spatial_layers", 12),
    "num_temporal_layers": ("num_temporal_layers", 4),
}
TEXT = BOTH | {"vocabulary_size": ("vocab_size", 32_000), "num_layers": ("num_hidden_layers", 12)}

# Settings that must have one of these values, with Transformers' default first.
FIXED_IN_BOTH = {"layer_norm_eps": (1e-6,), "qkv_bias": (True,)}
FIXED_IN_VISION = FIXED_IN_BOTH | {"hidden_act": ("gelu_python", "gelu"), "num_channels": (3,)}
FIXED_IN_TEXT = FIXED_IN_BOTH | {"hidden_act": ("relu",)}

# What our config.json says under "source" about the layout of the Flax checkpoint.
FLAX_LAYOUT = "flax_layout"

# Settings that are read elsewhere, or change no result of a trained model.
OTHERS = {
    *("architectures", "model_type", "dtype", "torch_dtype", "transformers_version"),
    *("_name_or_path", "_attn_implementation", "_attn_implementation_autoset"),
    *("image_size", "num_frames", "tubelet_size", "num_auxiliary_layers", "apply_l2norm"),
    *("id2label", "label2id", "num_labels", "problem_type", "max_position_embeddings"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "initializer_range"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "chunk_size_feed_forward"),
    *("return_dict", "output_attentions", "output_hidden_states", "is_encoder_decoder"),
    FLAX_LAYOUT,
}

TOWERS = {"videoprism_vision_model": "vision_config", "videoprism_text_model": "text_config"}


def is_transformers(directory: Path) -> bool:
    """Whether a directory has a config.json as Transformers writes it, of any architecture."""
    path = Path(directory) / CONFIG_FILE
    if not path.is_file():
        return False
    found = read_json_object(path, CheckpointError)
    return "model_type" in found and "model" not in found


def read_transformers_config(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our configuration of a model of Transformers, and all that its config.json holds."""
    path = Path(directory) / CONFIG_FILE
    if not is_transformers(directory):
        raise CheckpointError(
            f"{directory} is not a model of Transformers: it has no {CONFIG_FILE} with a "
            "model_type; expected a directory that save_pretrained has written"
        )
    found = read_json_object(path, CheckpointError)
    try:
        return checked_config(own_config(found)), found
    except InputError as error:
        raise CheckpointError(f"{path}: {error}") from None


def own_config(found: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration of what Transformers' config.json holds, as its parameters are there."""
    kind = found.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_TYPES:
        raise InputError(
            f'it is of another architecture: "model_type" is {shown(kind)}; '
            f"expected one of {', '.join(MODEL_TYPES)}"
        )
    own_class = CLASSES.get(class_of(found))
    if own_class is None:
        raise InputError(
            f"{excerpt(class_of(found))} is not a model that is known here; "
            f"expected one of {', '.join(CLASSES)}"
        )
    if own_class == "FactorizedVideoCLIP":
        return clip_config(found)
    if own_class == "TextEncoder":
        fixed = dict(num_class_tokens=1, enable_causal_atten=True, norm_policy="pre")
        return {"model": own_class, **text_settings(found), **fixed}
    vision = vision_settings(found)
    if own_class == "FactorizedEncoder":
        return {"model": own_class, **vision}
    classes = found.get("id2label", {"0": "", "1": ""})
    if not isinstance(classes, Mapping):
        raise InputError(f"id2label is {shown(classes)}; expected an object")
    own = {"model": own_class, "encoder_params": vision, "num_classes": len(classes)}
    # Transformers' pooler is as wide as the layers of its MLPs.
    is_official = vision["mlp_dim"] == vision["model_dim"]
    return own if is_official else own | {"pooler_dim": vision["mlp_dim"]}


def class_of(found: Mapping[str, Any]) -> str:
    """The name of the class in Transformers that a config.json is for."""
    named = found.get("architectures")
    if isinstance(named, list) and len(named) == 1:
        return str(named[0])
    return MODEL_TYPES[str(found["model_type"])]


def clip_config(found: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration of a video-text model."""
    towers = {}
    for kind, key in TOWERS.items():
        towers[key] = found.get(key) or {}
        if not isinstance(towers[key], Mapping):
            raise InputError(f"{key} is {shown(towers[key])}; expected an object")
        if towers[key].get("model_type", kind) != kind:
            raise InputError(f"{key} is of the type {shown(towers[key]['model_type'])}, not {kind}")
        if towers[key].get("apply_l2norm", True) is not True:
            raise InputError(
                f"apply_l2norm is false in {key}; embeddings here have length one: set it to true, "
                "and call the model with normalize=False for the others"
            )
    require_known(found, {*OTHERS, *TOWERS.values()})
    vision, text = vision_settings(towers["vision_config"]), text_settings(towers["text_config"])
    for name in ("model_dim", "num_heads", "atten_logit_cap"):
        if vision[name] != text[name]:
            raise InputError(
                f"{BOTH[name][0]} is {shown(vision[name])} for videos and {shown(text[name])} for "
                "texts; expected the same"
            )
    for settings, of in ((vision, "vision"), (text, "text")):
        if settings["mlp_dim"] != 4 * settings["model_dim"]:
            raise InputError(
                f"intermediate_size is {settings['mlp_dim']} in {of}_config; expected four times "
                f"hidden_size, {4 * settings['model_dim']}, as a video-text model has here"
            )
    auxiliary = towers["vision_config"].get("num_auxiliary_layers", 2)
    return {
        "model": "FactorizedVideoCLIP",
        **vision,
        "num_auxiliary_layers": auxiliary,
        "vocabulary_size": text["vocabulary_size"],
        "enable_causal_atten": True,
        "num_unimodal_layers": text["num_layers"],
        "norm_policy": "pre",
    }


def vision_settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings of a video encoder."""
    settings = own_settings(found, VISION, FIXED_IN_VISION)
    tubelet = found.get("tubelet_size", [1, 18, 18])
    if (
        not isinstance(tubelet, list)
        or len(tubelet) != 3
        or tubelet[0] != 1
        or tubelet[1] != tubelet[2]
        or not is_size(tubelet[1])
    ):
        raise InputError(f"tubelet_size is {shown(tubelet)}; expected [1, P, P]")
    patch, image = tubelet[1], found.get("image_size", 288)
    sides = image if isinstance(image, list) else [image, image]
    if len(sides) != 2 or not all(is_size(side) and side % patch == 0 for side in sides):
        raise InputError(f"image_size is {shown(image)}; expected a multiple of {patch}, or two")
    shape = [found.get("num_frames", 16), sides[0] // patch, sides[1] // patch]
    return {"patch_size": patch, "pos_emb_shape": shape, **settings}


def text_settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings of a text encoder."""
    return own_settings(found, TEXT, FIXED_IN_TEXT)


def own_settings(
    found: Mapping[str, Any],
    names: Mapping[str, tuple[str, Any]],
    fixed: Mapping[str, tuple[Any, ...]],
) -> dict[str, Any]:
    """The settings of one tower by our names. Raises InputError if a model here lacks one."""
    known = {name for name, _ in names.values()}
    require_known(found, {*OTHERS, *known, *fixed})
    for name, allowed in fixed.items():
        if found.get(name, allowed[0]) not in allowed:
            raise InputError(
                f"{name} is {shown(found[name])}; expected {' or '.join(map(str, allowed))}"
            )
    settings = {ours: found.get(name, default) for ours, (name, default) in names.items()}
    for ours in ("model_dim", "mlp_dim"):
        if not is_size(settings[ours]):
            raise InputError(
                f"{names[ours][0]} is {shown(settings[ours])}; expected a whole number above zero"
            )
    cap = settings["atten_logit_cap"]
    if not isinstance(cap, (int, float)) or not cap > 0:
        # With 0, Transformers computes something else than an official model without a cap.
        raise InputError(f"attn_logit_softcapping is {shown(cap)}; expected a number above zero")
    return settings


def require_known(found: Mapping[str, Any], known: set[str]) -> None:
    """Raises InputError if a configuration has other settings."""
    if strange := [key for key in found if key not in known]:
        raise InputError(
            f"the setting {shown(strange[0])} is not known for VideoPrism; if it changes no "
            "result, remove it"
        )


def is_size(value: Any) -> bool:
    """Whether a setting is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def require_expressible(config: Mapping[str, Any]) -> None:
    """Raises InputError unless Transformers has models of this configuration."""
    settings = with_defaults(config["model"], config)
    if "encoder_params" in settings:
        settings = with_defaults("FactorizedEncoder", settings["encoder_params"])
    wanted = {"norm_policy": "pre", "enable_causal_atten": True}
    if config["model"] == "TextEncoder":
        wanted |= {"num_class_tokens": 1, "enable_per_dim_scale": False}
    if config["model"] == "FactorizedVideoCLIP":
        wanted |= {"mlp_dim": 4 * settings["model_dim"]}
    for name, value in wanted.items():
        if settings.get(name, value) != value:
            raise InputError(
                f"Transformers has no VideoPrism with {name} = {shown(settings[name])}; "
                f"expected {value}"
            )
    if not settings["atten_logit_cap"]:
        raise InputError(
            "Transformers has no VideoPrism without a cap of logits; expected an atten_logit_cap"
        )


def transformers_config(
    config: Mapping[str, Any], max_length: int = TEXT_MAX_LENGTH
) -> dict[str, Any]:
    """The content of a config.json for Transformers. `max_length` is that of texts."""
    require_expressible(config)
    own_class = config["model"]
    settings = with_defaults(own_class, config)
    theirs = next(name for name, ours in CLASSES.items() if ours == own_class)
    described: dict[str, Any] = {"architectures": [theirs], "dtype": "float32"}
    if own_class == "FactorizedVideoCLIP":
        text = settings | {
            "mlp_dim": 4 * settings["model_dim"],
            "num_layers": settings["num_unimodal_layers"],
        }
        return described | {
            "model_type": "videoprism",
            "vision_config": vision_config(settings),
            "text_config": text_config(text, max_length),
        }
    if own_class == "TextEncoder":
        return described | text_config(settings, max_length)
    encoder = with_defaults("FactorizedEncoder", settings.get("encoder_params", settings))
    return described | vision_config(encoder)


def vision_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Transformers' settings of a video encoder."""
    patch, (frames, rows, columns) = settings["patch_size"], settings["pos_emb_shape"]
    height, width = rows * patch, columns * patch
    return {
        "model_type": "videoprism_vision_model",
        **their_settings(settings, VISION),
        **{name: allowed[0] for name, allowed in FIXED_IN_VISION.items()},
        "num_auxiliary_layers": settings.get("num_auxiliary_layers", 0),
        "num_frames": frames,
        "image_size": height if height == width else [height, width],
        "tubelet_size": [1, patch, patch],
    }


def text_config(settings: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """Transformers' settings of a text encoder."""
    return {
        "model_type": "videoprism_text_model",
        **their_settings(settings, TEXT),
        **{name: allowed[0] for name, allowed in FIXED_IN_TEXT.items()},
        "max_position_embeddings": max_length,
    }


def their_settings(
    settings: Mapping[str, Any], names: Mapping[str, tuple[str, Any]]
) -> dict[str, Any]:
    """Settings by Transformers' names, in the types of its defaults."""
    return {theirs: type(default)(settings[ours]) for ours, (theirs, default) in names.items()}
