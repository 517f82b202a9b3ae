"""Training classifiers and video-text models."""

from videoprism_mlx.training.session import Trained

__all__ = ["Trained"]
