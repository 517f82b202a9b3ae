"""Converts checkpoints of Flax and of Transformers to model directories, and back."""

from videoprism_mlx.convert.flax import Conversion, flax_to_mlx, mlx_to_flax
from videoprism_mlx.convert.standin import draw_checkpoint
from videoprism_mlx.convert.transformers import mlx_to_transformers, transformers_to_mlx
from videoprism_mlx.convert.verify import verify

__all__ = [
    "Conversion",
    "draw_checkpoint",
    "flax_to_mlx",
    "mlx_to_flax",
    "mlx_to_transformers",
    "transformers_to_mlx",
    "verify",
]
