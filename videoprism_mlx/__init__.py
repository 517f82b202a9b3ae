"""VideoPrism in MLX."""

from importlib import import_module
from typing import Any

from videoprism_mlx import openblas

openblas.preload()  # Before anything imports MLX.

# Where the public names live. They are imported when first used, so that a script pays for what
# it needs, and `videoprism-mlx --help` for next to nothing.
_HOMES = {
    "backend": ["set_block_size"],
    "checkpoint": ["CheckpointError", "save_model"],
    "classification": ["train_classifier"],
    "datasets": ["read_captions", "read_labels"],
    "encoding": ["encode", "encode_windows"],
    "evaluation": ["evaluate_classifier", "evaluate_retrieval", "evaluate_zero_shot"],
    "encoders": [
        "FactorizedEncoder",
        "FactorizedVideoCLIP",
        "FactorizedVideoClassifier",
        "TextEncoder",
    ],
    "loading": ["load_classifier", "load_model", "load_video_encoder"],
    "lora": ["add_adapters", "fuse_adapters", "load_adapters", "save_adapters"],
    "models": ["get_model", "has_model"],
    "processor": ["Processor", "load"],
    "retrieval": ["Tuning", "train_retrieval"],
    "similarity": ["embed_texts", "probabilities"],
    "tokenizers": ["canonicalize_text", "load_text_tokenizer", "tokenize_texts"],
    "training": ["Recipe"],
    "video": ["VideoError", "find_videos", "read_video"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(["convert", *_HOME_OF])


def __getattr__(name: str) -> Any:
    if name == "convert" or name in _HOMES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
