"""Training a classifier: its pooler and projection, on cached features of a frozen encoder.

Shapes: B batch, E examples, T frames, N patches of a frame, D width, C classes.
"""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_map

from videoprism_mlx.encoders import FactorizedVideoClassifier
from videoprism_mlx.errors import InputError, counted
from videoprism_mlx.evaluation.metrics import (
    class_rows,
    multi_label_metrics,
    single_label_metrics,
)
from videoprism_mlx.files.checksum import with_checksum
from videoprism_mlx.files.record import as_json, digest, made_with
from videoprism_mlx.models import get_model
from videoprism_mlx.ranks.alike import names_of as video_names
from videoprism_mlx.ranks.joining import current
from videoprism_mlx.training.classes import (
    Lists,
    described,
    read_lists,
    require_labels,
    require_variety,
    warn_of_unseen,
)
from videoprism_mlx.training.examples import Examples, Features
from videoprism_mlx.training.losses import classification_loss, logits_loss, mean_over_ranks
from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.training.run import Learner, Rows
from videoprism_mlx.training.session import (
    Options,
    Outcome,
    Paths,
    Source,
    Trained,
    train,
)
from videoprism_mlx.training.state import Parameters, as_float32
from videoprism_mlx.training.views import PLAIN, Views
from videoprism_mlx.video.ffmpeg.decoding import Decoding
from videoprism_mlx.weights.base import base_name
from videoprism_mlx.weights.directory import (
    LABELS_FILE,
    PROCESSOR_FILE,
    RESULT_FILE,
    WEIGHTS_FILE,
    publish,
    read_checked_config,
)
from videoprism_mlx.weights.identity import checksum
from videoprism_mlx.weights.labels import Labels, load_labels, numbered
from videoprism_mlx.weights.loading import (
    load_classifier,
    load_video_encoder,
    model_directory,
    with_new_head,
)
from videoprism_mlx.weights.quantize.layers import dequantize_layers

# What is trained, by its names in the classifier.
TRAINED = ("atten_pooler", "projection")

# The files that training writes to the output, besides config.json.
OUTPUT_FILES = (WEIGHTS_FILE, LABELS_FILE, PROCESSOR_FILE, RESULT_FILE)

# That of the official demo.
OFFICIAL_RECIPE = Recipe()

# How many seeds MLX has, from which a new head is drawn.
SEEDS = 2**64

logger = logging.getLogger(__name__)


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
    decoding: Decoding | None = None,
    overwrite: bool = False,
) -> Trained:
    """Trains a classifier's pooler and projection on labelled videos.

    `model` is anything that `load_classifier` takes. The head of a classifier with the same number
    of classes is trained further; other models get a new head. `data` and `val` are lists or
    folders as for `read_labels`. `labels` are the names of the classes, or a file with a name on
    each line. Each training video has `views` views (see `Views` for `crop` and `span`); their
    features are computed once and kept in `cache`. Videos are read as the model's `Processor` says;
    `num_frames`, `size`, `resize` and `resample`, if given, replace its settings. `partial` is as
    for `read_video`. `dtype` is the type of the encoder.

    The best epoch, which is written to `output` as a model directory, is the one with the highest
    top-1 accuracy on `val`, or with the highest mean average precision if videos have several
    labels. Between equal epochs, the lowest loss decides. Without `val`, the lowest training loss
    decides. If a run was stopped, the same call continues it; with `overwrite` it begins anew. If
    videos cannot be used, an error lists all of them before training starts; with `skip_bad` they
    are left out.
    """
    options = Options(
        num_frames=num_frames,
        size=size,
        resize=resize,
        resample=resample,
        partial=partial,
        dtype=dtype,
        save_every=save_every,
        skip_bad=skip_bad,
        cache=cache,
        decoding=decoding,
        overwrite=overwrite,
    )
    chosen = Views(views, crop, span, recipe.seed)
    prepare = functools.partial(prepare_task, model, data, val, labels, recipe, chosen, options)
    return train(prepare, Path(output), OUTPUT_FILES, recipe, options)


def prepare_task(
    model: str | Path,
    data: str | Path,
    val: str | Path | None,
    labels: str | Path | Sequence[str] | None,
    recipe: Recipe,
    views: Views,
    options: Options,
) -> "ClassifierTask":
    """Reads the lists and loads the model."""
    lists = read_lists(data, val, labels)
    count = lists.count_classes()
    options.check_model(model, options.dtype)
    classifier, directory = starting_model(model, count, options.dtype, recipe.seed)
    names = names_of(lists.training.names, count, directory)
    warn_of_unseen(lists.training.labels, names)
    processor = options.processor(classifier, directory)
    features = Features(
        options.cache_folder("features"), classifier.video_encoder, processor, options.partial
    )
    return ClassifierTask(
        model=str(model),
        classifier=classifier,
        labels=Labels(names, lists.training.multi_label),
        lists=lists,
        places=(data,) if val is None else (data, val),
        features=features,
        views=views,
        batch_size=recipe.batch_size,
    )


