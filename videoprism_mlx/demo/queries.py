"""The queries of the demo, and the scenes of the clips that it searches."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from videoprism_mlx.demo.scenes import OPPOSITE, Scene, Thing, draw_scenes
from videoprism_mlx.errors import InputError


class Query(NamedTuple):
    """A text to search for, and what a clip must show to be right.

    `things` is empty in a user's own query: the demo does not know what is right for it.
    """

    text: str
    kind: str = "your query"
    things: tuple[Mapping[str, str], ...] = ()
    background: str | None = None

    def is_answered_by(self, scene: Scene) -> bool | None:
        """Whether a scene shows everything that is asked for. None if that is not known.

        Each of `things` must match a different thing in the scene.
        """
        if not self.things:
            return None

        def fits(thing: Thing, asked: Mapping[str, str]) -> bool:
            return all(getattr(thing, name) == value for name, value in asked.items())

        return self.background in (None, scene.background) and any(
            all(map(fits, things, self.things))
            for things in itertools.permutations(scene.things, len(self.things))
        )


QUERIES = (
    Query("a yellow heart", "what it looks like", ({"shape": "heart", "colour": "yellow"},)),
    Query("something spinning", "how it moves", ({"motion": "spinning"},)),
    Query(
        "a big blue star moves left at night",
        "look, motion and place",
        ({"shape": "star", "colour": "blue", "size": "large", "motion": "left"},),
        "night sky",
    ),
    Query(
        "a pink square moves left",
        "only its motion differs from the next",
        ({"shape": "square", "colour": "pink", "motion": "left"},),
    ),
    Query(
        "a pink square moves right",
        "only its motion differs from the last",
        ({"shape": "square", "colour": "pink", "motion": "right"},),
    ),
    Query("something flashing on and off", "how it moves", ({"motion": "blinking"},)),
    Query("something stripy on the beach", "pattern and place", ({"texture": "striped"},), "sand"),
    Query(
        "a red square next to an orange ball",
        "two things",
        ({"shape": "square", "colour": "red"}, {"shape": "circle", "colour": "orange"}),
    ),
)

# The scenes that are also played backwards: one thing, whose motion has an opposite.
TURNED = (
    Scene((Thing("square", "pink", "large", "plain", "left"),), "black"),
    Scene((Thing("star", "blue", "large", "plain", "up"),), "white"),
    Scene((Thing("heart", "yellow", "large", "plain", "growing"),), "grey"),
)

# Scenes that are always among the clips: each query has a right one, and some have near misses.
PLACED = (
    *TURNED,
    Scene((Thing("heart", "yellow", "large", "plain", "still"),), "black"),
    Scene((Thing("star", "blue", "large", "plain", "left"),), "night sky"),
    Scene((Thing("star", "blue", "large", "plain", "right"),), "night sky"),
    Scene((Thing("star", "blue", "large", "plain", "left"),), "sand"),
    Scene((Thing("triangle", "purple", "large", "plain", "left"),), "night sky"),
    Scene((Thing("square", "pink", "large", "plain", "right"),), "black"),
    Scene((Thing("cross", "green", "large", "striped", "spinning"),), "white"),
    Scene((Thing("triangle", "purple", "large", "plain", "blinking"),), "grey"),
    Scene((Thing("heart", "yellow", "large", "striped", "still"),), "sand"),
    Scene(
        (
            Thing("square", "red", "large", "plain", "still"),
            Thing("circle", "orange", "large", "plain", "still"),
        ),
        "black",
    ),
)


def choose_scenes(count: int, seed: int) -> list[Scene]:
    """PLACED and random scenes, in random order: all held out from training, and none twice."""
    if count < len(PLACED):
        raise InputError(f"the number of clips is {count}; expected {len(PLACED)} or more")
    if seed < 0:
        raise InputError(f"the seed is {seed}; expected 0 or more")
    placed = set(map(gist, PLACED))
    drawn = draw_scenes(count, seed, held_out=True, distinct=True)
    others = [scene for scene in drawn if gist(scene) not in placed]
    scenes = [*PLACED, *others][:count]
    return [scenes[i] for i in np.random.default_rng([seed, 5]).permutation(count)]


def gist(scene: Scene) -> tuple[frozenset[Thing], str]:
    """A key that is equal for equal scenes, in whatever order their things are."""
    return frozenset(scene.things), scene.background


def reverse_of(scene: Scene) -> Scene:
    """The scene that a clip shows when it is played backwards."""
    things = [thing._replace(motion=OPPOSITE[thing.motion]) for thing in scene.things]
    return scene._replace(things=tuple(things))
