"""Classifiers on a frozen encoder: the pooler and projection, trained on features that are kept.

Shapes: B batch, E examples, V views, T frames, N patches of a frame, S size of a frame, D width,
C classes.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from videoprism_mlx.datasets.labels import Labelled, checked_names, read_labels, read_names
from videoprism_mlx.datasets.overlap import warn_of_overlap
from videoprism_mlx.encoders import FactorizedEncoder, FactorizedVideoClassifier
from videoprism_mlx.errors import InputError
from videoprism_mlx.evaluation.metrics import (
    class_rows,
    multi_hot,
    multi_label_metrics,
    single_label_metrics,
)
from videoprism_mlx.features.cache import ArrayCache, fill, require_usable
from videoprism_mlx.features.processor import Processor, processor_for
from videoprism_mlx.files import places
from videoprism_mlx.files.record import digest, made_with
from videoprism_mlx.models import get_model
from videoprism_mlx.pictures.curves import draw_curves
from videoprism_mlx.training.run import (
    RUN_FOLDER,
    Parameters,
    Recipe,
    Run,
    as_float32,
    require_output,
)
from videoprism_mlx.video.resize import MAX_SIZE
from videoprism_mlx.video.source import Files, open_source
from videoprism_mlx.weights.directory import (
    LABELS_FILE,
    PROCESSOR_FILE,
    RESULT_FILE,
    WEIGHTS_FILE,
    publish,
    read_config,
)
from videoprism_mlx.weights.identity import ModelIdentity, checksum
from videoprism_mlx.weights.labels import Labels, load_labels, numbered
from videoprism_mlx.weights.loading import (
    load_classifier,
    load_video_encoder,
    model_directory,
)

# What is trained, as the classifier calls it.
TRAINED = ("atten_pooler", "projection")

# As in the official demo.
OFFICIAL_RECIPE = Recipe()

# Clips that threads may read ahead of the encoder.
CLIPS_AHEAD = 8

# Names that a message lists.
LISTED = 20

logger = logging.getLogger(__name__)


class TrainedClassifier(NamedTuple):
    """Where a trained classifier is, how good it is, and how that came about."""

    directory: Path
    metrics: dict[str, Any]  # Of the best epoch and, as `classes`, of each class.
    history: tuple[dict[str, Any], ...]  # What was measured, a mapping an epoch.
    skipped: list[str]  # A line about each video that could not be used.


@dataclasses.dataclass(frozen=True)
class Views:
    """The versions of a training video: the plain one, and `count` - 1 that differ at random.

    Those show a span of the video, at least the share `span` of its frames, and of each frame a
    square whose side is at least the share `crop` of it.
    """

    count: int = 1
    crop: float = 0.75
    span: float = 0.75
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"views is {self.count}; expected 1 or more")
        for name in ("crop", "span"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected a share, up to 1")

    def settings(self) -> dict[str, Any] | None:
        """What the features depend on: nothing if there is but the plain view."""
        return dataclasses.asdict(self) if self.count > 1 else None

    def random(self, video: Files, number: int) -> np.random.Generator:
        """What view `number` of a video is drawn from: its first file and the folder of that."""
        name = "/".join((video if isinstance(video, Path) else video[0]).parts[-2:])
        checksum = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
        return np.random.default_rng([self.seed, int.from_bytes(checksum[:8], "big"), number])


PLAIN = Views()


def train_classifier(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    val: str | Path | None = None,
    *,
    labels: str | Path | Sequence[str] | None = None,
    recipe: Recipe = OFFICIAL_RECIPE,
    views: int = PLAIN.count,
    crop: float = PLAIN.crop,
    span: float = PLAIN.span,
    num_frames: int | None = None,
    size: int | None = None,
    resize: str | None = None,
    resample: str | None = None,
    partial: bool = False,
    dtype: str | mx.Dtype | None = None,
    save_every: int | None = None,
    skip_bad: bool = False,
    cache: str | Path | None = None,
) -> TrainedClassifier:
    """Trains the pooler and projection of a classifier on labelled videos; writes it to `output`.

    `model` is any that `load_classifier` takes: the head of a classifier of as many classes goes on
    being trained, others get a fresh one. `data` and `val` are what `read_labels` takes, `labels`
    the names of the classes or a file of them, a line each. Of each training video there are
    `views`, `Views` says how. The encoder's features of them are made once, and kept in `cache`.

    The best epoch is that of the highest top-1 accuracy on `val`, or mean average precision where
    videos have several labels, and of the least loss among those; without `val`, that of the least
    loss in training. A run that was stopped goes on where it was when it is started again. Videos
    that cannot be used are an error, once all are known, or left out with `skip_bad`.
    """
    output = Path(output)
    require_output(output, (WEIGHTS_FILE, LABELS_FILE, PROCESSOR_FILE, RESULT_FILE))
    chosen = Views(views, crop, span, recipe.seed)
    training, validation = read_data(data, val, labels)
    count = count_classes(training, validation)
    classifier, directory = starting_model(model, count, dtype, recipe.seed)
    meant = Labels(names_of(training, count, directory), training.multi_label)
    warn_of_unseen(training, meant.names)
    encoder = classifier.video_encoder
    processor = processor_with(
        processor_for(classifier, directory),
        encoder.patch_size,
        dict(num_frames=num_frames, size=size, resize=resize, resample=resample),
    )
    root = Path(cache) if cache is not None else places.cache_directory() / "features"
    features = Features(root, encoder, processor, partial)

    record = made_with(
        model={"name": str(model), "head": checksum(trained_parameters(classifier))},
        **features.record(chosen),
        labels={"count": count, "names": digest(meant.names), "multi_label": meant.multi_label},
        training=described(training),
        validation=None if validation is None else described(validation),
    )
    metric = ["map" if meant.multi_label else "top1", "-val_loss"] if validation else ["-loss"]
    run = Run(output / RUN_FOLDER, recipe, record, metric, save_every)
    run.require_alike()
    if validation is None:
        logger.info("there is nothing to validate on: the best epoch is that of the least loss")

    examples, skipped = features.of(training, count, chosen, "features")
    held_out = None
    if validation is not None:
        held_out, more = features.of(validation, count, PLAIN, "features to validate on")
        skipped += more
    total = len(training.videos) + (len(validation.videos) if validation else 0)
    require_usable(skipped, total, skip_bad)
    usable = {"training": examples, "validation": held_out}
    run.record = {**record, "usable": {key: one and one.digest() for key, one in usable.items()}}
    if skipped:
        left = training._replace(labels=examples.labels, videos=())
        require_variety(left)
        warn_of_unseen(left, meant.names)
        if held_out is not None:
            require_labels(held_out.labels, val)

    with run.locked():
        history = fit_head(classifier, run, examples, held_out, chosen.count)
        measured = run.best(history)
        metrics = {
            **measured,
            "best_by": metric[0],
            "epochs": len(history),
            "videos": {key: one and len(one.paths) for key, one in usable.items()},
            "classes": class_table(classifier, meant, held_out, recipe.batch_size),
            "skipped": skipped,
        }
        files = {
            LABELS_FILE: {"labels": meant.names, "multi_label": meant.multi_label},
            PROCESSOR_FILE: processor.settings(),
            RESULT_FILE: metrics,
        }
        texts = {
            name: json.dumps(each, indent=2, ensure_ascii=False) + "\n"
            for name, each in files.items()
        }
        publish(classifier, output, texts, source={"trained_from": str(model)})
        draw_curves(run.folder, history, measured["epoch"])
    return TrainedClassifier(output, metrics, history, skipped)


def fit_head(
    classifier: FactorizedVideoClassifier,
    run: Run,
    examples: "Examples",
    held_out: "Examples | None" = None,
    views: int = 1,
) -> tuple[dict[str, Any], ...]:
    """Trains the pooler and projection on kept features. What was measured, a mapping an epoch.

    The classifier is left with those of the best epoch, in float32.
    """

    def loss_of(parameters: Parameters, tokens: mx.array, targets: mx.array) -> mx.array:
        classifier.update(parameters)
        return classification_loss(classifier, tokens, targets)

    loss_and_gradients = mx.value_and_grad(loss_of)

    def gradients(
        parameters: Parameters, rows: np.ndarray, random: np.random.Generator
    ) -> tuple[mx.array, Parameters]:
        tokens, targets = examples.batch(rows, random.integers(views, size=len(rows)))
        return loss_and_gradients(parameters, tokens, targets)

    def validate(parameters: Parameters) -> dict[str, float]:
        if held_out is None:
            return {}
        classifier.update(parameters)
        logits = logits_of(classifier, held_out, run.recipe.batch_size)
        loss = logits_loss(mx.array(logits), mx.array(held_out.targets)).item()
        measure = multi_label_metrics if held_out.targets.ndim == 2 else single_label_metrics
        return {"val_loss": loss, **measure(logits, held_out.targets)}

    parameters = trained_parameters(classifier)
    best, history = run.fit(parameters, len(examples.paths), gradients, validate)
    classifier.update(best)
    return history


def trained_parameters(classifier: FactorizedVideoClassifier) -> Parameters:
    """The parameters of the pooler and the projection, in float32."""
    return as_float32({part: classifier[part].parameters() for part in TRAINED})


# Data.


def read_data(
    data: str | Path, val: str | Path | None, labels: str | Path | Sequence[str] | None
) -> tuple[Labelled, Labelled | None]:
    """The videos to train and to validate on."""
    if isinstance(labels, (str, Path)):
        labels = read_names(labels)
    elif labels is not None:
        labels = checked_names(labels, "labels")
    training = read_labels(data, labels)
    require_variety(training)
    if val is None:
        return training, None
    validation = read_labels(val, training.names)
    if validation.multi_label != training.multi_label:
        kinds = {True: "a list of classes", False: "one class"}
        raise InputError(
            f"a video has {kinds[training.multi_label]} in {data} and "
            f"{kinds[validation.multi_label]} in {val}; expected the same"
        )
    if training.names is None and validation.by_name:
        raise InputError(
            f"the classes of {data} have numbers and those of {val} names; say with labels "
            "(--labels) which is which"
        )
    require_labels(validation.labels, val)
    warn_of_overlap(training.videos, validation.videos)
    return training, validation


def require_labels(labels: Sequence[Sequence[int]], where: object) -> None:
    """That there is something to find."""
    if not any(labels):
        raise InputError(f"no video of {where} has a label: there is nothing to validate on")


def require_variety(listed: Labelled) -> None:
    """That there is something to tell apart."""
    if len(set(listed.labels)) < 2:
        raise InputError(
            f"all {len(listed.labels)} videos to train on have the same label, or there are none; "
            "expected two classes or more"
        )


def count_classes(*lists: Labelled | None) -> int:
    """How many classes lists are about: those with names, or up to the largest number."""
    lists = [listed for listed in lists if listed is not None]
    if lists[0].names is not None:
        return len(lists[0].names)
    return 1 + max(number for listed in lists for labels in listed.labels for number in labels)


def names_of(training: Labelled, count: int, directory: Path) -> tuple[str, ...]:
    """What the classes are called: as the list says, or the model whose head is trained on."""
    known = load_labels(directory, count).names if is_classifier(directory, count) else None
    if known and training.names and known != training.names:
        logger.warning("the head in %s, which is trained on, is one of other classes", directory)
    return training.names or known or numbered(count)


def warn_of_unseen(training: Labelled, names: Sequence[str]) -> None:
    """Names the classes that no video shows."""
    seen = {number for labels in training.labels for number in labels}
    unseen = [name for number, name in enumerate(names) if number not in seen]
    if unseen:
        more = f" and {len(unseen) - LISTED} more" if len(unseen) > LISTED else ""
        logger.warning(
            "%d of %d classes have no video to train on, and will not be found: %s%s",
            len(unseen),
            len(names),
            ", ".join(unseen[:LISTED]),
            more,
        )


def described(listed: Labelled) -> dict[str, Any]:
    """What tells one list of videos from another."""
    places = [
        os.path.abspath(video) if isinstance(video, Path) else [*map(os.path.abspath, video)]
        for video in listed.videos
    ]
    return {"videos": len(places), "list": digest([places, listed.labels])}


# The model.


def is_classifier(directory: Path, count: int) -> bool:
    """Whether a model directory is that of a classifier of so many classes."""
    config = read_config(directory)
    return config.get("model") == "FactorizedVideoClassifier" and config["num_classes"] == count


def starting_model(
    name_or_dir: str | Path, count: int, dtype: str | mx.Dtype | None, seed: int
) -> tuple[FactorizedVideoClassifier, Path]:
    """A classifier of `count` classes with the encoder of any model, and the model's directory."""
    directory = model_directory(name_or_dir)
    config = read_config(directory)
    mx.random.seed(seed)
    if config.get("model") != "FactorizedVideoClassifier" or is_classifier(directory, count):
        return load_classifier(directory, count, dtype), directory
    classifier = get_model(config, num_classes=count)
    classifier.encoder = load_video_encoder(directory, dtype)
    logger.warning(
        "%s is a classifier of %d classes; of %d, its head is a fresh one",
        directory,
        config["num_classes"],
        count,
    )
    return classifier.eval(), directory


