"""Clips with captions, and how their fixtures fine-tune the small video-text model."""

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.training.session import Trained

CAPTIONS = (
    ("a red cat runs", "the red cat"),
    ("a green dog sleeps",),
    ("a blue ball falls down", "a ball falls", "blue"),
    ("a grey kite plays in the garden",),
    ("a red car jumps over the fence",),
)
COLOURS = ((220, 30, 30), (30, 200, 30), (30, 30, 220), (128, 128, 128), (250, 220, 40))
RECIPE = Recipe(epochs=3, batch_size=4, learning_rate=3e-3, clip=1.0)
LONGER = dataclasses.replace(RECIPE, epochs=24, batch_size=5, learning_rate=3e-3)

Tune = Callable[..., Trained]


def write_rows(path: Path, rows: list[tuple[str, ...]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path