@dataclasses.dataclass(frozen=True)
class ClassifierTask:
    """A classifier to train, and the labelled videos to train it on."""

    model: str
    classifier: FactorizedVideoClassifier
    labels: Labels
    lists: Lists
    places: tuple[str | Path, ...]  # Where the lists are.
    features: Features
    views: Views
    batch_size: int

    @property
    def record(self) -> dict[str, Any]:
        """The settings that the result depends on."""
        training, validation = self.lists
        names, multi_label = self.labels
        return made_with(
            model={"name": self.model, "head": checksum(trained_parameters(self.classifier))},
            **self.features.record(self.views),
            labels={"count": len(names), "names": digest(names), "multi_label": multi_label},
            training=described(training),
            validation=None if validation is None else described(validation),
        )

    @property
    def alike(self) -> dict[str, Any]:
        """The settings that all ranks must have in common: `record`, but for folders."""
        both = [listed and (video_names(listed.videos), listed.labels) for listed in self.lists]
        return {**self.record, "training": digest(both[0]), "validation": digest(both[1])}

    @property
    def metric(self) -> Sequence[str]:
        """The metrics that choose the best epoch."""
        if self.lists.validation is None:
            return ["-loss"]
        return ["map" if self.labels.multi_label else "top1", "-val_loss"]

    @property
    def sources(self) -> Sequence[Source]:
        """The videos to train on, in all views, and those to validate on, as they are."""
        fill, (training, validation) = self.features.fill, self.lists
        sources = [
            Source(
                self.places[0],
                functools.partial(fill, training.videos, self.views, "features"),
            )
        ]
        if validation is not None:
            what = "features to validate on"
            sources.append(
                Source(self.places[1], functools.partial(fill, validation.videos, PLAIN, what))
            )
        return sources

    def learner(self, training: Paths, validation: Paths | None = None) -> "HeadLearner":
        """The learner for the videos whose features are cached at these paths."""
        count, lists, held_out = len(self.labels.names), self.lists, None
        cache = self.features.cache(self.views)
        examples = Examples.of(cache, lists.training, training, count)
        if lists.validation is not None and validation is not None:
            cache = self.features.cache(PLAIN)
            held_out = Examples.of(cache, lists.validation, validation, count)
        if None in (*training, *(validation or ())):
            require_variety(examples.labels)
            warn_of_unseen(examples.labels, self.labels.names)
            if held_out is not None:
                require_labels(held_out.labels, self.places[1])
        return HeadLearner(self.classifier, examples, held_out, self.views.count, self.batch_size)

    def publish(self, learner: "HeadLearner", outcome: Outcome, output: Path) -> dict[str, Any]:
        """Writes the model directory of the best epoch, and returns the metrics in it."""
        classifier, held_out = self.classifier, learner.held_out
        classifier.update(outcome.best)
        classes = []
        if held_out is not None:
            logits = logits_of(classifier, held_out, self.batch_size)
            classes = class_rows(logits, held_out.targets, self.labels.names)
        usable = {"training": learner.examples, "validation": held_out}
        metrics = {
            **outcome.measured,
            "best_by": self.metric[0],
            "epochs": len(outcome.history),
            "videos": {key: one and len(one.paths) for key, one in usable.items()},
            "classes": classes,
            "skipped": outcome.skipped,
        }
        names, multi_label = self.labels
        files = {
            LABELS_FILE: with_checksum({"labels": names, "multi_label": multi_label}),
            RESULT_FILE: metrics,
        }
        texts = {name: as_json(each, ascii=False) + "\n" for name, each in files.items()}
        texts[PROCESSOR_FILE] = self.features.processor.as_json()
        publish(classifier, output, texts, source={"trained_from": base_name(self.model)})
        return metrics


