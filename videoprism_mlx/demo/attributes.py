"""The last stage of training the small model: it learns to name each attribute of a clip.

A caption names everything at once, so a shape is a small part of what tells clips apart, and many
shapes are told by their colour: a model that never saw a yellow heart learns that what is yellow is
no heart. Here each attribute has a loss of its own, in which no combination that is held out counts
against a clip.

Shapes: B clips of a batch, C of them with one thing, T frames, S size of a frame, L text positions,
W words of an attribute, D width.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from videoprism_mlx.demo.captions import describe, name_one
from videoprism_mlx.demo.scenes import ATTRIBUTES, Scene, is_held_out
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
# and that of each of its frames, of naming another attribute, and of `neutral_loss`.
SHAPE, FRAME, OTHER, NEUTRAL = 1.0, 0.5, 0.2, 0.05

START_TEMPERATURE = 0.05
COMPLETE = 0.4  # The share of captions that say everything.
OTHERS = 39  # Clips of a batch that are of no set.
BLIND = -1e9  # A logit that counts as no choice.


class Clips(NamedTuple):
    """Clips that `write_world` drew in a folder, and their scenes."""

    folder: Path
    scenes: Sequence[Scene]

    def paths(self) -> list[Path]:
        """The files, in the order of the scenes."""
        return [self.folder / f"clip{number:05d}.mp4" for number in range(len(self.scenes))]


class Choices(NamedTuple):
    """The words of an attribute, and which of them clips show."""

    words: slice  # Of all words.
    right: mx.array  # (C,): the word that is right.
    possible: mx.array  # (C, W): whether the clip with this word instead occurs in training.


class Batch(NamedTuple):
    """Clips, their captions followed by the words of all attributes, and what is right."""

    clips: mx.array  # (B, T, S, S, 3), in [0, 1].
    ids: Array
    paddings: Array
    unknown: mx.array  # (B, B): whether the caption says of the clip what is held out.
    single: mx.array  # (C,): the clips with one thing.
    always_shown: mx.array  # (C,): 0 if the thing blinks, else 1.
    choices: Mapping[str, Choices]


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


def choices_of(scenes: Sequence[Scene]) -> dict[str, Choices]:
    """The choices of each attribute, for scenes of one thing."""
    first, choices = 0, {}
    for name, words in ATTRIBUTES.items():
        right = np.array([words.index(scene.shown(name)) for scene in scenes])
        possible = np.array([possible_words(scene, name) for scene in scenes])
        choices[name] = Choices(
            slice(first, first + len(words)), mx.array(right), mx.array(possible)
        )
        first += len(words)
    return choices


def naming_loss(logits: mx.array, choices: Choices) -> mx.array:
    """The cross-entropy (C,) of the right words among the possible ones, for logits (C, W)."""
    logits = mx.where(choices.possible, logits, BLIND)
    return nn.losses.cross_entropy(logits, choices.right, reduction="none")


def neutral_loss(logits: mx.array, choices: Choices) -> mx.array:
    """How far impossible words are from being as likely as wrong ones, for logits (C, W): a scalar.

    Without it, a word that is never right in some colour is never chosen in this colour.
    """
    right = mx.arange(logits.shape[1]) == choices.right[:, None]
    wrong = (choices.possible & ~right).astype(mx.float32)
    never = (~choices.possible).astype(mx.float32)
    gap = (logits * never).sum(1) / never.sum(1) - (logits * wrong).sum(1) / wrong.sum(1)
    return gap.square().mean()


def batch_loss(model: FactorizedVideoCLIP, parameters: Parameters, batch: Batch) -> mx.array:
    """The sum of the weighted losses of a batch: a scalar."""
    model.update(parameters["model"])
    scale = mx.exp(parameters["log_scale"])
    features, _ = model.vision_encoder(batch.clips)
    features = model.contextualize(features)
    videos = l2_normalize(model.contrastive_vision_pooler(features))
    _, texts, _ = cast(Any, model(None, batch.ids, batch.paddings))
    count = len(videos)

    logits = mx.where(batch.unknown, BLIND, scale * (videos @ texts[:count].T))
    right = mx.arange(count)
    loss = sum(
        nn.losses.cross_entropy(each, right, reduction="mean") / 2 for each in (logits, logits.T)
    )
    for name, choices in batch.choices.items():
        named = scale * (videos[batch.single] @ texts[count:][choices.words].T)
        loss += (SHAPE if name == "shape" else OTHER) * naming_loss(named, choices).mean()

    shapes = batch.choices["shape"]
    words = texts[count:][shapes.words]
    loss += NEUTRAL * neutral_loss(scale * (videos[batch.single] @ words.T), shapes)
    length = batch.clips.shape[1]
    frames = l2_normalize(model.pool_frames(features[batch.single], length))  # (C, T, D)
    by_frame = scale * (frames @ words.T)
    each = sum(naming_loss(by_frame[:, frame], shapes) for frame in range(length)) / length
    return cast(
        mx.array, loss + FRAME * (each * batch.always_shown).sum() / batch.always_shown.sum()
    )


class AttributeLearner(Learner):
    """Trains on sets of clips that differ in shape alone, together with other clips.

    An example is a set. `arrays` are the clips of all sets, of all others, and those to validate
    on, as `Frames` caches them.
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
        self.scenes = [*scenes["sets"], *scenes["others"]]
        self.arrays = [*arrays["sets"], *arrays["others"]]
        self.val, self.val_arrays = scenes["val"], arrays["val"]

    def start(self) -> Parameters:
        """The model's parameters, and the log of the inverse temperature."""
        weights = as_float32(cast(Any, self.model).parameters())
        return {"model": weights, "log_scale": mx.array(-math.log(START_TEMPERATURE))}

    def gradients(
        self, parameters: Parameters, rows: Rows, random: np.random.Generator
    ) -> tuple[mx.array, Parameters]:
        """The loss on some sets and on random other clips, and its gradients."""
        numbers = [i for row in rows for i in range(self.firsts[row], self.firsts[row + 1])]
        others = np.arange(self.firsts[-1], len(self.scenes))
        numbers += random.choice(others, min(OTHERS, len(others)), replace=False).tolist()
        batch = self.batch(numbers, random)

        def loss(parameters: Parameters) -> mx.array:
            return batch_loss(self.model, parameters, batch)

        value, gradients = mx.value_and_grad(loss)(parameters)
        return value, gradients

    def batch(self, numbers: Sequence[int], random: np.random.Generator) -> Batch:
        """The clips with these numbers, with random captions and random wordings of all words."""
        scenes = [self.scenes[number] for number in numbers]
        single = [i for i, scene in enumerate(scenes) if len(scene.things) == 1]
        captions = [
            describe(scene, random, 1.0 if random.random() < COMPLETE else random.uniform())
            for scene in scenes
        ]
        words = [name_one(name, word, random) for name in ATTRIBUTES for word in ATTRIBUTES[name]]
        ids, paddings = self.processor.tokenize([*captions, *words])
        unknown = [
            [i != j and is_unknown(clip, caption) for j, caption in enumerate(scenes)]
            for i, clip in enumerate(scenes)
        ]
        return Batch(
            self.clips([self.arrays[number] for number in numbers]),
            ids,
            paddings,
            mx.array(unknown),
            mx.array(single),
            mx.array([float(scenes[i].shown("motion") != "blinking") for i in single]),
            choices_of([scenes[i] for i in single]),
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
        made, bad = frames.fill(drawn.paths(), f"frames of {name}")
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
