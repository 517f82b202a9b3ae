"""Checkpoints of Hugging Face Transformers to model directories, and back."""

from videoprism_mlx.convert.transformers.config import (
    MODEL_TYPES,
    is_transformers,
    read_transformers_config,
)
from videoprism_mlx.convert.transformers.reading import (
    KEPT,
    kept,
    kept_name,
    outlined,
    transformers_to_mlx,
)
from videoprism_mlx.convert.transformers.settings import FILES
from videoprism_mlx.convert.transformers.weights import SHARDS
from videoprism_mlx.convert.transformers.writing import mlx_to_transformers

__all__ = [
    "FILES",
    "KEPT",
    "MODEL_TYPES",
    "SHARDS",
    "is_transformers",
    "kept",
    "kept_name",
    "mlx_to_transformers",
    "outlined",
    "read_transformers_config",
    "transformers_to_mlx",
]
