"""Fine-tuning a video-text model on videos and captions, with the symmetric contrastive loss.

Shapes: B batch, T frames, S size of a frame, L text positions, D width.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from videoprism_mlx.datasets.captions import Captioned, read_captions
from videoprism_mlx.datasets.overlap import warn_of_overlap
from videoprism_mlx.encoders import FactorizedVideoCLIP, VideoPrismModel
from videoprism_mlx.errors import InputError
from videoprism_mlx.evaluation.metrics import cosines, recalls
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.features.text import embed_texts, require_text, require_tokenizer
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.files.record import as_json, made_with
from videoprism_mlx.layers import StackedTransformer
from videoprism_mlx.models import parse_dtype
from videoprism_mlx.progress import bar
from videoprism_mlx.ranks.joining import current
from videoprism_mlx.tokenizers import TOKENIZER_FILE
from videoprism_mlx.training.losses import contrastive_gradients
from videoprism_mlx.training.pairs import ClipsOf, Frames, Pairs
from videoprism_mlx.training.recipe import Recipe, check_count, stored_names, with_older_names
from videoprism_mlx.training.run import Learner, Rows
from videoprism_mlx.training.session import Options, Outcome, Paths, Source, Trained, train
from videoprism_mlx.training.state import Parameters, as_float32
from videoprism_mlx.video.ffmpeg.decoding import Decoding
from videoprism_mlx.weights.adapters import (
    ADAPTER_CONFIG_FILE,
    ADAPTERS_FILE,
    AdapterSettings,
    adapted_layers,
    add_adapters,
    save_adapters,
)
from videoprism_mlx.weights.base import base_name
from videoprism_mlx.weights.directory import PROCESSOR_FILE, RESULT_FILE, WEIGHTS_FILE, publish
from videoprism_mlx.weights.identity import ModelIdentity
from videoprism_mlx.weights.loading import load_with_directory
from videoprism_mlx.weights.quantize.layers import is_quantized

# The temperature that training starts from, as in CLIP, and the lowest one that is allowed.
START_TEMPERATURE, LEAST_TEMPERATURE = 0.07, 0.01

# The files that training writes to the output, besides config.json.
OUTPUT_FILES = (
    WEIGHTS_FILE,
    TOKENIZER_FILE,
    PROCESSOR_FILE,
    RESULT_FILE,
    ADAPTERS_FILE,
    ADAPTER_CONFIG_FILE,
)

# The modules of each tower.
TOWERS = {
    "video": ("vision_encoder", "auxiliary_encoder", "contrastive_vision_pooler"),
    "text": ("text_encoder",),
}

RETRIEVAL_RECIPE = Recipe(
    epochs=10,
    batch_size=64,
    learning_rate=1e-5,
    weight_decay=0.01,
    lr_schedule="cosine",
    max_grad_norm=1.0,
)


@with_older_names(micro_batch_size="at_once", grad_checkpoint="recompute")
@dataclasses.dataclass(frozen=True)
class Tuning:
    """Which parameters of a model are trained, and how.

    With a `rank`, adapters of that rank are trained (see `add_adapters` for `alpha` and `layers`).
    Without it, the weights of the `towers` are trained. The model computes at most
    `micro_batch_size` pairs at a time, whatever the batch size. `dtype` is the type that the model
    computes in; trained parameters are kept in float32. `grad_checkpoint` computes layers twice,
    which saves memory and takes about a third more time. `at_once` and `recompute` are older names
    of `micro_batch_size` and `grad_checkpoint`, which go on working.
    """

    towers: tuple[str, ...] = ("video", "text")
    rank: int | None = None
    alpha: float | None = None
    layers: int | None = None
    micro_batch_size: int = 8
    dtype: str = "float32"
    grad_checkpoint: bool = False

    def __post_init__(self) -> None:
        if not self.towers or not set(self.towers) <= TOWERS.keys():
            raise InputError(
                f"towers is {self.towers}; expected one or more of {', '.join(TOWERS)}"
            )
        check_count("micro_batch_size", self.micro_batch_size)
        if self.rank is None and (self.alpha, self.layers) != (None, None):
            raise InputError("alpha and layers are settings of adapters; give a rank as well")
        parse_dtype(self.dtype)


def train_retrieval(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    val: str | Path | None = None,
    *,
    recipe: Recipe = RETRIEVAL_RECIPE,
    tuning: Tuning = Tuning(),
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
    frames: int | None = None,
) -> Trained:
    """Fine-tunes a video-text model on videos and captions.

    `model` is a model's name or directory; `data` and `val` are lists as for `read_captions`.
    Frames of the videos are read once and kept in `cache`. They are read as the model's `Processor`
    says; `num_frames`, `size`, `resize` and `resample`, if given, replace its settings. `partial`
    is as for `read_video`. `dtype`, if given, replaces `tuning.dtype`. `frames` is the older name
    of `num_frames`.

    The best epoch is written to `output`: a model directory or, if `tuning` has a rank, adapters.
    The best epoch has the highest recall@1 on `val`, averaged over both directions. Between equal
    epochs, the lowest training loss decides; without `val`, it alone decides. If a run was stopped,
    the same call continues it; with `overwrite` it begins anew. If videos cannot be used, an error
    lists all of them before training starts; with `skip_bad` they are left out.
    """
    if frames is not None and num_frames not in (None, frames):
        raise InputError(
            f"num_frames is {num_frames} and frames, its older name, is {frames}; "
            "give num_frames only"
        )
    options = Options(
        num_frames=frames if num_frames is None else num_frames,
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
    prepare = functools.partial(prepare_task, model, data, val, recipe, tuning, options)
    return train(prepare, Path(output), OUTPUT_FILES, recipe, options)


def prepare_task(
    model: str | Path,
    data: str | Path,
    val: str | Path | None,
    recipe: Recipe,
    tuning: Tuning,
    options: Options,
) -> "RetrievalTask":
    """Reads the lists and loads the model."""
    if recipe.batch_size < 2:
        raise InputError(
            f"batch_size is {recipe.batch_size}; expected 2 or more: the loss compares each video "
            "with all captions in its batch"
        )
    if options.dtype is not None:
        dtype = options.dtype
        name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("mlx.core.")
        tuning = dataclasses.replace(tuning, dtype=name)
    training = read_captions(data)
    validation = [] if val is None else read_captions(val)
    warn_of_overlap([pair.video for pair in training], [pair.video for pair in validation])
    options.check_model(model, tuning.dtype, functools.partial(check_tuning, tuning=tuning))
    loaded, directory = load_with_directory(model, "float32")
    towers = require_text(loaded)
    processor = options.processor(loaded, directory)
    return RetrievalTask(
        name=str(model),
        model=towers,
        directory=directory,
        processor=processor,
        places=(Path(data),) if val is None else (Path(data), Path(val)),
        pairs=(training,) if val is None else (training, validation),
        frames=Frames(options.cache_folder("frames"), processor, options.partial),
        tuning=tuning,
        seed=recipe.seed,
    )


def check_tuning(model: VideoPrismModel, processor: Processor, tuning: Tuning) -> None:
    """Raises InputError unless the model can be trained like this. It needs no weights yet."""
    require_tokenizer(model, processor)
    if tuning.rank is not None:
        alpha = tuning.rank if tuning.alpha is None else tuning.alpha
        settings = AdapterSettings(tuning.rank, alpha, tuning.towers, tuning.layers)
        adapted_layers(model, settings)
    elif is_quantized(model):
        raise InputError(
            f"{model.called} is quantized, so only adapters can be trained; give a rank (--rank), "
            "or dequantize it first (`videoprism-mlx convert DIR -o OUT --dequantize`)"
        )


@dataclasses.dataclass(frozen=True)
class RetrievalTask:
    """A video-text model to fine-tune, and the videos and captions to train it on.

    The first of `places` and of `pairs` is to train on; the second, if any, is to validate on.
    """

    name: str
    model: FactorizedVideoCLIP
    directory: Path
    processor: Processor
    places: tuple[Path, ...]
    pairs: tuple[list[Captioned], ...]
    frames: Frames
    tuning: Tuning
    seed: int

    @property
    def record(self) -> dict[str, Any]:
        """The settings that the result depends on."""
        identity = ModelIdentity(self.model, self.directory, self.name)
        checksums = [*map(sha256, self.places), None]
        return made_with(
            task="retrieval",
            model=identity.record("name", "weights"),
            data={"train": checksums[0], "val": checksums[1]},
            preprocessing=self.frames.preprocessing | {"template": self.processor.template},
            tuning=stored_names(self.tuning) | {"towers": list(self.tuning.towers)},
        )

    @property
    def alike(self) -> dict[str, Any]:
        """The settings that all ranks must have in common."""
        return self.record

    @property
    def metric(self) -> Sequence[str]:
        """The metrics that choose the best epoch."""
        return ["-loss"] if len(self.pairs) == 1 else ["mean/recall@1", "-loss"]

    @property
    def sources(self) -> Sequence[Source]:
        """The videos to train on, and those to validate on."""
        titles = ("frames", "frames to validate on")
        return [
            Source(
                place, functools.partial(self.frames.fill, [pair.video for pair in pairs], title)
            )
            for place, pairs, title in zip(self.places, self.pairs, titles, strict=False)
        ]

    def learner(self, training: Paths, validation: Paths | None = None) -> "RetrievalLearner":
        """The learner for the videos whose clips are cached at these paths."""
        pairs = Pairs(self.frames, training, self.pairs[0])
        held_out = Pairs(self.frames, validation or (), self.pairs[1] if validation else ())
        if len(pairs) < 2:
            raise InputError(
                f"{self.places[0]} has only {len(pairs)} video to train on; expected 2 or more"
            )
        prepare(self.model, self.tuning, self.seed)
        return RetrievalLearner(self.model, self.processor, pairs, held_out, self.tuning)

    def publish(
        self, learner: "RetrievalLearner", outcome: Outcome, output: Path
    ) -> dict[str, Any]:
        """Writes the model directory or the adapters of the best epoch, and returns its metrics."""
        model = self.model
        model.update(learner.untrained)
        model.update(outcome.best["model"])
        files = {
            PROCESSOR_FILE: self.processor.as_json(),
            RESULT_FILE: as_json(outcome.measured) + "\n",
        }
        if self.tuning.rank is None:
            tokenizer = self.directory / TOKENIZER_FILE
            beside = tokenizer if tokenizer.is_file() else None
            publish(model, output, files, {"trained_from": base_name(self.name)}, beside)
        else:
            # If a complete run is started again, its earlier adapters are here.
            (output / ADAPTER_CONFIG_FILE).unlink(missing_ok=True)
            for name, text in files.items():
                with new_file(output / name, replace=True) as partial:
                    partial.write_text(text, encoding="utf-8")
            save_adapters(model, output, self.name)
        return outcome.measured


class RetrievalLearner(Learner):
    """Trains a video-text model on pairs. `prepare` must have chosen the parameters to train.

    `held_out` are the pairs to validate on. It may be empty.
    """

    whole_batches = True

    def __init__(
        self,
        model: FactorizedVideoCLIP,
        processor: Processor,
        pairs: Pairs,
        held_out: Pairs,
        tuning: Tuning,
    ):
        self.count = len(pairs)
        self.model = model
        self.processor = processor
        self.pairs = pairs
        self.held_out = held_out
        self.at_once = tuning.micro_batch_size
        self.dtype = parse_dtype(tuning.dtype)
        self._start = as_float32(cast(Any, model).trainable_parameters())
        # All parameters in float32. The frozen ones are written to the result unchanged.
        self.untrained: Parameters = cast(Any, model).parameters()
        model.set_dtype(self.dtype)

    def record(self) -> dict[str, Any]:
        """Checksums of the pairs to train and to validate on."""
        return {"pairs": {"train": self.pairs.digest(), "val": self.held_out.digest()}}

    def start(self) -> Parameters:
        """The parameters before training: the model's, and the log of the inverse temperature."""
        return {"model": self._start, "log_scale": mx.array(-math.log(START_TEMPERATURE))}

    def gradients(
        self, parameters: Parameters, rows: Rows, random: np.random.Generator
    ) -> tuple[mx.array, Parameters]:
        """The loss on some pairs, with one caption of each video, and its gradients."""
        ids, paddings = self.pairs.chosen_texts(rows, random)
        clips = ClipsOf(self.pairs, rows)
        return contrastive_gradients(
            self.model, parameters, clips, ids, paddings, self.at_once, self.dtype
        )

    def bounded(self, parameters: Parameters) -> Parameters:
        """The parameters, with a temperature of LEAST_TEMPERATURE or more."""
        log_scale = mx.minimum(parameters["log_scale"], -math.log(LEAST_TEMPERATURE))
        return {**parameters, "log_scale": log_scale}

    def validate(self, parameters: Parameters) -> Mapping[str, float]:
        """Recalls and ranks on the pairs to validate on, and the temperature."""
        temperature = {"temperature": math.exp(-parameters["log_scale"].item())}
        if not len(self.held_out):
            return temperature
        self.model.update(tree_map(lambda array: array.astype(self.dtype), parameters["model"]))
        measured = retrieval_metrics(self.model, self.processor, self.held_out, self.at_once)
        return {**measured, **temperature}


