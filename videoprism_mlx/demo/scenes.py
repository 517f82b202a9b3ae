"""The drawn world: the scenes that a clip may show, and which of them are held out from training.

The small model `videoprism_lvt_demo_tiny` is trained on clips of this world. It is tested on things
for which `is_held_out` is true, which never occur in training.
"""

from typing import NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
COLOURS = {
    "red": (214, 40, 40),
    "orange": (247, 127, 0),
    "yellow": (252, 211, 30),
    "green": (46, 157, 70),
    "blue": (38, 90, 219),
    "purple": (123, 44, 191),
    "pink": (255, 130, 190),
}
SIZES = {"small": 0.19, "large": 0.32}  # The radius, as a share of the frame.
TEXTURES = ("plain", "striped", "dotted")
BACKGROUNDS = ("black", "white", "grey", "night sky", "sand")
MOTIONS = ("left", "right", "up", "down", "growing", "shrinking", "spinning", "blinking", "still")

# The words of each attribute of a thing, and of the background.
ATTRIBUTES = {
    "motion": MOTIONS,
    "colour": tuple(COLOURS),
    "background": BACKGROUNDS,
    "size": tuple(SIZES),
    "texture": TEXTURES,
    "shape": SHAPES,
}

OPPOSITE = {"left": "right", "up": "down", "growing": "shrinking"}
OPPOSITE |= {motion: other for other, motion in OPPOSITE.items()}

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


class Thing(NamedTuple):
    """A thing in a clip: how it looks and how it moves."""

    shape: str
    colour: str
    size: str
    texture: str
    motion: str


class Scene(NamedTuple):
    """What a clip shows: one thing or two."""

    things: tuple[Thing, ...]
    background: str

    def shown(self, attribute: str) -> str:
        """The word of an attribute of the first thing, or the background."""
        value: str = getattr(self if attribute == "background" else self.things[0], attribute)
        return value


def is_new_look(thing: Thing) -> bool:
    """Whether this shape in this colour never occurs in training."""
    return (SHAPES.index(thing.shape) + list(COLOURS).index(thing.colour)) % 6 == 1


def is_held_out(thing: Thing) -> bool:
    """Whether this shape in this colour, or this colour in this motion, is never in training."""
    colour, motion = list(COLOURS).index(thing.colour), MOTIONS.index(thing.motion)
    return is_new_look(thing) or (2 * colour + motion) % 9 == 3


def is_visible(thing: Thing) -> bool:
    """Whether the motion can be seen. A plain circle that spins always looks the same."""
    return (thing.shape, thing.texture, thing.motion) != ("circle", "plain", "spinning")


def draw_thing(random: np.random.Generator, held_out: bool) -> Thing:
    """A random visible thing, which is held out from training if `held_out` is true, else not."""
    while True:
        choices = (SHAPES, tuple(COLOURS), tuple(SIZES), TEXTURES, MOTIONS)
        thing = Thing(*(str(random.choice(choice)) for choice in choices))
        if is_visible(thing) and is_held_out(thing) == held_out:
            return thing


def draw_scenes(
    count: int, seed: int, held_out: bool = False, two: float = 0.25, distinct: bool = False
) -> list[Scene]:
    """Random scenes. A share `two` of them show two things, which differ in shape and colour.

    With `distinct`, no scene occurs twice.
    """
    random = np.random.default_rng([seed, held_out])
    scenes: list[Scene] = []
    seen: set[tuple[frozenset[Thing], str]] = set()
    while len(scenes) < count:
        things = [draw_thing(random, held_out)]
        while len(things) < 1 + (random.random() < two):
            other = draw_thing(random, held_out)
            if other.shape != things[0].shape and other.colour != things[0].colour:
                things.append(other)
                break
        scene = Scene(tuple(things), str(random.choice(BACKGROUNDS)))
        key = (frozenset(scene.things), scene.background)
        if not (distinct and key in seen):
            seen.add(key)
            scenes.append(scene)
    return scenes


def motion_sets(count: int, seed: int, held_out: bool = True) -> list[list[Scene]]:
    """Sets of scenes that differ only in motion. Each scene shows one thing.

    With `held_out`, its shape never occurs in this colour in training. Without, each set has the
    motions that are not held out, which are all but one.
    """
    random = np.random.default_rng([seed, 2 if held_out else 8])
    sets: list[list[Scene]] = []
    while len(sets) < count:
        thing = draw_thing(random, held_out)
        alike = [thing._replace(motion=motion) for motion in MOTIONS]
        if is_new_look(thing) == held_out and all(map(is_visible, alike)):
            background = str(random.choice(BACKGROUNDS))
            kept = [each for each in alike if held_out or not is_held_out(each)]
            sets.append([Scene((each,), background) for each in kept])
    return sets


def shape_sets(count: int, seed: int) -> list[list[Scene]]:
    """Sets of scenes that differ only in shape. Each has the shapes that are not held out."""
    random = np.random.default_rng([seed, 7])
    sets: list[list[Scene]] = []
    while len(sets) < count:
        thing = draw_thing(random, held_out=False)
        alike = [thing._replace(shape=shape) for shape in SHAPES]
        if all(map(is_visible, alike)):
            background = str(random.choice(BACKGROUNDS))
            sets.append([Scene((each,), background) for each in alike if not is_held_out(each)])
    return sets
