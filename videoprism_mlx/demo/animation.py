"""Drawing a scene as the frames of a clip, with OpenCV.

Shapes: T frames, S size of a frame, C corners. Clips are RGB, 0-255.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from videoprism_mlx.demo.scenes import COLOURS, DIRECTIONS, SIZES, Scene, Thing

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

FRAMES, FPS, SIZE = 16, 8, 192


def outline(shape: str) -> Array:
    """The corners (C, 2) of a shape with radius one."""
    turns = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    if shape == "circle":
        return 0.9 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    if shape == "heart":
        x = 16 * np.sin(turns) ** 3
        y = -13 * np.cos(turns) + 5 * np.cos(2 * turns) + 2 * np.cos(3 * turns) + np.cos(4 * turns)
        return np.stack([x, y - 2], axis=1) / 16
    if shape == "cross":
        near, far = 0.34, 0.97
        corner = np.array([[near, far], [near, near], [far, near]])
        quarter = np.array([[0, -1], [1, 0]])
        return np.concatenate([corner @ np.linalg.matrix_power(quarter, n) for n in range(4)])
    corners, radii = {
        "square": (4, [1.08]),
        "triangle": (3, [1.15]),
        "star": (10, [1.12, 0.5]),
    }[shape]
    start = np.pi / 4 if shape == "square" else -np.pi / 2
    angles = start + np.arange(corners) * 2 * np.pi / corners
    radius = np.resize(radii, corners)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def sprite(thing: Thing, radius: int = 72) -> Floats:
    """A thing on a transparent background (side, side, 4): RGB from 0 to 255, alpha from 0 to 1.

    The side is 8 / 3 of the radius.
    """
    side = 8 * radius // 3
    shift = 4
    points = np.round((outline(thing.shape) * radius + side / 2) * 2**shift).astype(np.int32)
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, shift)
    colour = np.array(COLOURS[thing.colour], np.float32)
    image: Array = np.broadcast_to(colour, (side, side, 3)).copy()
    y, x = np.mgrid[:side, :side] - side / 2
    if thing.texture == "striped":
        image[(y % (radius / 2)) < radius / 4] = 255 - 0.15 * (255 - colour)
    if thing.texture == "dotted":
        step = radius / 2.2
        near = (x % step - step / 2) ** 2 + (y % step - step / 2) ** 2 < (step / 3.4) ** 2
        image[near] = 255 - 0.15 * (255 - colour)
    edge = np.zeros((side, side), np.uint8)
    cv2.polylines(edge, [points], True, 255, radius // 10, cv2.LINE_AA, shift)
    share = edge[..., None] / 255.0
    image = image * (1 - share) + 0.35 * colour * share
    alpha = np.maximum(mask, edge)[..., None] / 255.0
    return np.concatenate([image, alpha], axis=2).astype(np.float32)


def draw_background(name: str, random: np.random.Generator, size: int) -> Floats:
    """A background (S, S, 3), 0-255, as floats. Its details are random."""
    plain = {"black": 12, "white": 245, "grey": 128}
    if name in plain:
        level = plain[name] + random.uniform(-8, 8)
        return np.full((size, size, 3), level, np.float32)
    if name == "night sky":
        image: Array = np.linspace((8, 10, 40), (30, 30, 85), size)[:, None].repeat(size, 1)
        for x, y in random.uniform(0, size, (40, 2)):
            level = random.uniform(120, 255)
            cv2.circle(image, (int(x), int(y)), 1, (level, level, level * 0.9), -1)
        return image.astype(np.float32)
    coarse = random.normal(0, 1, (size // 3, size // 3, 1)).astype(np.float32)
    grains: Array = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    sand: Floats = np.array([222, 196, 148], np.float32) + 14 * grains
    return sand


class Moment(NamedTuple):
    """A thing in one frame: place and radius as shares of the frame, angle in degrees."""

    x: float
    y: float
    radius: float
    angle: float
    is_shown: bool


def places(things: Sequence[Thing], random: np.random.Generator) -> list[tuple[float, float]]:
    """The middle (x, y) of each thing's path. Two things are apart."""
    if len(things) == 1:
        return [tuple(random.uniform(0.4, 0.6, 2))]
    motions = {thing.motion for thing in things}
    is_free = not motions & {"up", "down"} and random.random() < 0.5
    is_level = is_free or bool(motions & {"left", "right"})
    one, other = random.uniform(0.26, 0.3), random.uniform(0.7, 0.74)
    middles = [(random.uniform(0.42, 0.58), one), (random.uniform(0.42, 0.58), other)]
    return middles if is_level else [(y, x) for x, y in middles]


def path_of(
    thing: Thing, middle: tuple[float, float], is_alone: bool, random: np.random.Generator
) -> list[Moment]:
    """A thing in each of the T frames."""
    radius = SIZES[thing.size] * random.uniform(0.9, 1.1) * (1 if is_alone else 0.75)
    tilt = random.uniform(-8, 8)
    turn = random.uniform(120, 200) * random.choice([-1, 1])
    reach = random.uniform(0.2, 0.3) if is_alone else random.uniform(0.16, 0.22)
    phase = int(random.integers(8))
    growth = random.uniform(0.3, 0.45)
    moments = []
    for frame in range(FRAMES):
        time = frame / (FRAMES - 1)
        dx, dy = DIRECTIONS.get(thing.motion, (0, 0))
        scale = {"growing": growth + time * 0.75, "shrinking": growth + (1 - time) * 0.75}
        moments.append(
            Moment(
                middle[0] + dx * reach * (2 * time - 1),
                middle[1] + dy * reach * (2 * time - 1),
                radius * scale.get(thing.motion, 1.0),
                tilt + (turn * time if thing.motion == "spinning" else 0),
                thing.motion != "blinking" or (frame + phase) // 4 % 2 == 0,
            )
        )
    return moments


def draw_clip(scene: Scene, random: np.random.Generator, size: int = SIZE) -> Pixels:
    """A clip (T, S, S, 3) of a scene. Where things are is random."""
    background = draw_background(scene.background, random, size)
    middles = places(scene.things, random)
    sprites = [sprite(thing) for thing in scene.things]
    paths = [
        path_of(thing, middle, len(scene.things) == 1, random)
        for thing, middle in zip(scene.things, middles, strict=True)
    ]
    frames = np.empty((FRAMES, size, size, 3), np.uint8)
    for number, moments in enumerate(zip(*paths, strict=True)):
        image: Array = background.copy()
        for picture, at in zip(sprites, moments, strict=True):
            if not at.is_shown:
                continue
            side = len(picture)
            scale = at.radius * size / (side * 3 / 8)
            matrix: Array = cv2.getRotationMatrix2D((side / 2, side / 2), at.angle, scale)
            matrix[:, 2] += np.array([at.x, at.y]) * size - side / 2
            drawn: Array = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_AREA)
            image += drawn[..., 3:] * (drawn[..., :3] - image)
        frames[number] = np.clip(np.round(image), 0, 255)
    return frames
