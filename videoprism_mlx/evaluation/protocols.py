"""How well a model does on a dataset, by the protocols that published numbers are measured with.

Shapes: V videos, Q texts, C classes, T frames, S size of a frame, D width.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from videoprism_mlx.datasets.lists import Captioned, Labelled
from videoprism_mlx.encoders import FactorizedVideoClassifier, FactorizedVideoCLIP, VideoPrismModel
from videoprism_mlx.errors import InputError
from videoprism_mlx.evaluation.metrics import (
    class_rows,
    multi_hot,
    multi_label_metrics,
    single_label_metrics,
)
from videoprism_mlx.features.cache import ArrayCache, fill, require_usable
from videoprism_mlx.features.encode import check_features, video_features
from videoprism_mlx.features.processor import PROMPT, Processor, check_template
from videoprism_mlx.features.text import embed_texts, require_text
from videoprism_mlx.files import places
from videoprism_mlx.files.record import made_with
from videoprism_mlx.video.sampling import Files
from videoprism_mlx.weights.identity import ModelIdentity

# The ranks that a recall is counted up to.
RECALL_RANKS = (1, 5, 10)

# What becomes of a video's captions: each is a text of its own, or all are one, or the first is it.
CAPTIONS = ("each", "joined", "first")


def evaluate_retrieval(
    model: FactorizedVideoCLIP,
    processor: Processor,
    pairs: Sequence[Captioned],
    captions: str = "each",
    *,
    partial: bool = False,
    skip_bad: bool = False,
    cache: str | Path | None = None,
) -> dict[str, Any]:
    """Finding videos by their captions, and captions by their videos: `metrics` as of `recalls`.

    `captions` is one of CAPTIONS: "joined" is the retrieval of paragraphs. Texts are put into the
    processor's template. Embeddings of videos are kept in `cache`, and not made again. Videos that
    cannot be used are an error or, with `skip_bad`, left out with their captions. The result also
    counts what was measured and says how, in `settings`.
    """
    require_text(model)
    if captions not in CAPTIONS:
        raise InputError(f"captions is {captions!r}; expected one of {', '.join(CAPTIONS)}")
    if not pairs:
        raise InputError("there are no videos with captions")
    said = [texts_of(pair, captions) for pair in pairs]
    texts = [text for each in said for text in each]
    owners = np.repeat(np.arange(len(pairs)), [len(each) for each in said])
    text_embeddings = embed_texts(model, processor, texts)
    longer = dataclasses.replace(processor, max_length=processor.max_length + 1)
    is_cut = longer.tokenize(texts)[1][:, -1] == 0

    settings = described(model, processor, partial)
    videos = [pair.video for pair in pairs]
    vectors = video_vectors(model, processor, videos, "embedding", settings, skip_bad, cache)
    kept = np.isin(owners, vectors.numbers)
    similarity = vectors.rows @ text_embeddings[kept].T
    return {
        "protocol": "retrieval",
        "metrics": recalls(similarity, np.searchsorted(vectors.numbers, owners[kept])),
        **vectors.counts(len(pairs)),
        "texts": int(kept.sum()),
        "texts_cut": int(is_cut[kept].sum()),
        "settings": {**settings, "captions": captions, "template": processor.template},
    }


def texts_of(pair: Captioned, captions: str) -> list[str]:
    """The texts that are made of a video's captions."""
    if captions == "joined":
        return [" ".join(pair.captions)]
    return list(pair.captions[:1] if captions == "first" else pair.captions)


