"""Training a classifier or a video-text model."""

from videoprism_mlx.training.session import Trained

__all__ = ["Trained"]
