"""How good a model is on a dataset, by the protocols behind published numbers.

Shapes: V videos, Q texts, C classes, T frames, S size of a frame, D width.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.datasets.captions import Captioned
from videoprism_mlx.datasets.labels import Labelled
from videoprism_mlx.encoders import FactorizedVideoClassifier, VideoPrismModel
from videoprism_mlx.errors import InputError, are, counted
from videoprism_mlx.evaluation.figures import Figure
from videoprism_mlx.evaluation.metrics import (
    class_rows,
    cosines,
    multi_hot,
    multi_label_metrics,
    recalls,
    single_label_metrics,
)
from videoprism_mlx.evaluation.published import beside, figures_of
from videoprism_mlx.features.cache import ArrayCache, fill, require_usable
from videoprism_mlx.features.encode import check_features, video_features
from videoprism_mlx.features.pipeline import not_finite
from videoprism_mlx.features.processor import PROMPT, Processor, check_template
from videoprism_mlx.features.text import embed_texts, require_tokenizer
from videoprism_mlx.files import places
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.files.output import require_writable
from videoprism_mlx.files.record import as_json, digest, made_with
from videoprism_mlx.ranks.alike import names_of, require_alike
from videoprism_mlx.ranks.joining import current, over_ranks
from videoprism_mlx.video.source import Files
from videoprism_mlx.weights.identity import ModelIdentity

Array = npt.NDArray[Any]

# How a video's captions become texts: each is a text, all are joined into one text, or only the
# first is used.
CAPTIONS = ("each", "joined", "first")


@over_ranks
def evaluate_retrieval(
    model: VideoPrismModel,
    processor: Processor,
    pairs: Sequence[Captioned],
    captions: str = "each",
    *,
    partial: bool = False,
    skip_bad: bool = False,
    cache: str | Path | None = None,
    identity: ModelIdentity | None = None,
    data: str | Path | None = None,
    dataset: str | None = None,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Measures how well videos are found by their captions, and captions by their videos.

    `captions` is one of CAPTIONS; "joined" is paragraph retrieval. Texts are put into the
    processor's template. The embeddings of videos are kept in `cache` and computed once. Videos
    that cannot be used are an error; with `skip_bad` they are left out with their captions.

    The result has `metrics` as in `recalls`, the number of videos and texts, and `settings`, which
    say how it was made. `identity` and `data`, the file or folder that the list is from, are noted
    there. `dataset` names the dataset, such as "msrvtt": what was published for a released model is
    then in `published`, with the differences between the protocols. `output` is a JSON file to
    which the result is written as well. Of several ranks of `mlx.launch`, each computes its share
    of the embeddings, and the first one writes.
    """
    require_tokenizer(model, processor)
    if captions not in CAPTIONS:
        raise InputError(f"captions is {captions!r}; expected one of {', '.join(CAPTIONS)}")
    if not pairs:
        raise InputError("there are no videos with captions")
    noted = (identity, data, dataset, output)
    evaluation = Evaluation("retrieval", model, processor, partial, skip_bad, cache, *noted)
    videos = [pair.video for pair in pairs]
    evaluation.require_alike(videos, [captions, [pair.captions for pair in pairs]])
    said = [texts_of(pair, captions) for pair in pairs]
    texts = [text for each in said for text in each]
    owners = np.repeat(np.arange(len(pairs)), [len(each) for each in said])
    text_embeddings = embed_texts(model, processor, texts, progress=True)
    longer = dataclasses.replace(processor, max_length=processor.max_length + 1)
    is_cut = longer.tokenize(texts)[1][:, -1] == 0

    vectors = evaluation.vectors(videos, "embedding")
    kept = np.isin(owners, vectors.numbers)
    similarity = cosines(vectors.rows, text_embeddings[kept])
    measured = {
        "metrics": recalls(similarity, np.searchsorted(vectors.numbers, owners[kept])),
        **vectors.counts(len(pairs)),
        "texts": int(kept.sum()),
        "texts_cut": int(is_cut[kept].sum()),
    }
    settings = {"captions": captions, "template": processor.template}
    return evaluation.result(measured, settings)


def texts_of(pair: Captioned, captions: str) -> list[str]:
    """The texts that are made of a video's captions."""
    if captions == "joined":
        return [" ".join(pair.captions)]
    return list(pair.captions[:1] if captions == "first" else pair.captions)