def evaluate_zero_shot(
    model: FactorizedVideoCLIP,
    processor: Processor,
    labelled: Labelled,
    templates: Sequence[str] | None = None,
    *,
    partial: bool = False,
    skip_bad: bool = False,
    cache: str | Path | None = None,
) -> dict[str, Any]:
    """Classes found by their names in prompts, as by a classifier.

    `templates`, each with a {} for the name, are by default the processor's or, where it has none,
    that of the official demo. With several labels a video only `map` is measured. For the rest see
    `evaluate_retrieval`; `classes` has a row a class.
    """
    require_text(model)
    if labelled.names is None:
        raise InputError("the classes have no names to ask for; give them with labels (--labels)")
    if templates is None:
        templates = [PROMPT if processor.template == "{}" else processor.template]
    classes = class_embeddings(model, processor, labelled.names, templates)
    settings = described(model, processor, partial)
    vectors = video_vectors(
        model, processor, labelled.videos, "embedding", settings, skip_bad, cache
    )
    result = classified(vectors, vectors.rows @ classes.T, labelled, labelled.names)
    if labelled.multi_label:  # A cosine above 0 does not mean that it is there.
        result["metrics"] = {"map": result["metrics"]["map"]}
    return {
        "protocol": "zero-shot",
        **result,
        "settings": {**settings, "templates": list(templates)},
    }


def class_embeddings(
    model: FactorizedVideoCLIP,
    processor: Processor,
    names: Sequence[str],
    templates: Sequence[str],
) -> np.ndarray:
    """The mean of the embeddings of each name in all templates, of length one again: (C, D)."""
    if isinstance(templates, str) or not templates:
        raise InputError(f"templates is {templates!r}; expected a list of at least one text")
    for template in templates:
        check_template(template)
    prompts = [template.replace("{}", name) for template in templates for name in names]
    embedded = embed_texts(model, dataclasses.replace(processor, template="{}"), prompts)
    means = embedded.reshape(len(templates), len(names), -1).mean(axis=0)
    return means / np.linalg.norm(means, axis=-1, keepdims=True)


def evaluate_classifier(
    model: FactorizedVideoClassifier,
    processor: Processor,
    labelled: Labelled,
    names: Sequence[str],
    *,
    partial: bool = False,
    skip_bad: bool = False,
    cache: str | Path | None = None,
) -> dict[str, Any]:
    """What a classifier's head says of labelled videos; `names` are those of its classes.

    The metrics are those of `videoprism_mlx.metrics`, for one label a video or several. For the
    rest see `evaluate_zero_shot`.
    """
    require_classifier(model)
    highest = max((max(each) for each in labelled.labels if each), default=0)
    if len(names) != model.num_classes or highest >= len(names):
        raise InputError(
            f"there are {len(names)} names and classes up to {highest}; the classifier has "
            f"{model.num_classes} classes, from 0 on"
        )
    settings = described(model, processor, partial)
    vectors = video_vectors(model, processor, labelled.videos, "pooled", settings, skip_bad, cache)
    logits = np.array(model.projection(mx.array(vectors.rows)).astype(mx.float32))
    return {
        "protocol": "classifier",
        **classified(vectors, logits, labelled, names),
        "settings": settings,
    }


def require_classifier(model: VideoPrismModel) -> None:
    """That the model has a classifier's head."""
    if model.num_classes is None:
        raise InputError(f"a {type(model).__name__} is no classifier; train one, or use zero-shot")


@dataclasses.dataclass(frozen=True)
class Vectors:
    """A vector of each video that can be used (V, D), the videos' numbers, and what ails others."""

    rows: np.ndarray
    numbers: np.ndarray
    skipped: list[str]

    def counts(self, videos: int) -> dict[str, Any]:
        """How many of how many videos there are."""
        return {"videos": videos, "measured": len(self.rows), "skipped": self.skipped}


