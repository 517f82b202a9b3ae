"""VideoPrism in MLX."""

from importlib import import_module
from typing import Any

from videoprism_mlx.runtime import blas

blas.preload()  # Before anything imports MLX.

# Where the public names live. They are imported when first used, so that a script pays for what
# it needs, and `videoprism-mlx --help` for next to nothing.
_HOMES = {
    "datasets.captions": ["read_captions"],
    "datasets.labels": ["read_labels"],
    "encoders": [
        "FactorizedEncoder",
        "FactorizedVideoCLIP",
        "FactorizedVideoClassifier",
        "TextEncoder",
    ],
    "errors": ["CheckpointError", "VideoError", "VideoPrismError"],
    "evaluation.protocols": ["evaluate_classifier", "evaluate_retrieval", "evaluate_zero_shot"],
    "features.compare": ["classify", "compare"],
    "features.embed": ["embed"],
    "features.encode": ["encode"],
    "features.processor": ["Processor", "load"],
    "features.text": ["embed_texts", "probabilities"],
    "features.windows": ["encode_windows"],
    "models": ["get_model", "has_model"],
    "runtime.device": ["set_block_size"],
    "tokenizers": ["canonicalize_text", "load_text_tokenizer", "tokenize_texts"],
    "training.classifier": ["train_classifier"],
    "training.recipe": ["Recipe"],
    "training.retrieval": ["Tuning", "train_retrieval"],
    "video.ffmpeg.decoding": ["Decoding"],
    "video.ffmpeg.describe": ["describe_video"],
    "video.find": ["find_videos"],
    "video.sampling": ["read_video"],
    "weights.adapters": ["add_adapters", "fuse_adapters", "load_adapters", "save_adapters"],
    "weights.directory": ["save_model"],
    "weights.loading": ["load_classifier", "load_model", "load_video_encoder"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# Modules and rooms that `vp.NAME` gives without an import of their own.
_MODULES = {"convert", *(home.partition(".")[0] for home in _HOMES)}

__all__ = sorted(["convert", *_HOME_OF])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
