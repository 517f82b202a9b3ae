"""Compares the released models with figures that others published for the official clip.

The figures are from the integration tests of Hugging Face Transformers 5. This project measured
none of them.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.check import clip
from videoprism_mlx.check.replay import OUTPUTS
from videoprism_mlx.convert.verify import named_outputs
from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import DownloadError, InputError
from videoprism_mlx.features.processor import PROMPT, processor_for
from videoprism_mlx.files.download import explained
from videoprism_mlx.files.places import cache_directory
from videoprism_mlx.models import RELEASES, canonical_name, get_config, whole_settings
from videoprism_mlx.tokenizers import (
    TOKENIZER_FILE,
    TOKENIZER_URLS,
    SentencePieceTokenizer,
    load_text_tokenizer,
)
from videoprism_mlx.weights.catalogue import cached_checkpoint
from videoprism_mlx.weights.directory import CONFIG_FILE
from videoprism_mlx.weights.hub import converted_directory
from videoprism_mlx.weights.loading import load_with_directory

SOURCE = (
    "the integration tests of Hugging Face Transformers 5: PyTorch, float32, eager attention, "
    "frames resized to 288 x 288 with Lanczos"
)

TEXTS = ("playing drums", "sitting", "playing flute", "playing at playground", "concert")

# The largest absolute difference. Published text embeddings are themselves about 1e-3 (relative)
# from those of the official model.
ALLOWED = {"features": 1e-4, "video embeddings": 1e-5, "text embeddings": 1e-4}

# For each model, the corner of each output where all indices are smallest.
FIGURES: dict[str, dict[str, Any]] = {
    "videoprism_public_v1_base": {
        "features": [
            [
                [0.11648951, 0.4568253, 0.19288044],
                [0.28420594, -0.04224018, 0.377879],
                [0.24594213, -0.3914095, -0.30516925],
            ]
        ]
    },
    "videoprism_lvt_public_v1_base": {
        "video embeddings": [
            [
                *(-0.01940615, -0.04830061, 0.0069022, 0.02915299, -0.05897291),
                *(0.02168823, -0.01471708, -0.00971614, -0.00220576),
            ]
        ],
        "text embeddings": [
            [-0.00802545, 0.00931361, 0.01555958],
            [0.02245245, 0.00010197, -0.01073526],
            [-0.02258418, 0.00133927, -0.01555064],
            [0.01056228, 0.01835608, -0.01539922],
            [-0.00366718, 0.00370416, 0.00800336],
        ],
    },
}


class Figure(NamedTuple):
    """A published figure of a model, beside ours."""

    model: str
    output: str
    indices: tuple[int, ...]
    published: float
    ours: float
    allowed: float

    @property
    def label(self) -> str:
        """The output and the indices."""
        return f"{self.output} {list(self.indices)}"

    @property
    def difference(self) -> float:
        """How far ours is from the published figure."""
        return abs(self.ours - self.published)

    @property
    def agrees(self) -> bool:
        """Whether the difference is allowed. NaN does not agree."""
        return self.difference <= self.allowed


def compare(model: str | Path, clip_path: str | Path | None = None) -> list[Figure]:
    """Each published figure of a model beside ours, computed in float32.

    `model` is a name, a Hub id or a model directory, whose configuration says which figures apply.
    `clip_path` is the official clip; by default it is fetched and kept. Weights, clip and tokenizer
    are all there before anything is computed.
    """
    name = canonical_name(str(model))
    loaded = directory = None
    if name not in RELEASES:
        loaded, directory = load_with_directory(model, dtype="float32")
        name = name_of(loaded, model)
    elif name not in FIGURES:
        raise InputError(without_figures(name))
    elif (converted_directory(name) / CONFIG_FILE).is_file():
        loaded, directory = load_with_directory(name, dtype="float32")
    try:
        video = clip.find_clip(clip_path)
        source = tokenizer_of(name, directory)
        tokenizer = None if source is None else load_text_tokenizer(source)
        if loaded is None:
            loaded, _ = load_with_directory(name, dtype="float32")
    except DownloadError as error:
        needed = "; ".join(missing(name, directory, clip_path))
        with explained(f"what the check of {name} needs", f"without a network, bring: {needed}"):
            raise error
    return list(figures(name, loaded, video, tokenizer))


def figures(
    name: str, model: VideoPrismModel, video: Path, tokenizer: SentencePieceTokenizer | None
) -> Iterator[Figure]:
    """The published figures of `name` beside those that `model` computes."""
    processor = dataclasses.replace(
        processor_for(model), resample="lanczos", template=PROMPT, tokenizer=tokenizer
    )
    arguments = processor([video], TEXTS if model.takes_text else None)
    arrays = named_outputs(model(**arguments)).values()
    outputs = dict(zip(OUTPUTS[type(model).__name__], arrays, strict=True))
    for output, values in FIGURES[name].items():
        published: npt.NDArray[np.float64] = np.array(values)
        ours = np.array(outputs[output].astype(mx.float32))
        for indices in np.ndindex(published.shape):
            pair = float(published[indices]), float(ours[indices])
            yield Figure(name, output, indices, *pair, ALLOWED[output])


def name_of(model: VideoPrismModel, given: str | Path) -> str:
    """The model with published figures that has the configuration of `model`."""
    for name in FIGURES:
        if whole_settings(get_config(name)) == whole_settings(model.config):
            return name
    raise InputError(without_figures(f"the configuration of {given}"))


def without_figures(what: str) -> str:
    """The error message about a model without published figures."""
    return f"there are no published figures for {what}, only for {' and '.join(FIGURES)}"


def tokenizer_of(name: str, directory: Path | None) -> str | Path | None:
    """The model's directory if it has a tokenizer, else c4_en; None for a model without text."""
    if "text embeddings" not in FIGURES[name]:
        return None
    if directory is not None and (directory / TOKENIZER_FILE).is_file():
        return directory
    return "c4_en"


def missing(name: str, directory: Path | None, clip_path: str | Path | None) -> Iterator[str]:
    """What would have to be downloaded: the file, where it is, and how to give it."""
    if clip_path is None and not clip.is_kept():
        yield f"{clip.NAME} from {clip.URL} (--clip PATH)"
    kept = cache_directory() / "tokenizers" / "c4_en.model"
    if tokenizer_of(name, directory) == "c4_en" and not kept.is_file():
        yield f"{TOKENIZER_URLS['c4_en']} (copy it to {kept})"
    if directory is None:
        repository, filename = RELEASES[name]
        if cached_checkpoint(name) is None:
            yield (
                f"{filename} from https://huggingface.co/{repository} "
                f"(videoprism-mlx convert {filename} -o DIR, then --model DIR)"
            )