def video_vectors(
    model: VideoPrismModel,
    processor: Processor,
    videos: Sequence[Files],
    feature: str,
    settings: dict[str, Any],
    skip_bad: bool,
    cache: str | Path | None,
) -> Vectors:
    """A feature (D,) of each video, made in the way of `settings` or found in the cache."""
    check_features(model, [feature])
    root = places.cache_directory() / "embeddings" if cache is None else Path(cache)
    kept = ArrayCache(root, {**settings, "feature": feature})

    def read(files: Files) -> np.ndarray:
        source = files if isinstance(files, Path) else list(files)
        return processor.read(source, partial=settings["preprocessing"]["partial"])

    def embed(clip: np.ndarray) -> np.ndarray:
        array = video_features(model, mx.array(clip)[None], [feature])[feature][0]
        return np.array(array.astype(mx.float32))

    paths, skipped = fill(kept, videos, read, embed, "videos")
    require_usable(skipped, len(videos), skip_bad)
    numbers = [number for number, path in enumerate(paths) if path is not None]
    rows = np.stack([np.array(kept.load(paths[number])) for number in numbers])
    return Vectors(rows, np.array(numbers), skipped)


def described(model: VideoPrismModel, processor: Processor, partial: bool) -> dict[str, Any]:
    """How videos become vectors."""
    return made_with(
        model=ModelIdentity(model).record("class", "parameters", "dtype"),
        preprocessing=processor.preprocessing(partial=partial),
    )


def classified(
    vectors: Vectors, scores: np.ndarray, labelled: Labelled, names: Sequence[str]
) -> dict[str, Any]:
    """How well scores (V, C) tell the classes, all together and one by one."""
    labels = [labelled.labels[number] for number in vectors.numbers]
    if labelled.multi_label:
        targets, measure = multi_hot(labels, len(names)), multi_label_metrics
    else:
        targets, measure = np.array(labels)[:, 0], single_label_metrics
    return {
        "metrics": measure(scores, targets),
        **vectors.counts(len(labelled.videos)),
        "classes": class_rows(scores, targets, names),
    }


def recalls(similarity: np.ndarray, video_of_text: np.ndarray) -> dict[str, float]:
    """Recall at 1, 5 and 10 (0 to 1), median and mean rank, both ways, of similarities (V, Q).

    Text q belongs to the video `video_of_text[q]`. From text to video each text ranks all videos;
    from video to text counts the best of a video's texts. What is as similar counts as before it.
    """
    similarity, owners = np.asarray(similarity), np.asarray(video_of_text)
    if similarity.ndim != 2 or 0 in similarity.shape:
        raise InputError(f"similarities have shape {similarity.shape}; expected (videos, texts)")
    if owners.shape != similarity.shape[1:] or owners.dtype.kind not in "iu":
        raise InputError(
            f"video_of_text is of {owners.dtype} and shape {owners.shape}; "
            f"expected a video's number for each of {similarity.shape[1]} texts"
        )
    if owners.min() < 0 or owners.max() >= len(similarity):
        raise InputError(
            f"video_of_text has numbers from {owners.min()} to {owners.max()}; "
            f"expected 0 to {len(similarity) - 1}"
        )
    if np.isnan(similarity).any():
        raise InputError(f"{np.isnan(similarity).sum()} of the similarities are not a number")
    if similarity.dtype.kind != "f":
        similarity = similarity.astype(np.float64)
    own = similarity[owners, np.arange(len(owners))]  # (Q,)
    by_text = (similarity >= own).sum(axis=0)  # Itself is among them.
    best = np.full(len(similarity), -np.inf, similarity.dtype)
    np.maximum.at(best, owners, own)
    as_good = similarity >= best[:, None]
    as_good[owners, np.arange(len(owners))] = False
    by_video = 1 + as_good.sum(axis=1)[np.unique(owners)]
    return {
        f"{direction}/{name}": value
        for direction, ranks in (("text_to_video", by_text), ("video_to_text", by_video))
        for name, value in rank_metrics(ranks).items()
    }


def rank_metrics(ranks: np.ndarray) -> dict[str, float]:
    """What is said of ranks, the first of which is 1."""
    return {
        **{f"recall@{most}": float((ranks <= most).mean()) for most in RECALL_RANKS},
        "median_rank": float(np.median(ranks)),
        "mean_rank": float(ranks.mean()),
    }
