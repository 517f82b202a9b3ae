"""A budget of bits: the layers that cost most at few bits are kept at 8.

The cost of a layer is how far the model's outputs move when the weight of that layer alone is
quantized: the mean over the rows of an output of the squared distance, relative to the row.

Shapes: B clips, T frames, S size of a frame, R rows of an output, L text positions, D width.
"""

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError, InputTypeError, shown
from videoprism_mlx.progress import bar
from videoprism_mlx.video.sampling import read_video
from videoprism_mlx.video.source import Source, existing
from videoprism_mlx.weights.quantize.layers import layer_shapes
from videoprism_mlx.weights.quantize.settings import Packing, Packings, Spent

# The bits of the layers that are kept.
KEPT_BITS = 8

# Texts that stand for those of users: token ids drawn from the vocabulary.
TEXTS, TEXT_LENGTH = 64, 12

Clips = Sequence[npt.NDArray[np.float32]]


def spend(
    model: VideoPrismModel,
    packings: Packings,
    fixed: Collection[str],
    budget_bits: float,
    calibration: Sequence[Source],
) -> tuple[dict[str, Packing | None], Spent]:
    """`packings` with the layers that cost most at 8 bits, and how they were found.

    The paths in `fixed` stay as they are, and count in the average.
    """
    require_between(budget_bits, average_bits(model, packings))
    clips = read_clips(model, calibration)
    movable = {path: each for path, each in packings.items() if each and path not in fixed}
    costs = layer_costs(model, movable, clips)
    spent = Spent(float(budget_bits), {"videos": len(clips), "sha256": checksum_of(clips)})
    return kept_at_most(model, packings, costs, budget_bits), spent


def require_budget(budget_bits: float, usual: Packing) -> None:
    """Raises an error unless this is a budget for layers that are usually as `usual` says."""
    if isinstance(budget_bits, bool) or not isinstance(budget_bits, (int, float)):
        raise InputTypeError(f"budget_bits is {shown(budget_bits)}; expected a number of bits")
    if usual.mode != "affine":
        raise InputError(
            f"budget_bits is for the mode affine; in the mode {usual.mode}, all layers have "
            f"{usual.bits} bits"
        )
    require_between(budget_bits, usual.bits)


def require_videos(calibration: Sequence[Source]) -> None:
    """Raises an error unless this is a list of videos, whose files are there."""
    if isinstance(calibration, (str, bytes, Path)) or not hasattr(calibration, "__len__"):
        raise InputTypeError(f"calibration is {shown(calibration)}; expected a list of videos")
    if not len(calibration):
        raise InputError("calibration is empty; expected a list of at least one video")
    for video in calibration:
        if isinstance(video, (str, Path)):
            existing(video)


def require_between(budget_bits: float, least: float) -> None:
    """Raises InputError unless a budget is above the bits that the layers have at least."""
    if not least <= budget_bits <= KEPT_BITS:
        raise InputError(
            f"budget_bits is {budget_bits:g}; expected {least:.3g} (the bits of all layers "
            f"before any is kept) to {KEPT_BITS}"
        )


def average_bits(model: nn.Module, packings: Packings) -> float:
    """The bits of a quantized weight on average, without scales."""
    shapes = layer_shapes(model)
    packed = [(math.prod(shapes[path]), each.bits) for path, each in packings.items() if each]
    return sum(size * bits for size, bits in packed) / sum(size for size, _ in packed)


def kept_at_most(
    model: nn.Module, packings: Packings, costs: Mapping[str, float], budget_bits: float
) -> dict[str, Packing | None]:
    """`packings` with as many layers at 8 bits as fit, those with the highest cost a weight first.

    Between equal costs, the path decides.
    """
    shapes = layer_shapes(model)
    sizes = {path: math.prod(shapes[path]) for path, each in packings.items() if each}
    left = (budget_bits - average_bits(model, packings)) * sum(sizes.values())
    chosen = dict(packings)
    for path in sorted(costs, key=lambda path: (-costs[path] / sizes[path], path)):
        each = cast(Packing, packings[path])
        more = (KEPT_BITS - each.bits) * sizes[path]
        if 0 < more <= left * (1 + 1e-9):
            chosen[path] = each._replace(bits=KEPT_BITS)
            left -= more
    return chosen


