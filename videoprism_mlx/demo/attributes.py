"""The last stage of training the small model: it learns to name each attribute of a clip.

A caption names everything at once, so a shape is a small part of what tells clips apart. And a
model that never saw a yellow heart learns that what is yellow is no heart. Here each attribute has
a loss of its own. Shapes are learned in strange colours: in grey, and in hues that no colour of the
world has. There, all shapes occur. In its own colour, a clip has to give the same answer.

A text has to tell apart clips that differ in motion alone, too, whatever their shape and colour.

Shapes: B clips of a batch, C of them with one thing, K of them in sets, M sets that differ in
motion with N clips each, T frames, S size of a frame, W words of an attribute, D width.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from videoprism_mlx.demo.captions import colourless, describe, describe_looks, name_one
from videoprism_mlx.demo.scenes import ATTRIBUTES, MOTIONS, OPPOSITE, Scene, is_held_out
from videoprism_mlx.demo.tints import recoloured, strange_recolouring
from videoprism_mlx.encoders import FactorizedVideoCLIP, l2_normalize
from videoprism_mlx.evaluation.metrics import recalls
from videoprism_mlx.features.processor import Processor, load
from videoprism_mlx.features.text import embed_texts
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.files.record import digest, made_with
from videoprism_mlx.training.pairs import Frames
from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.training.retrieval import LEAST_TEMPERATURE
from videoprism_mlx.training.run import Learner, Rows, Run
from videoprism_mlx.training.state import Parameters, as_float32
from videoprism_mlx.weights.directory import WEIGHTS_FILE

Array = npt.NDArray[Any]

# The weights of the losses, beside that of the captions, which is 1: of naming the shape of a clip
# in strange colours and that of each of its frames, of the same answer in its own colours, and of
# naming another attribute, and of finding clips of a set that differ in motion alone.
SHAPE, FRAME, SAME, OTHER, MOTION = 0.7, 0.3, 0.7, 0.3, 0.7

START_TEMPERATURE = 0.05
COMPLETE = 0.4  # The share of captions that say everything.
MOTIONLESS = 0.5  # The share of captions that leave out how things move.
LOOKS = 0.6  # The share of captions of two things that only say how they look.
ALIKE = 2  # Clips in a batch of each set that differ in shape.
MOVING = 2  # Sets of a batch that differ in motion. All their clips are in it.
MOTIONS_OF_SET = len(MOTIONS) - 1  # One is held out.
OTHERS = 28  # Clips of a batch that are of no set.
FROZEN = 0.35  # The share of these that are one frame, repeated, where that is possible.
TURNED = 0.4  # The share of pairs that differ in motion alone, not in shape alone.
BLIND = -1e9  # A logit that counts as no choice.


class Clips(NamedTuple):
    """Files of drawn clips, and the scene of each."""

    paths: Sequence[Path]
    scenes: Sequence[Scene]


class Choices(NamedTuple):
    """The words of an attribute, and which of them clips of one thing show."""

    words: slice  # Of all words.
    right: mx.array  # (C,): the word that is right.
    possible: mx.array  # (C, W): whether the clip with this word instead occurs in training.


class Batch(NamedTuple):
    """Clips, their captions followed by the words of all attributes, and what is right.

    The first K clips are those of sets, and the last of the K those of sets that differ in motion.
    The K are there a second time, in strange colours. For that, the captions of the sets that
    differ in motion come a second time, too, without colours, before the words.
    """

    clips: mx.array  # (B + K, T, S, S, 3), in [0, 1].
    moving: tuple[int, int]  # M and N.
    ids: Array
    paddings: Array
    unknown: mx.array  # (B, B): whether the caption says of the clip what is held out.
    single: mx.array  # (C,): the clips with one thing.
    choices: Mapping[str, Choices]
    strange: Mapping[str, Choices]  # Of the K clips in strange colours.
    always_shown: mx.array  # (K,): 0 if the thing blinks, else 1.


def is_unknown(clip: Scene, caption: Scene) -> bool:
    """Whether a caption gives a colour of the clip a shape or a motion that is held out for it."""
    return any(
        is_held_out(said._replace(colour=shown.colour))
        for shown in clip.things
        for said in caption.things
    )


def possible_words(scene: Scene, attribute: str) -> list[bool]:
    """For each word of an attribute, whether the scene with this word instead may be trained on."""
    [thing] = scene.things
    if attribute == "background":
        return [True] * len(ATTRIBUTES[attribute])
    return [not is_held_out(thing._replace(**{attribute: word})) for word in ATTRIBUTES[attribute]]


def frozen(scene: Scene) -> Scene | None:
    """The scene of a clip in which nothing moves any more. None if it is held out, or if a thing
    blinks and may not be seen.
    """
    blinks = any(thing.motion == "blinking" for thing in scene.things)
    return None if blinks else with_motions(scene, dict.fromkeys(MOTIONS, "still"))


def backwards(scene: Scene) -> Scene | None:
    """The scene of a clip that is played backwards. None if it is held out or stays the same."""
    turned = with_motions(scene, dict(zip(MOTIONS, MOTIONS, strict=True)) | OPPOSITE)
    return None if turned == scene else turned


def with_motions(scene: Scene, motions: Mapping[str, str]) -> Scene | None:
    """The scene with other motions for its own. None if it is held out."""
    things = tuple(thing._replace(motion=motions[thing.motion]) for thing in scene.things)
    return None if any(map(is_held_out, things)) else scene._replace(things=things)


def random_caption(
    scene: Scene, random: np.random.Generator, motionless: float = MOTIONLESS
) -> str:
    """A caption of everything or of some things; often, of how two things look.

    A share `motionless` leaves out how things move.
    """
    if len(scene.things) == 2 and random.random() < LOOKS:
        return describe_looks(scene, random)
    detail = 1.0 if random.random() < COMPLETE else random.uniform()
    return describe(scene, random, detail, motions=random.random() >= motionless)


def choices_of(scenes: Sequence[Scene], is_strange: bool = False) -> dict[str, Choices]:
    """The choices of each attribute, for scenes of one thing.

    In strange colours, everything is possible.
    """
    first, choices = 0, {}
    for name, words in ATTRIBUTES.items():
        right = np.array([words.index(scene.shown(name)) for scene in scenes])
        possible = np.array([possible_words(scene, name) for scene in scenes]) | is_strange
        part = slice(first, first + len(words))
        choices[name] = Choices(part, mx.array(right), mx.array(possible))
        first += len(words)
    return choices


def naming_loss(logits: mx.array, choices: Choices) -> mx.array:
    """The cross-entropy (C,) of the right words among the possible ones, for logits (C, W)."""
    logits = mx.where(choices.possible, logits, BLIND)
    return nn.losses.cross_entropy(logits, choices.right, reduction="none")


def same_loss(logits: mx.array, strange: mx.array) -> mx.array:
    """The cross-entropy of words for clips with those for the clips in strange colours: a scalar.

    Both are logits (K, W). Only the first are trained.
    """
    shares = mx.softmax(mx.stop_gradient(strange), axis=1)
    return nn.losses.cross_entropy(logits, shares, reduction="mean")


def contrastive_loss(logits: mx.array) -> mx.array:
    """The mean cross-entropy of the diagonal of logits (..., B, B), by rows and by columns."""
    right = mx.broadcast_to(mx.arange(logits.shape[-1]), logits.shape[:-1])
    both = (logits, logits.swapaxes(-1, -2))
    one, other = (nn.losses.cross_entropy(each, right, reduction="mean") for each in both)
    return (one + other) / 2


def batch_loss(model: FactorizedVideoCLIP, parameters: Parameters, batch: Batch) -> mx.array:
    """The sum of the weighted losses of a batch: a scalar."""
    model.update(parameters["model"])
    scale = mx.exp(parameters["log_scale"])
    features, _ = model.vision_encoder(batch.clips)
    features = model.contextualize(features)
    videos = l2_normalize(model.contrastive_vision_pooler(features))
    _, texts, _ = cast(Any, model(None, batch.ids, batch.paddings))
    count, sets, moving = len(batch.unknown), len(batch.always_shown), math.prod(batch.moving)
    captions, words = texts[:count], scale * texts[count + moving :].T

    logits = mx.where(batch.unknown, BLIND, scale * (videos[:count] @ captions.T))
    loss = contrastive_loss(logits)
    for seen, said in ((sets, sets), (count + sets, count + moving)):
        seen_in_sets, said_in_sets = (
            each.reshape(*batch.moving, -1)
            for each in (videos[seen - moving : seen], texts[said - moving : said])
        )
        loss += MOTION * contrastive_loss(scale * (seen_in_sets @ said_in_sets.swapaxes(1, 2)))
    plain, strange = videos[batch.single] @ words, videos[count:] @ words
    for name, choices in batch.choices.items():
        if name != "shape":
            loss += OTHER * naming_loss(plain[:, choices.words], choices).mean()
    for name, choices in batch.strange.items():
        if name not in ("colour", "background"):
            weight = SHAPE if name == "shape" else OTHER
            loss += weight * naming_loss(strange[:, choices.words], choices).mean()

    shapes = batch.strange["shape"]
    same = same_loss((videos[:sets] @ words)[:, shapes.words], strange[:, shapes.words])
    length = batch.clips.shape[1]
    frames = l2_normalize(model.pool_frames(features[count:], length))  # (K, T, D)
    by_frame = frames @ words[:, shapes.words]
    named = mx.stack([naming_loss(by_frame[:, i], shapes) for i in range(length)]).mean(axis=0)
    framewise = (named * batch.always_shown).sum() / mx.maximum(batch.always_shown.sum(), 1)
    return loss + SAME * same + FRAME * framewise


class AttributeLearner(Learner):
    """Trains on sets of clips that differ in shape or in motion alone, and on clips of two things.

    An example is a set that differs in shape. `scenes` are those of these "sets", of the "motions",
    one set of N after the other, of the "others", and those to validate on, "val". `arrays` are
    their clips, as `Frames` caches them.
    """

    whole_batches = True

    def __init__(
        self,
        model: FactorizedVideoCLIP,
        processor: Processor,
        frames: Frames,
        sets: Sequence[Sequence[Scene]],
        scenes: Mapping[str, Sequence[Scene]],
        arrays: Mapping[str, Sequence[Path]],
    ):
        self.model, self.processor, self.frames = model, processor, frames
        self.count = len(sets)
        self.firsts = np.cumsum([0, *map(len, sets)])
        self.first_other = self.firsts[-1] + len(scenes["motions"])
        names = "sets", "motions", "others"
        self.scenes = [scene for name in names for scene in scenes[name]]
        self.arrays = [path for name in names for path in arrays[name]]
        self.val, self.val_arrays = scenes["val"], arrays["val"]

    def start(self) -> Parameters:
        """The model's parameters, and the log of the inverse temperature."""
        weights = as_float32(cast(Any, self.model).parameters())
        return {"model": weights, "log_scale": mx.array(-math.log(START_TEMPERATURE))}

    def gradients(
        self, parameters: Parameters, rows: Rows, random: np.random.Generator
    ) -> tuple[mx.array, Parameters]:
        """The loss on some sets and on random other clips, and its gradients."""
        pairs: list[int] = []
        for first, end in zip(self.firsts[rows], self.firsts[rows + 1], strict=True):
            pairs += random.choice(np.arange(first, end), ALIKE, replace=False).tolist()
        starts = np.arange(self.firsts[-1], self.first_other, MOTIONS_OF_SET)
        chosen = random.choice(starts, MOVING, replace=False)
        motions = np.add.outer(chosen, np.arange(MOTIONS_OF_SET)).ravel().tolist()
        others = np.arange(self.first_other, len(self.scenes))
        rest = random.choice(others, min(OTHERS, len(others)), replace=False).tolist()
        batch = self.batch(pairs, motions, rest, random)

        def loss(parameters: Parameters) -> mx.array:
            return batch_loss(self.model, parameters, batch)

        value, gradients = mx.value_and_grad(loss)(parameters)
        return value, gradients

    def batch(
        self,
        pairs: Sequence[int],
        motions: Sequence[int],
        others: Sequence[int],
        random: np.random.Generator,
    ) -> Batch:
        """The clips with these numbers, with random captions and random wordings of all words."""
        numbers, sets = [*pairs, *motions, *others], len(pairs) + len(motions)
        clips = self.clips([self.arrays[number] for number in numbers])
        scenes = [self.scenes[number] for number in numbers]
        middle, last = clips.shape[1] // 2, clips.shape[1] - 1
        for i in (*range(1, len(pairs), ALIKE), *range(sets, len(scenes))):
            # Of the two clips of a set, the second may become the first one with another motion.
            source = i - 1 if i < sets else i
            if random.random() >= (TURNED if i < sets else FROZEN):
                continue
            turned, still = backwards(scenes[source]), frozen(scenes[source])
            if turned is not None and i < sets:
                scenes[i], clips[i] = turned, clips[source][mx.arange(last, -1, -1)]
            elif still not in (None, scenes[source]):
                still_clip = mx.broadcast_to(clips[source, middle], clips[i].shape)
                scenes[i], clips[i] = still, still_clip
        single = [i for i, scene in enumerate(scenes) if len(scene.things) == 1]
        captions = [
            random_caption(scene, random, 0 if len(pairs) <= i < sets else MOTIONLESS)
            for i, scene in enumerate(scenes)
        ]
        uncoloured = [
            random_caption(colourless(scenes[i]), random, 0) for i in range(len(pairs), sets)
        ]
        words = [name_one(name, word, random) for name in ATTRIBUTES for word in ATTRIBUTES[name]]
        ids, paddings = self.processor.tokenize([*captions, *uncoloured, *words])
        alike = scenes[:sets]
        matrices = [strange_recolouring(scene, random) for scene in alike]
        for i in range(len(pairs), sets):  # The clips of a set do not differ in colour.
            matrices[i] = matrices[i - (i - len(pairs)) % MOTIONS_OF_SET]
        unknown = [
            [i != j and is_unknown(clip, caption) for j, caption in enumerate(scenes)]
            for i, clip in enumerate(scenes)
        ]
        return Batch(
            mx.concatenate([clips, recoloured(clips[:sets], matrices)]),
            (len(motions) // MOTIONS_OF_SET, MOTIONS_OF_SET),
            ids,
            paddings,
            mx.array(unknown),
            mx.array(single),
            choices_of([scenes[i] for i in single]),
            choices_of(alike, is_strange=True),
            mx.array([float(scene.shown("motion") != "blinking") for scene in alike]),
        )

    def clips(self, paths: Iterable[Path]) -> mx.array:
        """Cached clips as the model takes them: (B, T, S, S, 3), in [0, 1]."""
        stacked = np.stack([np.array(self.frames.cache.load(path)) for path in paths])
        return mx.array(stacked).astype(mx.float32) / 255

    def bounded(self, parameters: Parameters) -> Parameters:
        """The parameters, with a temperature of LEAST_TEMPERATURE or more."""
        log_scale = mx.minimum(parameters["log_scale"], -math.log(LEAST_TEMPERATURE))
        return {**parameters, "log_scale": log_scale}

    def validate(self, parameters: Parameters) -> Mapping[str, float]:
        """The share of right shapes among clips of one thing, and recalls of fixed captions."""
        self.model.update(parameters["model"])
        embedded = [
            np.array(cast(Any, self.model(self.clips(self.val_arrays[i : i + 64])))[0])
            for i in range(0, len(self.val_arrays), 64)
        ]
        videos = np.concatenate(embedded)
        random = np.random.default_rng(0)
        texts = embed_texts(
            self.model, self.processor, [describe(scene, random) for scene in self.val]
        )
        shapes = ATTRIBUTES["shape"]
        words = embed_texts(
            self.model, self.processor, [name_one("shape", shape) for shape in shapes]
        )
        best = (videos @ words.T).argmax(axis=1)
        right = [
            shapes[i] == scene.shown("shape")
            for i, scene in zip(best, self.val, strict=True)
            if len(scene.things) == 1
        ]
        return {"shape": float(np.mean(right)), **recalls(videos @ texts.T, np.arange(len(videos)))}


def train_attributes(
    directory: Path,
    sets: Sequence[Sequence[Scene]],
    clips: Mapping[str, Clips],
    output: Path,
    recipe: Recipe,
    cache: Path,
) -> tuple[FactorizedVideoCLIP, dict[str, Any]]:
    """Trains the model in a directory, and returns it with the metrics of its best epoch.

    `clips` are those of the `sets`, `others` and, to validate on, `val`. The run is kept in
    `output`: the same call continues it.
    """
    model, processor = load(directory, dtype="float32")
    model = cast(FactorizedVideoCLIP, model)
    frames = Frames(cache, processor)
    arrays = {}
    for name, drawn in clips.items():
        made, bad = frames.fill(drawn.paths, f"frames of {name}")
        assert not bad, bad
        arrays[name] = [path for path in made if path]
    scenes = {name: drawn.scenes for name, drawn in clips.items()}
    learner = AttributeLearner(model, processor, frames, sets, scenes, arrays)
    record = made_with(
        task="attributes",
        model=sha256(directory / WEIGHTS_FILE),
        clips={name: digest([path.name for path in paths]) for name, paths in arrays.items()},
    )
    run = Run(output, recipe, record, ["shape", "-loss"], save_every=100)
    with run.locked():
        best, history = run.fit(learner)
    model.update(best["model"])
    return model, run.best(history)
