"""A world of short clips: shapes that move in front of backgrounds, and what is said of them.

What a clip shows is a `Scene`, drawn with OpenCV. The small model `videoprism_lvt_demo_tiny` is
trained on it, without the combinations that `is_held_out` names: those are for trying it out.

Shapes: T frames, S size of a frame.
"""

import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from videoprism_mlx.files.atomic import new_directory

FRAMES, FPS, SIZE = 16, 8, 192

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

OPPOSITE = {"left": "right", "up": "down", "growing": "shrinking"}
OPPOSITE |= {motion: other for other, motion in OPPOSITE.items()}

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

# Each attribute in the words that captions take turns with.
WORDS = {
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "plain": ("", "plain"),
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box"),
    "cross": ("cross", "plus sign"),
    "left": ("moves left", "goes to the left", "slides left", "moving to the left"),
    "right": ("moves right", "goes to the right", "slides right", "moving to the right"),
    "up": ("moves up", "goes up", "rises", "moving upwards"),
    "down": ("moves down", "goes down", "falls", "moving downwards"),
    "growing": ("grows", "gets bigger", "growing", "is growing"),
    "shrinking": ("shrinks", "gets smaller", "shrinking", "is shrinking"),
    "spinning": ("spins", "rotates", "turns around", "spinning"),
    "blinking": ("blinks", "flashes on and off", "blinking", "keeps flashing"),
    "still": ("stays still", "does not move", "stands still", "at rest"),
    "black": ("on a black background", "in front of black", "on black"),
    "white": ("on a white background", "in front of white", "on white"),
    "grey": ("on a grey background", "in front of grey", "on grey"),
    "night sky": ("in the night sky", "under the stars", "at night"),
    "sand": ("on sand", "on the beach", "in the desert"),
    "thing": ("thing", "shape", "object"),
    "and": (" and ", " while ", ", ", " next to "),
    "a video of": ("", "", "", "", "a video of", "a clip of"),
}

# Verbs that "that" may come before.
FINITE = {
    verb for motion in MOTIONS for verb, *_ in map(str.split, WORDS[motion]) if verb[-1] == "s"
}


class Thing(NamedTuple):
    """What moves in a clip."""

    shape: str
    colour: str
    size: str
    texture: str
    motion: str


class Scene(NamedTuple):
    """What a clip shows: one thing or two."""

    things: tuple[Thing, ...]
    background: str


# Scenes.


def is_new_look(thing: Thing) -> bool:
    """Whether a thing is of a shape in a colour that is never trained on."""
    return (SHAPES.index(thing.shape) + list(COLOURS).index(thing.colour)) % 6 == 1


def is_held_out(thing: Thing) -> bool:
    """Whether a thing is of a shape in a colour, or a colour in a motion, never trained on."""
    colour, motion = list(COLOURS).index(thing.colour), MOTIONS.index(thing.motion)
    return is_new_look(thing) or (2 * colour + motion) % 9 == 3


def is_visible(thing: Thing) -> bool:
    """Whether the motion can be seen: that of a plain spinning circle cannot."""
    return (thing.shape, thing.texture, thing.motion) != ("circle", "plain", "spinning")


def draw_thing(random: np.random.Generator, held_out: bool) -> Thing:
    """A thing at random, from those held out or from all others."""
    while True:
        choices = (SHAPES, tuple(COLOURS), tuple(SIZES), TEXTURES, MOTIONS)
        thing = Thing(*(str(random.choice(choice)) for choice in choices))
        if is_visible(thing) and is_held_out(thing) == held_out:
            return thing


