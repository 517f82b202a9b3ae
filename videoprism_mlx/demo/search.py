"""A search to look at: drawn clips, found by words, with the small model that ships.

Shapes: V clips, Q queries, D width, T frames, S size of a frame.
"""

import dataclasses
import itertools
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mlx.utils import tree_flatten
from PIL import Image
from tqdm import tqdm

from videoprism_mlx.demo import page as demopage
from videoprism_mlx.demo.world import (
    OPPOSITE,
    WORDS,
    Scene,
    Thing,
    clip_random,
    draw_clip,
    draw_scenes,
    write_clip,
)
from videoprism_mlx.errors import InputError
from videoprism_mlx.features.encode import encode
from videoprism_mlx.features.processor import load
from videoprism_mlx.features.text import embed_texts
from videoprism_mlx.files.atomic import new_directory, new_file
from videoprism_mlx.files.lock import locked
from videoprism_mlx.files.record import own_version
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.video.sampling import read_video

PAGE, PICTURE, RECORD = "index.html", "demo.png", "videoprism-demo.json"
CLIPS, BACKWARDS = "clips", "backwards"

BATCH = 8  # Clips encoded at once.


class Query(NamedTuple):
    """What is typed, and what a clip must show to be right: nothing is known of others' queries."""

    text: str
    kind: str = "your query"
    things: tuple[Mapping[str, str], ...] = ()
    background: str | None = None

    def is_answered_by(self, scene: Scene) -> bool | None:
        """Whether a scene has all that is asked for, each in a thing of its own."""
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
        "both, and where",
        ({"shape": "star", "colour": "blue", "size": "large", "motion": "left"},),
        "night sky",
    ),
    Query(
        "a pink square moves left",
        "motion alone tells it from the next",
        ({"shape": "square", "colour": "pink", "motion": "left"},),
    ),
    Query(
        "a pink square moves right",
        "motion alone tells it from the last",
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

# Played backwards as well: scenes of one thing, whose motion has an opposite.
TURNED = (
    Scene((Thing("square", "pink", "large", "plain", "left"),), "black"),
    Scene((Thing("star", "blue", "large", "plain", "up"),), "white"),
    Scene((Thing("heart", "yellow", "large", "plain", "growing"),), "grey"),
)

# Among the clips in any case, so that each query has a right one, and some have near misses.
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


class Clip(NamedTuple):
    """A video file and the scene that it was drawn from."""

    path: Path
    scene: Scene

    @property
    def shows(self) -> str:
        """The scene in words."""
        things = " and ".join(
            " ".join(word for word in ("a", *map(say, in_order(thing))) if word)
            for thing in self.scene.things
        )
        return f"{things} {say(self.scene.background)}"

    @property
    def motion(self) -> str:
        """How its things move, in words."""
        return " and ".join(say(thing.motion) for thing in self.scene.things)

    def frames(self) -> np.ndarray:
        """What the file holds: (T, S, S, 3), RGB, 0-255."""
        return np.round(255 * read_video(self.path, num_frames=None, size=None)).astype(np.uint8)


class Hit(NamedTuple):
    """A clip, how alike it is to a query, and whether it is right, None where nobody knows."""

    clip: Clip
    cosine: float
    is_right: bool | None


class Ranking(NamedTuple):
    """A query and all clips, the most alike first."""

    query: Query
    hits: Sequence[Hit]

    @property
    def right(self) -> list[int]:
        """The ranks of the right clips, from 1."""
        return [rank for rank, hit in enumerate(self.hits, 1) if hit.is_right]


class Turn(NamedTuple):
    """A clip and the same played backwards, and what is said of either.

    `cosines` (2, 2): of the clip and then of its reverse, with `text` and then with `opposite`.
    """

    clip: Clip
    backwards: Clip
    text: str
    opposite: str
    cosines: np.ndarray

    @property
    def turns(self) -> bool:
        """Whether each text is more alike to the clip that it is true of."""
        forwards, backwards = self.cosines
        return bool(forwards[0] > forwards[1] and backwards[1] > backwards[0])


@dataclasses.dataclass(frozen=True)
class Demo:
    """What was drawn and found, and how many seconds each part took."""

    output: Path
    clips: Sequence[Clip]
    rankings: Sequence[Ranking]
    turns: Sequence[Turn]
    parameters: int
    seconds: Mapping[str, float]

    @property
    def page(self) -> Path:
        """The file to open."""
        return self.output / PAGE

    @property
    def picture(self) -> Path:
        """The same in short, as an image."""
        return self.output / PICTURE

    @property
    def judged(self) -> list[Ranking]:
        """Of queries of which is known what is right."""
        return [ranking for ranking in self.rankings if ranking.query.things]

    @property
    def first_right(self) -> int:
        """For how many of those queries the first clip is right."""
        return sum(bool(ranking.hits[0].is_right) for ranking in self.judged)

    @property
    def by_chance(self) -> float:
        """For how many it would be, on average, in an order at random."""
        return sum(len(ranking.right) / len(ranking.hits) for ranking in self.judged)


def run_demo(
    output: str | Path, queries: Sequence[str] | None = None, count: int = 40, seed: int = 0
) -> Demo:
    """Draws clips into a folder, encodes and searches them, and writes the page that shows it.

    `queries` take the place of QUERIES. What an earlier demo left in the folder is replaced.
    """
    output = Path(output)
    asked = QUERIES if queries is None else tuple(map(Query, queries))
    if not asked or not all(query.text.strip() for query in asked):
        raise InputError("one of the queries is empty; expected some words")
    scenes = choose_scenes(count, seed)
    require_own(output)
    model, processor = load(DEMO_MODEL, dtype="float32")
    parameters = sum(array.size for _, array in tree_flatten(model.parameters()))

    def embed(clips: Sequence[Clip]) -> np.ndarray:
        """(V, D)."""
        encoded = encode(model, processor, [clip.path for clip in clips], BATCH, ["embedding"])
        bar = tqdm(
            encoded, desc="encoding", total=len(clips), unit="clip", leave=False, disable=None
        )
        return np.stack([each.features["embedding"] for each in bar])

    places = {scenes.index(scene): scene for scene in TURNED}
    seconds = {}
    with locked(output, output):
        note(output, {"clips": count, "seed": seed, "model": DEMO_MODEL})
        clear(output)
        with timed(seconds, "draw"):
            clips = draw(output / CLIPS, dict(enumerate(scenes)), seed)
        with timed(seconds, "encode"):
            videos = embed(clips)
        with timed(seconds, "search"):
            texts = embed_texts(model, processor, [query.text for query in asked])
            rankings = [rank(*each, clips) for each in zip(asked, texts @ videos.T, strict=True)]
        reversed_clips = draw(output / BACKWARDS, places, seed, backwards=True)
        turns = []
        for place, backwards, reverse in zip(
            places, reversed_clips, embed(reversed_clips), strict=True
        ):
            said = [sentence(clip.scene.things[0]) for clip in (clips[place], backwards)]
            cosines = np.stack([videos[place], reverse]) @ embed_texts(model, processor, said).T
            turns.append(Turn(clips[place], backwards, *said, cosines))
        demo = Demo(output, clips, rankings, turns, parameters, seconds)
        with new_file(demo.picture, replace=True) as partial:
            Image.fromarray(demopage.picture(demo)).save(partial, "png")
        with new_file(demo.page, replace=True) as partial:
            partial.write_text(demopage.page(demo), encoding="utf-8")
    return demo


@contextmanager
def timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Notes how long the block takes."""
    started = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - started


# Scenes.


def choose_scenes(count: int, seed: int) -> list[Scene]:
    """PLACED and others at random, all of things held out from training, none twice."""
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
    """A scene whatever the order of its things."""
    return frozenset(scene.things), scene.background


def reverse_of(scene: Scene) -> Scene:
    """What a clip of a scene shows when it is played backwards."""
    things = [thing._replace(motion=OPPOSITE[thing.motion]) for thing in scene.things]
    return scene._replace(things=tuple(things))


def say(word: str) -> str:
    """An attribute in words, always the same."""
    return WORDS.get(word, (word,))[0]


def in_order(thing: Thing) -> tuple[str, ...]:
    """A thing's attributes as they are said one after another."""
    return thing.size, thing.texture, thing.colour, thing.shape, thing.motion


def sentence(thing: Thing) -> str:
    """A short sentence about what a thing does."""
    return f"a {thing.colour} {say(thing.shape)} {say(thing.motion)}"


# Search.


def rank(query: Query, cosines: np.ndarray, clips: Sequence[Clip]) -> Ranking:
    """The clips in the order of their cosines (V,) with a query."""
    order = np.argsort(-cosines, kind="stable")
    hits = [Hit(clips[i], float(cosines[i]), query.is_answered_by(clips[i].scene)) for i in order]
    return Ranking(query, hits)


# Files.


def draw(
    folder: Path, scenes: Mapping[int, Scene], seed: int, backwards: bool = False
) -> list[Clip]:
    """Clips of scenes by number into a new folder, each played backwards if that is asked for."""
    clips = []
    with new_directory(folder) as made:
        for number, scene in tqdm(
            scenes.items(), desc="drawing", unit="clip", leave=False, disable=None
        ):
            name = f"clip{number + 1:02}.mp4"
            frames = draw_clip(scene, clip_random(seed, number))
            write_clip(made / name, frames[::-1] if backwards else frames)
            clips.append(Clip(folder / name, reverse_of(scene) if backwards else scene))
    return clips


def require_own(output: Path) -> None:
    """That a folder is new, empty or of an earlier demo, with clips of the demo alone."""
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; expected a new folder, or one of an earlier demo")
    there = visible(output)
    if there and RECORD not in there:
        raise InputError(
            f"{output} holds something else than a demo, such as {there[0]}; "
            "name a new or empty folder"
        )
    for folder in (output / CLIPS, output / BACKWARDS):
        for name in visible(folder):
            if not re.fullmatch(r"clip\d+\.mp4", name):
                raise InputError(
                    f"{folder / name} is not of the demo, and would be removed with the clips "
                    "of the last one; move it away, or name another output"
                )


def visible(folder: Path) -> list[str]:
    """The names in a folder, which need not be there, but for hidden ones."""
    if not folder.is_dir():
        return []
    return sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))


def clear(output: Path) -> None:
    """Removes an earlier demo, the page first: there is none without its clips."""
    for name in (PAGE, PICTURE):
        (output / name).unlink(missing_ok=True)
    for name in (CLIPS, BACKWARDS):
        if (output / name).exists():
            shutil.rmtree(output / name)


def note(output: Path, settings: Mapping[str, object]) -> None:
    """Marks a folder as the demo's."""
    record = {"made_by": "videoprism-mlx demo", "version": own_version(), **settings}
    with new_file(output / RECORD, replace=True) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