class HeadLearner(Learner):
    """Trains the pooler and projection of a classifier on examples.

    `held_out` are the examples to validate on. Each step takes one view of each of its examples, at
    random among `views`.
    """

    def __init__(
        self,
        classifier: FactorizedVideoClassifier,
        examples: Examples,
        held_out: Examples | None = None,
        views: int = 1,
        batch_size: int = 4,
    ):
        self.count = len(examples.paths)
        self.classifier = classifier
        self.examples = examples
        self.held_out = held_out
        self.views = views
        self.batch_size = batch_size
        self._loss_and_gradients = mx.value_and_grad(self._loss)

    def record(self) -> dict[str, Any]:
        """What identifies the examples in the run's record."""
        both = {"training": self.examples, "validation": self.held_out}
        return {"usable": {key: one and one.digest() for key, one in both.items()}}

    def start(self) -> Parameters:
        """The parameters of the head before training."""
        return trained_parameters(self.classifier)

    def gradients(
        self, parameters: Parameters, rows: Rows, random: np.random.Generator
    ) -> tuple[mx.array, Parameters]:
        """The loss on some examples, and its gradients."""
        group = current()
        views = random.integers(self.views, size=len(rows))
        own = group.share(len(rows))
        if own.start == own.stop:
            none = tree_map(mx.zeros_like, parameters)
            return mean_over_ranks(group, mx.array(0.0), none, 0.0)
        tokens, targets = self.examples.batch(rows[own], views[own])
        loss, gradients = self._loss_and_gradients(parameters, tokens, targets)
        return mean_over_ranks(group, loss, gradients, (own.stop - own.start) / len(rows))

    def validate(self, parameters: Parameters) -> dict[str, float]:
        """The loss and the accuracy or precision on the examples to validate on."""
        if self.held_out is None:
            return {}
        self.classifier.update(parameters)
        targets = self.held_out.targets
        logits = logits_of(self.classifier, self.held_out, self.batch_size)
        loss = logits_loss(mx.array(logits), mx.array(targets))
        measure = multi_label_metrics if targets.ndim == 2 else single_label_metrics
        return {"val_loss": cast(float, loss.item()), **measure(logits, targets)}

    def _loss(self, parameters: Parameters, tokens: mx.array, targets: mx.array) -> mx.array:
        self.classifier.update(parameters)
        return classification_loss(self.classifier, tokens, targets)


def trained_parameters(classifier: FactorizedVideoClassifier) -> Parameters:
    """The parameters of the pooler and the projection, in float32."""
    return as_float32({part: classifier[part].parameters() for part in TRAINED})


def logits_of(
    classifier: FactorizedVideoClassifier, examples: Examples, batch_size: int
) -> npt.NDArray[np.float32]:
    """The logits (E, C) of the plain view of examples; of several ranks, each computes a share."""
    group, logits = current(), []
    for first in group.part(range(0, len(examples.paths), batch_size)):
        rows = np.arange(len(examples.paths))[first : first + batch_size]
        tokens, _ = examples.batch(rows, np.zeros_like(rows))
        logits.append(np.array(classifier.projection(classifier.atten_pooler(tokens))))
    return group.gather_parts(logits)


def is_classifier(directory: Path, count: int) -> bool:
    """Whether a model directory holds a classifier with `count` classes."""
    config, _ = read_checked_config(directory)
    found: object = config.get("num_classes")
    return config["model"] == "FactorizedVideoClassifier" and found == count


def names_of(listed: tuple[str, ...] | None, count: int, directory: Path) -> tuple[str, ...]:
    """The names of the classes: from the list or, if it has none, from the head in `directory`."""
    known = load_labels(directory, count).names if is_classifier(directory, count) else None
    if known and listed and known != listed:
        logger.warning("the head in %s has other class names; the given names are used", directory)
    return listed or known or numbered(count)


def starting_model(
    name_or_dir: str | Path, count: int, dtype: str | mx.Dtype | None, seed: int
) -> tuple[FactorizedVideoClassifier, Path]:
    """A classifier with `count` classes and the encoder of any model, and the model's directory."""
    directory = model_directory(name_or_dir)
    config, _ = read_checked_config(directory)
    if seed >= SEEDS:
        raise InputError(f"seed is {seed}; expected a number below {SEEDS}")
    mx.random.seed(seed)
    if is_classifier(directory, count):
        trained = load_classifier(directory, dtype=dtype)
        for part in TRAINED:  # A quantized head is trained, and stored, dequantized.
            dequantize_layers(trained[part], trained.dtype)
        return trained, directory
    if config["model"] != "FactorizedVideoClassifier":
        return with_new_head(load_video_encoder(directory, dtype), count), directory
    classifier: Any = get_model(config, num_classes=count)
    classifier.encoder = load_video_encoder(directory, dtype)
    logger.warning(
        "%s is a classifier with %s; for %s it gets a new head",
        directory,
        counted(config["num_classes"], "class", "classes"),
        counted(count, "class", "classes"),
    )
    return classifier.eval(), directory
