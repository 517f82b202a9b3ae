"""Captions of scenes: random ones to train on, and fixed ones to print."""

from functools import partial
from itertools import chain

import numpy as np

from videoprism_mlx.demo.scenes import COLOURS, MOTIONS, SHAPES, Scene, Thing
from videoprism_mlx.tokenizers import canonicalize_text

# The wordings of each attribute. A caption picks one at random; a fixed caption takes the first.
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
    "blinking": (
        "blinks",
        "flashes on and off",
        "blinking",
        "keeps flashing",
        "flashing on and off",
    ),
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

# A caption that names one attribute, with its word for {}.
PHRASES = {
    "motion": "a thing {}",
    "colour": "a {} thing",
    "background": "a thing {}",
    "size": "a {} thing",
    "texture": "a {} thing",
    "shape": "a {}",
}

# Verbs that may follow "that", as in "a star that spins".
FINITE = {
    verb for motion in MOTIONS for verb, *_ in map(str.split, WORDS[motion]) if verb[-1] == "s"
}


def vocabulary() -> list[str]:
    """Every word that a caption may have, sorted: what words.txt of the model lists."""
    said = [*chain.from_iterable(WORDS.values()), *SHAPES, *COLOURS, "a an the something that"]
    return sorted({word for text in said for word in canonicalize_text(text)[:-1].split()})


def random_wording(random: np.random.Generator, word: str) -> str:
    """One of the wordings of an attribute, at random."""
    return str(random.choice(WORDS.get(word, (word,))))


def describe(
    scene: Scene, random: np.random.Generator, detail: float = 1.0, motions: bool = True
) -> str:
    """A random caption. With `detail` 1 it says everything, with 0 little more than the motion.

    Without `motions`, it leaves them out where it says something else of a thing.
    """
    say = partial(random_wording, random)

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
        is_left_out = len(words) > 1 and (not motions or leaves_out(0.1))
        motion = "" if is_left_out else say(thing.motion)
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
    """A random caption that names the shapes, with their motions if asked for, and nothing else."""
    say = partial(random_wording, random)
    phrases = [
        f"a {say(thing.shape)}{' ' + say(thing.motion) if motions else ''}"
        for thing in scene.things
    ]
    return " and ".join(phrases[i] for i in random.permutation(len(phrases)))


def describe_looks(scene: Scene, random: np.random.Generator) -> str:
    """A random caption of how the things look: mostly of their colours and shapes."""
    say = partial(random_wording, random)
    phrases = []
    for thing in scene.things:
        words = [
            say(thing.size) if random.random() < 0.2 else "",
            say(thing.texture) if random.random() < 0.2 else "",
            thing.colour,
            say(thing.shape if random.random() < 0.85 else "thing"),
        ]
        said = " ".join(word for word in words if word)
        phrases.append(f"{'an' if said[0] in 'aeiou' else 'a'} {said}")
    return say("and").join(phrases[i] for i in random.permutation(len(phrases)))


def colourless(scene: Scene) -> Scene:
    """The scene without the names of colours, for captions that leave them out."""
    return scene._replace(things=tuple(thing._replace(colour="") for thing in scene.things))


def name_one(attribute: str, word: str, random: np.random.Generator | None = None) -> str:
    """A caption of one attribute and nothing else, in its first wording, or a random one."""
    wordings = [wording for wording in WORDS.get(word, (word,)) if wording]
    said = wordings[0] if random is None else str(random.choice(wordings))
    return PHRASES[attribute].format(said)


def first_wording(word: str) -> str:
    """The first wording of an attribute, for fixed captions."""
    return WORDS.get(word, (word,))[0]


def sentence(thing: Thing) -> str:
    """A fixed short caption of what a thing does."""
    return f"a {thing.colour} {first_wording(thing.shape)} {first_wording(thing.motion)}"


def summary(scene: Scene) -> str:
    """A fixed caption of everything in a scene."""
    things = []
    for thing in scene.things:
        attributes = thing.size, thing.texture, thing.colour, thing.shape, thing.motion
        things.append(" ".join(word for word in ("a", *map(first_wording, attributes)) if word))
    return f"{' and '.join(things)} {first_wording(scene.background)}"
