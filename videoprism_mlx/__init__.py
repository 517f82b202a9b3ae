"""VideoPrism in MLX."""

from videoprism_mlx import openblas

openblas.preload()

# ruff: noqa: E402 - MLX is imported from here on.
from videoprism_mlx import convert
from videoprism_mlx.checkpoint import CheckpointError, save_model
from videoprism_mlx.encoders import (
    FactorizedEncoder,
    FactorizedVideoClassifier,
    FactorizedVideoCLIP,
    TextEncoder,
)
from videoprism_mlx.loading import load_classifier, load_model, load_video_encoder
from videoprism_mlx.models import get_model, has_model
from videoprism_mlx.tokenizers import canonicalize_text, load_text_tokenizer, tokenize_texts

__all__ = [
    "CheckpointError",
    "FactorizedEncoder",
    "FactorizedVideoCLIP",
    "FactorizedVideoClassifier",
    "TextEncoder",
    "canonicalize_text",
    "convert",
    "get_model",
    "has_model",
    "load_classifier",
    "load_model",
    "load_text_tokenizer",
    "load_video_encoder",
    "save_model",
    "tokenize_texts",
]
