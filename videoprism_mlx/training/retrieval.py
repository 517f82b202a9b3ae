"""Tuning a video-text model on videos and captions, with the symmetric contrastive loss.

Shapes: B batch, T frames, S size of a frame, L text positions, V videos, D width.
"""

import dataclasses
import json
import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from videoprism_mlx.datasets.captions import Captioned, read_captions
from videoprism_mlx.datasets.overlap import warn_of_overlap
from videoprism_mlx.encoders import FactorizedVideoCLIP
from videoprism_mlx.errors import InputError
from videoprism_mlx.evaluation.protocols import recalls
from videoprism_mlx.features.cache import ArrayCache, fill, require_usable
from videoprism_mlx.features.processor import Processor, processor_for
from videoprism_mlx.features.text import embed_texts, require_text
from videoprism_mlx.files import places
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.files.record import digest, made_with
from videoprism_mlx.layers import StackedTransformer
from videoprism_mlx.models import parse_dtype
from videoprism_mlx.pictures.curves import draw_curves
from videoprism_mlx.tokenizers import TOKENIZER_FILE
from videoprism_mlx.training.run import (
    RUN_FOLDER,
    Parameters,
    Recipe,
    Run,
    as_float32,
    require_output,
)
from videoprism_mlx.weights.adapters import (
    ADAPTER_CONFIG_FILE,
    ADAPTERS_FILE,
    add_adapters,
    save_adapters,
)
from videoprism_mlx.weights.directory import PROCESSOR_FILE, RESULT_FILE, WEIGHTS_FILE, publish
from videoprism_mlx.weights.identity import ModelIdentity
from videoprism_mlx.weights.loading import load_with_directory

# The temperature that training starts from, as in CLIP, and the least it may come to.
START_TEMPERATURE, LEAST_TEMPERATURE = 0.07, 0.01

# What a tuning leaves beside the folder of its run.
OUTPUT_FILES = (
    WEIGHTS_FILE,
    TOKENIZER_FILE,
    PROCESSOR_FILE,
    RESULT_FILE,
    ADAPTERS_FILE,
    ADAPTER_CONFIG_FILE,
)

# Where a tower's parameters are.
TOWERS = {
    "video": ("vision_encoder", "auxiliary_encoder", "contrastive_vision_pooler"),
    "text": ("text_encoder",),
}