def layer_costs(model: VideoPrismModel, packings: Packings, clips: Clips) -> dict[str, float]:
    """The cost of each layer of `packings`, by path."""
    named = dict(model.named_modules())
    runs = {"video": video_outputs(model, clips), "text": text_outputs(model)}
    wholes: dict[str, list[mx.array]] = {}
    costs = {}
    for path, each in bar(list(packings.items()), "calibrating", "layer"):
        layer = named[path]
        weight = layer.weight
        tower = "text" if is_text(model, path) else "video"
        if tower not in wholes:
            wholes[tower] = runs[tower]()
        try:
            layer.weight = as_if_quantized(weight, cast(Packing, each))
            costs[path] = moved(wholes[tower], runs[tower]())
        finally:
            layer.weight = weight
    return costs


def is_text(model: VideoPrismModel, path: str) -> bool:
    """Whether a layer belongs to the text tower."""
    return model.towers == ("text",) or path.startswith("text_encoder.")


def as_if_quantized(weight: mx.array, packing: Packing) -> mx.array:
    """A weight (O, I), quantized and dequantized."""
    settings = packing._asdict()
    packed, scales, *biases = cast(list[mx.array], mx.quantize(weight, **settings))
    rounded = mx.dequantize(packed, scales, biases[0] if biases else None, **settings)
    return rounded.astype(weight.dtype)


def moved(before: Sequence[mx.array], after: Sequence[mx.array]) -> float:
    """The mean over all rows of the squared distance from `before` to `after`, each (R, D)."""
    rows = []
    for old, new in zip(before, after, strict=True):
        distances = ((new - old) ** 2).sum(-1) / mx.maximum((old**2).sum(-1), 1e-30)
        rows.append(np.array(distances, np.float64))
    return float(np.concatenate(rows).mean())


def video_outputs(model: VideoPrismModel, clips: Clips) -> Callable[[], list[mx.array]]:
    """A function that gives the output of each clip, (R, D) in float32.

    It is the embedding of a video-text model, the logits of a classifier, or the tokens.
    """

    def run() -> list[mx.array]:
        outputs = []
        for clip in clips:
            output = cast(Any, model)(mx.array(clip)[None])[0].astype(mx.float32)
            outputs.append(output.reshape(-1, output.shape[-1]))
            mx.eval(outputs[-1])
        return outputs

    return run


def text_outputs(model: VideoPrismModel) -> Callable[[], list[mx.array]]:
    """A function that gives the embeddings of drawn texts, (R, D) in float32."""

    def run() -> list[mx.array]:
        encoder = model.text_encoder if model.takes_text else model
        ids = drawn_texts(encoder.vocabulary_size)
        features = encoder(ids, np.zeros(ids.shape, np.float32)).astype(mx.float32)
        embeddings = features[:, -1] if model.takes_text else features.flatten(0, 1)
        mx.eval(embeddings)
        return [embeddings]

    return run


def drawn_texts(vocabulary_size: int) -> npt.NDArray[np.int32]:
    """Token ids (TEXTS, TEXT_LENGTH), the same at every call."""
    first = min(3, vocabulary_size - 1)  # Before it are the ids of padding, end and unknown.
    random = np.random.RandomState(0)
    return random.randint(first, vocabulary_size, (TEXTS, TEXT_LENGTH)).astype(np.int32)


def read_clips(model: VideoPrismModel, calibration: Sequence[Source]) -> Clips:
    """The clips (T, S, S, 3) of videos, of the model's own length and size."""
    if "video" not in model.towers:
        return []
    encoder = model.video_encoder
    frames, rows, _ = encoder.pos_emb_shape
    size = rows * encoder.patch_size
    return [read_video(video, num_frames=frames, size=size) for video in calibration]


def checksum_of(clips: Clips) -> str:
    """The SHA-256 of clips."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(np.ascontiguousarray(clip).data)
    return digest.hexdigest()