def processor_with(processor: Processor, patch_size: int, options: dict[str, Any]) -> Processor:
    """A model's processor with those of the options that are given."""
    given = {name: value for name, value in options.items() if value is not None}
    processor = dataclasses.replace(processor, **given)
    if processor.size % patch_size:
        raise InputError(f"size is {processor.size}; expected a multiple of {patch_size}")
    return processor


# Features.


@dataclasses.dataclass(frozen=True)
class Examples:
    """The kept features of videos, a file each of (V, T * N, D), and their labels."""

    cache: ArrayCache
    paths: tuple[Path, ...]
    labels: tuple[tuple[int, ...], ...]
    targets: np.ndarray  # Classes (E,), or multi-hot (E, C).

    def batch(self, rows: np.ndarray, views: np.ndarray) -> tuple[mx.array, mx.array]:
        """A view each of some videos, (B, T * N, D) in float32, and their targets."""
        tokens = [
            np.array(self.cache.load(self.paths[row])[view])  # An open map takes a file handle.
            for row, view in zip(rows, views, strict=True)
        ]
        return mx.array(np.stack(tokens)).astype(mx.float32), mx.array(self.targets[rows])

    def digest(self) -> str:
        """What tells other videos, or other versions of them, apart."""
        return digest([[path.name for path in self.paths], self.labels])