RETRIEVAL_RECIPE = Recipe(
    epochs=10, batch_size=64, learning_rate=1e-5, weight_decay=0.01, decay="cosine", clip=1.0
)


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What of a model is trained, and how.

    With a `rank` adapters of that rank are trained (`alpha`, `layers`: see `add_adapters`), else
    the `towers` themselves. `at_once` pairs go through the model together, whatever the batch.
    `dtype` is the type that it computes in; what is trained is kept in float32. `recompute` saves
    memory for a third more time.
    """

    towers: tuple[str, ...] = ("video", "text")
    rank: int | None = None
    alpha: float | None = None
    layers: int | None = None
    at_once: int = 8
    dtype: str = "float32"
    recompute: bool = False

    def __post_init__(self) -> None:
        if not self.towers or not set(self.towers) <= TOWERS.keys():
            raise InputError(f"towers are {self.towers}; expected some of {', '.join(TOWERS)}")
        if operator.index(self.at_once) < 1:
            raise InputError(f"at_once is {self.at_once}; expected 1 or more")
        if self.rank is None and (self.alpha, self.layers) != (None, None):
            raise InputError("alpha and layers are about adapters; give a rank as well")
        parse_dtype(self.dtype)


class Tuned(NamedTuple):
    """What came of a tuning."""

    directory: Path
    metrics: dict[str, float]
    history: tuple[dict[str, Any], ...]
    skipped: list[str]


def contrastive_loss(videos: mx.array, texts: mx.array, log_scale: mx.array) -> mx.array:
    """Of embeddings (B, D) of length one, each video's text in its row.

    The cross-entropy of finding the text among all by the video, and the video by the text.
    """
    logits = mx.exp(log_scale) * (videos @ texts.T)
    right = mx.arange(len(logits))
    by_video = nn.losses.cross_entropy(logits, right, reduction="mean")
    by_text = nn.losses.cross_entropy(logits.T, right, reduction="mean")
    return (by_video + by_text) / 2


def contrastive_gradients(
    model: FactorizedVideoCLIP,
    parameters: Parameters,
    clips: "np.ndarray | ClipsOf",
    ids: np.ndarray,
    paddings: np.ndarray,
    at_once: int,
    dtype: mx.Dtype = mx.float32,
) -> tuple[mx.array, Parameters]:
    """The loss of clips (B, T, S, S, 3), 0-255, and texts (B, L), and its gradients.

    `parameters` are {"model": those to train, "log_scale": ()}. The model sees `at_once` pairs at a
    time: where they are fewer than all, every pair goes through it once for the embeddings, and
    once more to carry the gradients of the embeddings back. The result is the same.
    """

    def embed(trained: Parameters, rows: slice) -> tuple[mx.array, mx.array]:
        model.update(tree_map(lambda array: array.astype(dtype), trained))
        pixels = mx.array(clips[rows]).astype(mx.float32) / 255
        videos, texts, _ = model(pixels, ids[rows], paddings[rows])
        return videos.astype(mx.float32), texts.astype(mx.float32)

    def direct(parameters: Parameters) -> mx.array:
        embeddings = embed(parameters["model"], slice(None))
        return contrastive_loss(*embeddings, parameters["log_scale"])

    parts = [slice(first, first + at_once) for first in range(0, len(ids), at_once)]
    try:
        if len(parts) == 1:
            return mx.value_and_grad(direct)(parameters)
        embeddings = []
        for rows in parts:
            embeddings.append(embed(parameters["model"], rows))
            mx.eval(embeddings[-1])
        videos, texts = (mx.concatenate(each) for each in zip(*embeddings, strict=True))
        loss, (to_videos, to_texts, to_scale) = mx.value_and_grad(
            contrastive_loss, argnums=(0, 1, 2)
        )(videos, texts, parameters["log_scale"])

        def carried(trained: Parameters, rows: slice) -> mx.array:
            videos, texts = embed(trained, rows)
            return (videos * to_videos[rows]).sum() + (texts * to_texts[rows]).sum()

        total = None
        for rows in parts:
            change = mx.grad(carried)(parameters["model"], rows)
            total = change if total is None else tree_map(mx.add, total, change)
            mx.eval(total)
        return loss, {"model": total, "log_scale": to_scale}
    finally:
        model.update(parameters["model"])


def train_retrieval(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    val: str | Path | None = None,
    *,
    recipe: Recipe = RETRIEVAL_RECIPE,
    tuning: Tuning = Tuning(),
    frames: int | None = None,
    save_every: int | None = None,
    skip_bad: bool = False,
    cache: str | Path | None = None,
) -> Tuned:
    """Tunes a video-text model on a list of videos and captions (see `read_captions`).

    `output` becomes a model directory or, with adapters, has those. A run that was stopped goes on
    when it is called again. The best epoch is that of the highest Recall@1 on `val`, both ways
    averaged; without `val` that of the lowest loss.
    """
    output = Path(output)
    require_output(output, OUTPUT_FILES)
    if recipe.batch_size < 2:
        raise InputError(
            f"batch_size is {recipe.batch_size}; expected 2 or more: the caption of a video is "
            "found among those of its batch"
        )
    training = read_captions(data)
    validation = [] if val is None else read_captions(val)
    warn_of_overlap([pair.video for pair in training], [pair.video for pair in validation])
    model_name = str(model)
    model, directory = load_with_directory(model, "float32")
    require_text(model)
    processor = processor_for(model, directory)
    if frames is not None:
        processor = dataclasses.replace(processor, num_frames=frames)

    preprocessing = processor.preprocessing()
    run = Run(
        output / RUN_FOLDER,
        recipe,
        made_with(
            task="retrieval",
            model=ModelIdentity(model, directory, model_name).record("name", "weights"),
            data={"train": sha256(Path(data)), "val": val and sha256(Path(val))},
            preprocessing=preprocessing | {"template": processor.template},
            tuning=dataclasses.asdict(tuning) | {"towers": list(tuning.towers)},
        ),
        metric=["mean/recall@1", "-loss"] if validation else "-loss",
        save_every=save_every,
    )
    run.require_alike()
    root = places.cache_directory() / "frames" if cache is None else Path(cache)
    frame_cache = ArrayCache(root, {"kind": "frames", "preprocessing": preprocessing})
    pairs, skipped = Pairs.of(training, frame_cache, processor, "frames")
    held, more = Pairs.of(validation, frame_cache, processor, "frames to validate on")
    skipped += more
    require_usable(skipped, len(training) + len(validation), skip_bad)
    if validation and not len(held):
        raise InputError(f"none of the {len(validation)} videos of {val} can be used")
    if len(pairs) < 2:
        raise InputError(f"{data} has {len(pairs)} video to train on; expected 2 or more")
    run.record = {**run.record, "pairs": {"train": pairs.digest(), "val": held.digest()}}

    prepare(model, tuning, recipe.seed)
    parameters: Parameters = {
        "model": as_float32(model.trainable_parameters()),
        "log_scale": mx.array(-math.log(START_TEMPERATURE)),
    }
    dtype = parse_dtype(tuning.dtype)
    frozen = model.parameters()
    model.set_dtype(dtype)

    def gradients(
        parameters: Parameters, rows: np.ndarray, random: np.random.Generator
    ) -> tuple[mx.array, Parameters]:
        texts = pairs.chosen_texts(rows, random)
        clips = ClipsOf(pairs, rows)
        return contrastive_gradients(model, parameters, clips, *texts, tuning.at_once, dtype)

    def bounded(parameters: Parameters) -> Parameters:
        log_scale = mx.minimum(parameters["log_scale"], -math.log(LEAST_TEMPERATURE))
        return {**parameters, "log_scale": log_scale}

    def validate(parameters: Parameters) -> dict[str, float]:
        temperature = {"temperature": math.exp(-parameters["log_scale"].item())}
        if not len(held):
            return temperature
        model.update(tree_map(lambda array: array.astype(dtype), parameters["model"]))
        return {**retrieval_metrics(model, processor, held, tuning.at_once), **temperature}

    with run.locked():
        best, history = run.fit(
            parameters, len(pairs), gradients, validate, whole_batches=True, bounded=bounded
        )
        model.update(frozen)
        model.update(best["model"])
        metrics = run.best(history)
        draw_curves(run.folder, history, metrics["epoch"])
        files = {
            PROCESSOR_FILE: json.dumps(processor.settings(), indent=2) + "\n",
            RESULT_FILE: json.dumps(metrics, indent=2) + "\n",
        }
        if tuning.rank is None:
            tokenizer = directory / TOKENIZER_FILE
            publish(model, output, files, tokenizer=tokenizer if tokenizer.is_file() else None)
        else:
            (output / ADAPTER_CONFIG_FILE).unlink(missing_ok=True)  # Of this run, finished before.
            for name, text in files.items():
                with new_file(output / name, replace=True) as partial:
                    partial.write_text(text, encoding="utf-8")
            save_adapters(model, output, model_name)
    return Tuned(output, metrics, history, skipped)


def prepare(model: FactorizedVideoCLIP, tuning: Tuning, seed: int) -> None:
    """Leaves unfrozen what is to be trained."""
    if tuning.rank is not None:
        add_adapters(model, tuning.rank, tuning.alpha, tuning.towers, tuning.layers, seed)
    else:
        model.freeze()
        for part in (part for tower in tuning.towers for part in TOWERS[tower]):
            if part in model:
                model[part].unfreeze()
    for _, module in model.named_modules():
        if isinstance(module, StackedTransformer):
            module.recomputes = tuning.recompute


class Pairs:
    """Videos, whose frames are kept on disk, and their captions as ids."""

    def __init__(
        self,
        cache: ArrayCache,
        frames: list[Path],
        captions: list[tuple[str, ...]],
        processor: Processor,
    ):
        self.cache = cache
        self.frames = frames
        self.captions = captions
        self._firsts = np.cumsum([0, *map(len, captions)])
        texts = [caption for said in captions for caption in said]
        self.ids, self.paddings = processor.tokenize(texts) if texts else (None, None)

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def of(
        cls,
        pairs: Sequence[Captioned],
        cache: ArrayCache,
        processor: Processor,
        what: str,
    ) -> "tuple[Pairs, list[str]]":
        """Those of a list whose videos can be used, and a line about each that cannot."""

        def read(files: Any) -> np.ndarray:
            clip = processor.read_exactly(files if isinstance(files, Path) else list(files))
            return np.clip(np.round(clip * 255), 0, 255).astype(np.uint8)

        paths, lines = fill(cache, [pair.video for pair in pairs], read, what=what)
        usable = [(p, each.captions) for p, each in zip(paths, pairs, strict=True) if p]
        return cls(cache, [p for p, _ in usable], [said for _, said in usable], processor), lines

    def clips(self, rows: Sequence[int]) -> np.ndarray:
        """(B, T, S, S, 3), 0-255."""
        return np.stack([np.array(self.cache.load(self.frames[row])) for row in rows])

    def chosen_texts(
        self, rows: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A caption of each video as ids (B, L) and paddings (B, L)."""
        chosen = [random.integers(self._firsts[row], self._firsts[row + 1]) for row in rows]
        return self.ids[chosen], self.paddings[chosen]

    def digest(self) -> str:
        """What tells other videos, other versions of them, and other ids of captions apart."""
        ids = None if self.ids is None else self.ids.tolist()
        return digest([[path.name for path in self.frames], list(map(len, self.captions)), ids])

    def video_of_text(self) -> np.ndarray:
        """The number of each caption's video."""
        return np.repeat(np.arange(len(self)), [len(said) for said in self.captions])


class ClipsOf:
    """The clips of some of the pairs, read for a slice of them at a time."""

    def __init__(self, pairs: Pairs, rows: np.ndarray):
        self.pairs, self.rows = pairs, rows

    def __getitem__(self, part: slice) -> np.ndarray:
        """(B, T, S, S, 3), 0-255."""
        return self.pairs.clips(self.rows[part])


def retrieval_metrics(
    model: FactorizedVideoCLIP, processor: Processor, pairs: Pairs, at_once: int
) -> dict[str, float]:
    """Recalls and median ranks, both ways."""
    embeddings = []
    for first in range(0, len(pairs), at_once):
        rows = range(first, min(first + at_once, len(pairs)))
        clips = mx.array(pairs.clips(rows)).astype(mx.float32) / 255
        embeddings.append(np.array(model(clips)[0].astype(mx.float32)))
    texts = [caption for said in pairs.captions for caption in said]
    similarity = np.concatenate(embeddings) @ embed_texts(model, processor, texts).T
    measured = recalls(similarity, pairs.video_of_text())
    both = [measured[f"{way}/recall@1"] for way in ("text_to_video", "video_to_text")]
    return {"mean/recall@1": sum(both) / 2, **measured}
