"""Converts checkpoints between the official Flax layout and model directories."""

from videoprism_mlx.convert.flax import Conversion, flax_to_mlx, mlx_to_flax
from videoprism_mlx.convert.standin import draw_checkpoint
from videoprism_mlx.convert.verify import verify

__all__ = ["Conversion", "draw_checkpoint", "flax_to_mlx", "mlx_to_flax", "verify"]