@over_ranks
def evaluate_zero_shot(
    model: VideoPrismModel,
    processor: Processor,
    labelled: Labelled,
    templates: Sequence[str] | None = None,
    *,
    partial: bool = False,
    skip_bad: bool = False,
    cache: str | Path | None = None,
    identity: ModelIdentity | None = None,
    data: str | Path | None = None,
    dataset: str | None = None,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Measures how well a video-text model classifies videos by the names of the classes.

    `templates` are prompts with a {} for the name. The default is the processor's template or, if
    it has none, the prompt of the official demo. If videos have several labels, only `map` is
    measured. The result also has `classes`, a row for each class. For the other arguments see
    `evaluate_retrieval`.
    """
    check_zero_shot(model, processor, labelled, templates)
    assert labelled.names is not None  # It has been checked.
    if templates is None:
        templates = [PROMPT if processor.template == "{}" else processor.template]
    noted = (identity, data, dataset, output)
    evaluation = Evaluation("zero-shot", model, processor, partial, skip_bad, cache, *noted)
    evaluation.require_alike(labelled.videos, [labelled.labels, labelled.names, list(templates)])
    classes = class_embeddings(model, processor, labelled.names, templates)
    vectors = evaluation.vectors(labelled.videos, "embedding")
    measured = classified(vectors, cosines(vectors.rows, classes), labelled, labelled.names)
    if labelled.multi_label:  # Cosines have no threshold that means yes or no.
        measured["metrics"] = {"map": measured["metrics"]["map"]}
    return evaluation.result(measured, {"templates": list(templates)})


def check_zero_shot(
    model: VideoPrismModel,
    processor: Processor,
    labelled: Labelled,
    templates: Sequence[str] | None = None,
) -> None:
    """Raises InputError if `evaluate_zero_shot` cannot use these. The model needs no weights."""
    require_tokenizer(model, processor)
    if labelled.names is None:
        raise InputError("the classes have no names; give their names with labels (--labels)")
    if templates is not None:
        check_templates(templates)


def check_templates(templates: Sequence[str]) -> None:
    """Raises InputError unless these are prompts with a place for a name."""
    if isinstance(templates, str) or not templates:
        raise InputError(f"templates is {templates!r}; expected a list of at least one text")
    for template in templates:
        check_template(template)


def class_embeddings(
    model: VideoPrismModel,
    processor: Processor,
    names: Sequence[str],
    templates: Sequence[str],
) -> npt.NDArray[np.float32]:
    """The embedding of each name, averaged over the templates and of length one: (C, D)."""
    check_templates(templates)
    prompts = [template.replace("{}", name) for template in templates for name in names]
    plain = dataclasses.replace(processor, template="{}")
    embedded = embed_texts(model, plain, prompts, progress=True)
    means: Array = embedded.reshape(len(templates), len(names), -1).mean(axis=0)
    unit: npt.NDArray[np.float32] = means / np.linalg.norm(means, axis=-1, keepdims=True)
    return unit


@over_ranks
def evaluate_classifier(
    model: VideoPrismModel,
    processor: Processor,
    labelled: Labelled,
    names: Sequence[str],
    *,
    partial: bool = False,
    skip_bad: bool = False,
    cache: str | Path | None = None,
    identity: ModelIdentity | None = None,
    data: str | Path | None = None,
    dataset: str | None = None,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Measures a trained classifier on labelled videos; `names` are those of its classes.

    The metrics are those of `single_label_metrics` or `multi_label_metrics`. The result also has
    `classes`, a row for each class. For the other arguments see `evaluate_retrieval`.
    """
    classifier = require_classifier(model)
    check_classes(classifier, labelled, names)
    noted = (identity, data, dataset, output)
    evaluation = Evaluation("classifier", model, processor, partial, skip_bad, cache, *noted)
    evaluation.require_alike(labelled.videos, [labelled.labels, names])
    vectors = evaluation.vectors(labelled.videos, "pooled")
    logits = np.array(classifier.projection(mx.array(vectors.rows)).astype(mx.float32))
    measured = classified(vectors, logits, labelled, names)
    return evaluation.result(measured)


def check_classes(classifier: VideoPrismModel, labelled: Labelled, names: Sequence[str]) -> None:
    """Raises InputError unless the names and the labels are of the classifier's classes."""
    highest = max((max(each) for each in labelled.labels if each), default=0)
    if len(names) != classifier.num_classes or highest >= len(names):
        own = counted(classifier.num_classes or 0, "class", "classes")
        raise InputError(
            f"there {are(len(names))} {counted(len(names), 'name')} and classes up to {highest}; "
            f"the classifier has {own}, from 0 on"
        )


def require_classifier(model: VideoPrismModel) -> FactorizedVideoClassifier:
    """The model itself. Raises InputError unless it is a classifier."""
    if model.num_classes is None:
        raise InputError(f"{model.called} is not a classifier; train one, or use zero-shot")
    return cast(FactorizedVideoClassifier, model)


@dataclasses.dataclass(frozen=True)
class Vectors:
    """A vector for each video that can be used (V, D), and the numbers of those videos.

    `skipped` has a line about each other video.
    """

    rows: Array
    numbers: npt.NDArray[np.intp]
    skipped: list[str]

    def counts(self, videos: int) -> dict[str, Any]:
        """How many of `videos` videos were used. `videos` and `measured` are older names."""
        used = len(self.rows)
        older = {"videos": videos, "measured": used}
        return {**older, "total": videos, "used": used, "skipped": self.skipped}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The common part of all protocols: a vector for each video, and the form of the result."""

    protocol: str
    model: VideoPrismModel
    processor: Processor
    partial: bool
    skip_bad: bool
    cache: str | Path | None
    identity: ModelIdentity | None
    data: str | Path | None
    dataset: str | None
    output: str | Path | None

    def __post_init__(self) -> None:
        if self.output is not None and current().is_first:
            require_writable(Path(self.output), is_file=True)
        if self.dataset is not None:
            self.figures()

    def figures(self) -> list[Figure]:
        """What was published. Raises InputError if nothing was."""
        assert self.dataset is not None
        adapters = None if self.identity is None else self.identity.adapters_directory
        return figures_of(self.model, self.protocol, self.dataset, adapters)

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """The settings that the vectors depend on."""
        return made_with(
            model=ModelIdentity(self.model).record("class", "parameters", "dtype", "precision"),
            preprocessing=self.processor.preprocessing(partial=self.partial),
        )

    def require_alike(self, videos: Sequence[Files], labels: Any) -> None:
        """Raises RankError unless all ranks have the same model and data."""
        group = current()
        if group.size > 1:
            group.kept = "What was computed is kept: the same command goes on"
            require_alike(group, {**self.record, "data": digest([names_of(videos), labels])})

    def vectors(self, videos: Sequence[Files], feature: str) -> Vectors:
        """A feature (D,) of each video, computed or found in the cache."""
        if not videos:
            raise InputError("there are no videos to measure")
        check_features(self.model, [feature])
        root = places.cache_directory() / "embeddings" if self.cache is None else Path(self.cache)
        cache = ArrayCache(root, {**self.record, "feature": feature})

        def read(files: Files) -> Array:
            source = files if isinstance(files, Path) else list(files)
            return self.processor.read(source, partial=self.partial)

        def embed(clip: Array) -> Array:
            array = video_features(self.model, mx.array(clip)[None], [feature])[feature][0]
            vector = np.array(array.astype(mx.float32))
            if error := not_finite({feature: vector}, "a video"):
                raise error
            return vector

        paths, skipped = fill(cache, videos, read, embed, "videos")
        require_usable(skipped, len(videos), self.skip_bad)
        usable = [(number, path) for number, path in enumerate(paths) if path is not None]
        rows = np.stack([np.array(cache.load(path)) for _, path in usable])
        return Vectors(rows, np.array([number for number, _ in usable]), skipped)

    def result(
        self, measured: Mapping[str, Any], settings: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The result: what was measured, with the protocol and settings. Also writes `output`."""
        noted = {**self.record, **(settings or {})}
        if self.identity is not None:
            noted["model"] = noted["model"] | self.identity.record("name", "weights", "adapters")
        if self.data is not None:
            path = Path(self.data)
            checksum = sha256(path) if path.is_file() else None
            noted["data"] = {"path": str(self.data), "sha256": checksum}
        result = {"protocol": self.protocol, **measured, "settings": noted}
        result = current().broadcast(result)
        if self.dataset is not None:
            result["published"] = beside(self.figures(), self.dataset, self.model, result)
        if self.output is not None and current().is_first:
            with new_file(self.output, replace=True) as partial:
                written = as_json(result, ascii=False) + "\n"
                partial.write_text(written, encoding="utf-8")
        return result


def classified(
    vectors: Vectors, scores: Array, labelled: Labelled, names: Sequence[str]
) -> dict[str, Any]:
    """The metrics of scores (V, C) for labelled videos, overall and for each class."""
    labels = [labelled.labels[number] for number in vectors.numbers]
    if labelled.multi_label:
        targets = multi_hot(labels, len(names))
        metrics = multi_label_metrics(scores, targets)
    else:
        targets = np.array(labels)[:, 0]
        metrics = single_label_metrics(scores, targets)
    return {
        "metrics": metrics,
        **vectors.counts(len(labelled.videos)),
        "classes": class_rows(scores, targets, names),
    }