def draw_scenes(
    count: int, seed: int, held_out: bool = False, two: float = 0.25, distinct: bool = False
) -> list[Scene]:
    """Scenes at random, a share `two` of them of two things, which differ in shape and colour.

    With `distinct` no scene comes twice.
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


def motion_sets(count: int, seed: int) -> list[list[Scene]]:
    """Sets of scenes of one thing, of a look that was held out, that differ in motion alone."""
    random = np.random.default_rng([seed, 2])
    sets: list[list[Scene]] = []
    while len(sets) < count:
        thing = draw_thing(random, held_out=True)
        alike = [thing._replace(motion=motion) for motion in MOTIONS]
        if is_new_look(thing) and all(map(is_visible, alike)):
            background = str(random.choice(BACKGROUNDS))
            sets.append([Scene((each,), background) for each in alike])
    return sets


# Captions.


def one_way(random: np.random.Generator, word: str) -> str:
    """An attribute in one of the ways to say it."""
    return str(random.choice(WORDS.get(word, (word,))))


def describe(scene: Scene, random: np.random.Generator, detail: float = 1.0) -> str:
    """A caption that says so much: from 1, all there is, down to 0, little more than motion."""

    say = partial(one_way, random)

    def leaves_out(share: float) -> bool:
        return random.random() < share * (1 - detail)

    def phrase(thing: Thing) -> str:
        words = [
            "" if leaves_out(1) else say(thing.size),
            "" if leaves_out(1) else say(thing.texture),
            "" if leaves_out(0.9) else thing.colour,
            say("thing" if leaves_out(0.9) else thing.shape),
        ]
        words = [word for word in words if word]
        article = str(random.choice(("a", "the", ""), p=(0.7, 0.1, 0.2)))
        if len(words) == 1 and words[0] in WORDS["thing"] and random.random() < 0.5:
            article, words = "", ["something"]
        if article == "a" and words[0][0] in "aeiou":
            article = "an"
        motion = "" if len(words) > 1 and leaves_out(0.1) else say(thing.motion)
        if motion.split(" ")[0] in FINITE and random.random() < 0.2:
            motion = f"that {motion}"
        return " ".join(word for word in (article, *words, motion) if word)

    order = random.permutation(len(scene.things))
    said = say("and").join(phrase(scene.things[i]) for i in order)
    if not leaves_out(1):
        where = say(scene.background)
        said = f"{where} {said}" if random.random() < 0.2 else f"{said} {where}"
    return f"{say('a video of')} {said}".strip()


def name_shapes(scene: Scene, random: np.random.Generator, motions: bool) -> str:
    """A caption that says the shapes, and what they do if asked for, and nothing else."""
    say = partial(one_way, random)
    phrases = [
        f"a {say(thing.shape)}{' ' + say(thing.motion) if motions else ''}"
        for thing in scene.things
    ]
    return " and ".join(phrases[i] for i in random.permutation(len(phrases)))


# Pictures.


def outline(shape: str) -> np.ndarray:
    """The corners (C, 2) of a shape of radius one."""
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


def sprite(thing: Thing, radius: int = 72) -> np.ndarray:
    """A thing on nothing: (8 / 3 * radius, same, 4), RGBA, the alpha from 0 to 1."""
    side = 8 * radius // 3
    shift = 4
    points = np.round((outline(thing.shape) * radius + side / 2) * 2**shift).astype(np.int32)
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, shift)
    colour = np.array(COLOURS[thing.colour], np.float32)
    image = np.broadcast_to(colour, (side, side, 3)).copy()
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


def draw_background(name: str, random: np.random.Generator, size: int) -> np.ndarray:
    """(S, S, 3), 0-255, as floats."""
    plain = {"black": 12, "white": 245, "grey": 128}
    if name in plain:
        level = plain[name] + random.uniform(-8, 8)
        return np.full((size, size, 3), level, np.float32)
    if name == "night sky":
        image = np.linspace((8, 10, 40), (30, 30, 85), size)[:, None].repeat(size, 1)
        for x, y in random.uniform(0, size, (40, 2)):
            level = random.uniform(120, 255)
            cv2.circle(image, (int(x), int(y)), 1, (level, level, level * 0.9), -1)
        return image.astype(np.float32)
    grains = random.normal(0, 1, (size // 3, size // 3, 1)).astype(np.float32)
    grains = cv2.resize(grains, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.array([222, 196, 148], np.float32) + 14 * grains


class Moment(NamedTuple):
    """How a thing is in a frame: place and radius as shares of the frame, angle in degrees."""

    x: float
    y: float
    radius: float
    angle: float
    is_shown: bool


def places(things: Sequence[Thing], random: np.random.Generator) -> list[tuple[float, float]]:
    """The middles of the ways of things, apart where they are two."""
    if len(things) == 1:
        return [tuple(random.uniform(0.4, 0.6, 2))]
    motions = {thing.motion for thing in things}
    is_free = not motions & {"up", "down"} and random.random() < 0.5
    is_level = is_free or bool(motions & {"left", "right"})
    one, other = random.uniform(0.26, 0.3), random.uniform(0.7, 0.74)
    middles = [(random.uniform(0.42, 0.58), one), (random.uniform(0.42, 0.58), other)]
    return middles if is_level else [(y, x) for x, y in middles]


def way(
    thing: Thing, middle: tuple[float, float], is_alone: bool, random: np.random.Generator
) -> list[Moment]:
    """A thing at each of the T frames."""
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


def draw_clip(scene: Scene, random: np.random.Generator, size: int = SIZE) -> np.ndarray:
    """A clip of a scene: (T, S, S, 3), RGB, 0-255. Where things are is random."""
    background = draw_background(scene.background, random, size)
    middles = places(scene.things, random)
    sprites = [sprite(thing) for thing in scene.things]
    ways = [
        way(thing, middle, len(scene.things) == 1, random)
        for thing, middle in zip(scene.things, middles, strict=True)
    ]
    frames = np.empty((FRAMES, size, size, 3), np.uint8)
    for number, moments in enumerate(zip(*ways, strict=True)):
        image = background.copy()
        for picture, at in zip(sprites, moments, strict=True):
            if not at.is_shown:
                continue
            side = len(picture)
            scale = at.radius * size / (side * 3 / 8)
            matrix = cv2.getRotationMatrix2D((side / 2, side / 2), at.angle, scale)
            matrix[:, 2] += np.array([at.x, at.y]) * size - side / 2
            drawn = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_AREA)
            image += drawn[..., 3:] * (drawn[..., :3] - image)
        frames[number] = np.clip(np.round(image), 0, 255)
    return frames


# Files.


def write_clip(path: Path, frames: np.ndarray) -> None:
    """Frames (T, S, S, 3), RGB, 0-255, to a video file."""
    size = frames.shape[2], frames.shape[1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, size)
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write {path}: it lacks an MPEG-4 encoder")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def clip_random(seed: int, number: int) -> np.random.Generator:
    """What a clip's places and captions are drawn from."""
    return np.random.default_rng([seed, 3, number])


def write_world(
    folder: Path, scenes: Sequence[Scene], seed: int, captions: int = 1, partial: int = 0
) -> Path:
    """Writes a clip for each scene, and captions.csv with so many captions of each.

    `partial` more captions leave out more or less. The folder must be new.
    """

    def drawn(made: Path, number: int) -> list[tuple[str, str]]:
        random = clip_random(seed, number)
        name = f"clip{number:05d}.mp4"
        write_clip(made / name, draw_clip(scenes[number], random))
        details = (*[1.0] * captions, *random.uniform(size=partial))
        return [(name, describe(scenes[number], random, detail)) for detail in details]

    with new_directory(folder) as made, ThreadPoolExecutor() as pool:
        rows = [("video", "caption")]
        rows += chain.from_iterable(
            pool.map(lambda number: drawn(made, number), range(len(scenes)))
        )
        with open(made / "captions.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return folder / "captions.csv"


def sentences(count: int, seed: int) -> Iterator[str]:
    """Captions for a tokenizer to learn from."""
    for number, scene in enumerate(draw_scenes(count, seed)):
        random = clip_random(seed, number)
        yield describe(scene, random, random.uniform())