@dataclasses.dataclass(frozen=True)
class Features:
    """Makes an encoder's features of videos, and keeps them in folders below `root`."""

    root: Path
    encoder: FactorizedEncoder
    processor: Processor
    partial: bool = False

    @functools.cached_property
    def weights(self) -> str:
        """The checksum of the encoder."""
        return ModelIdentity(self.encoder).parameters

    def record(self, views: Views) -> dict[str, Any]:
        """What the features depend on."""
        return {
            "features": "tokens in float16",
            "encoder": {**self.encoder.config, "weights": self.weights},
            "preprocessing": self.processor.preprocessing(partial=self.partial),
            "views": views.settings(),
        }

    def of(
        self, listed: Labelled, count: int, views: Views, what: str
    ) -> tuple[Examples, list[str]]:
        """The features of those videos that can be used, and a line about each other one."""
        cache = ArrayCache(self.root, self.record(views))
        patches = (self.processor.size // self.encoder.patch_size) ** 2
        tokens = views.count * self.processor.num_frames * patches
        paths, skipped = fill(
            cache,
            listed.videos,
            functools.partial(self.read, views=views),
            self.encode,
            what,
            size=tokens * self.encoder.spatial_ln.weight.size * np.dtype(np.float16).itemsize,
            ahead=max(1, CLIPS_AHEAD // views.count),
        )
        pairs = zip(paths, listed.labels, strict=True)
        usable = [(path, labels) for path, labels in pairs if path is not None]
        if not usable:
            raise InputError(f"none of {len(paths)} videos can be used, as is said above")
        kept, labels = zip(*usable, strict=True)
        targets = multi_hot(labels, count) if listed.multi_label else np.array(labels)[:, 0]
        return Examples(cache, kept, labels, targets), skipped

    def read(self, video: Files, views: Views) -> list[np.ndarray]:
        """The views of a video, a clip (T, S, S, 3) each."""
        clips = [self.processor.read_exactly(video, partial=self.partial)]
        for number in range(1, views.count):
            random = views.random(video, number)
            clips.append(self.read_at_random(video, views, random))
        return clips

    def read_at_random(self, video: Files, views: Views, random: np.random.Generator) -> np.ndarray:
        """A square at random of each frame in a span at random, (T, S, S, 3)."""
        size = self.processor.size
        larger = min(round(size / random.uniform(views.crop, 1)), MAX_SIZE)
        top, left = random.integers(larger - size + 1, size=2)
        span = self.random_span(video, views.span, random)
        clip = self.processor.read_exactly(video, size=larger, partial=self.partial, **span)
        return clip[:, top : top + size, left : left + size]

    def random_span(
        self, video: Files, share: float, random: np.random.Generator
    ) -> dict[str, float | None]:
        """The seconds from which and to which to read, at least that share of the frames.

        Frames at a rate take the time that they take: where they begin is random.
        """
        with closing(open_source(video, partial=self.partial)) as opened:
            times = opened.times
            end = times[-1] + opened.interval
        if self.processor.fps is not None:
            latest = max(0.0, end - self.processor.num_frames / self.processor.fps)
            return {"start": random.uniform(0, latest)}
        count = max(1, round(len(times) * random.uniform(share, 1)))
        first = int(random.integers(len(times) - count + 1))
        is_last = first + count == len(times)
        return {"start": float(times[first]), "end": None if is_last else times[first + count]}

    def encode(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """V clips (T, S, S, 3) to features (V, T * N, D) in float16."""
        tokens = [self.encoder(mx.array(clip)[None])[0][0].astype(mx.float16) for clip in clips]
        features = np.stack([np.array(each) for each in tokens])
        if not np.isfinite(features).all():
            raise InputError(
                "the encoder makes NaN or infinity of a video; load it in another type (dtype)"
            )
        return features


# The loss, and what comes of it.


def classification_loss(head: nn.Module, tokens: mx.array, targets: mx.array) -> mx.array:
    """The loss of an encoder's tokens (B, T * N, D) under a head: a scalar.

    `head` has a classifier's `atten_pooler` and `projection`. `targets` are as for `logits_loss`.
    """
    return logits_loss(head.projection(head.atten_pooler(tokens)), targets)


def logits_loss(logits: mx.array, targets: mx.array) -> mx.array:
    """The mean loss of logits (B, C): a scalar.

    With classes (B,) for `targets` it is the cross-entropy of the softmax; with those multi-hot,
    (B, C), that of the sigmoid of each logit.
    """
    if targets.ndim == 1:
        return nn.losses.cross_entropy(logits, targets, reduction="mean")
    return nn.losses.binary_cross_entropy(logits, targets.astype(logits.dtype), reduction="mean")


def logits_of(
    classifier: FactorizedVideoClassifier, examples: Examples, batch_size: int
) -> np.ndarray:
    """The logits (E, C) of the plain view of videos."""
    logits = []
    for first in range(0, len(examples.paths), batch_size):
        rows = np.arange(len(examples.paths))[first : first + batch_size]
        tokens, _ = examples.batch(rows, np.zeros_like(rows))
        logits.append(np.array(classifier.projection(classifier.atten_pooler(tokens))))
    return np.concatenate(logits)


def class_table(
    classifier: FactorizedVideoClassifier,
    labels: Labels,
    examples: Examples | None,
    batch_size: int,
) -> list[dict[str, Any]]:
    """A row for each class: how many examples it has, and how well they are found."""
    if examples is None:
        return []
    return class_rows(logits_of(classifier, examples, batch_size), examples.targets, labels.names)