def prepare(model: FactorizedVideoCLIP, tuning: Tuning, seed: int) -> None:
    """Freezes all parameters except those to train."""
    if tuning.rank is not None:
        add_adapters(model, tuning.rank, tuning.alpha, tuning.towers, tuning.layers, seed)
    else:
        model.freeze()
        for part in (part for tower in tuning.towers for part in TOWERS[tower]):
            if part in model:
                model[part].unfreeze()
    for _, module in cast(Any, model).named_modules():
        if isinstance(module, StackedTransformer):
            module.recomputes = tuning.grad_checkpoint


def retrieval_metrics(
    model: FactorizedVideoCLIP, processor: Processor, pairs: Pairs, at_once: int
) -> dict[str, float]:
    """The metrics of `recalls`, and the mean of recall@1 over both directions."""
    group, embeddings = current(), []
    firsts, numbers = pairs.distinct_clips  # Equal clips in a batch would be rounded differently.
    for first in bar(group.part(range(0, len(firsts), at_once)), "validation", "batch"):
        rows = firsts[first : first + at_once]
        clips = mx.array(pairs.clips(rows)).astype(mx.float32) / 255
        embedded = cast(mx.array, model(clips)[0])
        embeddings.append(np.array(embedded.astype(mx.float32)))
    texts = embed_texts(model, processor, pairs.texts(), progress=True)
    similarity = cosines(group.gather_parts(embeddings)[numbers], texts)
    measured = recalls(similarity, pairs.video_of_text())
    both = [measured[f"{way}/recall@1"] for way in ("text_to_video", "video_to_text")]
    return {"mean/recall@1": sum(both) / 2, **measured}
