"""Strange colours: clips that are recoloured to grey, and to hues that no colour of the world has.

Shapes: K clips, T frames, S size of a frame.
"""

import math
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.demo.scenes import COLOURS, Scene

Floats = npt.NDArray[np.float32]

GREY = 0.3  # The share of clips in strange colours that are grey.
TINTS = ((75, 107), (157, 199), (297, 306))  # Hues, in degrees, that are far from those of colours.


def hue(colour: str) -> float:
    """The angle of a colour around the axis of greys, in degrees. That of red is 0."""
    red, green, blue = COLOURS[colour]
    return math.degrees(math.atan2(3**0.5 * (green - blue), 2 * red - green - blue)) % 360


def recolouring(share: float, turn: float) -> Floats:
    """A matrix (3, 3) that turns hues by degrees, and leaves a share of the colour: 0 is grey."""
    angle, grey = math.radians(turn), np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    rotation = math.cos(angle) * (np.eye(3) - grey) + math.sin(angle) * cross
    matrix: Floats = (grey + share * rotation).astype(np.float32)
    return matrix


def strange_recolouring(scene: Scene, random: np.random.Generator) -> Floats:
    """A matrix (3, 3) that makes the thing of a clip grey, or of a hue in TINTS."""
    if random.random() < GREY:
        return recolouring(0, 0)
    tint = random.uniform(*TINTS[random.integers(len(TINTS))])
    return recolouring(1, tint - hue(scene.shown("colour")))


def recoloured(clips: mx.array, matrices: Sequence[Floats]) -> mx.array:
    """Clips (K, T, S, S, 3) in [0, 1], each with its colours times its matrix (3, 3)."""
    return mx.clip(mx.einsum("ktxyc,kdc->ktxyd", clips, mx.array(np.stack(matrices))), 0, 1)
