"""What training minimizes: a classifier's loss, and the contrastive loss of videos and captions.

Shapes: B batch, T frames, N patches of a frame, S size of a frame, L text positions, D width,
C classes.
"""

from typing import Any, Protocol, cast

import mlx.core as mx
import mlx.nn as nn
import numpy.typing as npt
from mlx.utils import tree_map

from videoprism_mlx.encoders import FactorizedVideoCLIP
from videoprism_mlx.training.state import Parameters

Array = npt.NDArray[Any]


class Clips(Protocol):
    """Clips (B, T, S, S, 3) with values 0-255: an array, or what reads a slice of one."""

    def __getitem__(self, rows: slice, /) -> Array: ...


def classification_loss(head: nn.Module, tokens: mx.array, targets: mx.array) -> mx.array:
    """The loss of an encoder's tokens (B, T * N, D) under a head: a scalar.

    `head` has the `atten_pooler` and `projection` of a classifier. For `targets` see `logits_loss`.
    """
    return logits_loss(head.projection(head.atten_pooler(tokens)), targets)


def logits_loss(logits: mx.array, targets: mx.array) -> mx.array:
    """The mean loss of logits (B, C): a scalar.

    If `targets` are classes (B,), it is the softmax cross-entropy. If they are multi-hot (B, C), it
    is the sigmoid cross-entropy of each logit.
    """
    if targets.ndim == 1:
        return nn.losses.cross_entropy(logits, targets, reduction="mean")
    return nn.losses.binary_cross_entropy(logits, targets.astype(logits.dtype), reduction="mean")


def contrastive_loss(videos: mx.array, texts: mx.array, log_scale: mx.array) -> mx.array:
    """The symmetric contrastive loss of embeddings (B, D) of length one: a scalar.

    Row i of `texts` belongs to row i of `videos`. It is the mean of two cross-entropies: of finding
    the text of a video among all texts, and the video of a text among all videos.
    """
    logits = mx.exp(log_scale) * (videos @ texts.T)
    right = mx.arange(len(logits))
    by_video = nn.losses.cross_entropy(logits, right, reduction="mean")
    by_text = nn.losses.cross_entropy(logits.T, right, reduction="mean")
    return (by_video + by_text) / 2


def contrastive_gradients(
    model: FactorizedVideoCLIP,
    parameters: Parameters,
    clips: Clips,
    ids: Array,
    paddings: Array,
    at_once: int,
    dtype: mx.Dtype = mx.float32,
) -> tuple[mx.array, Parameters]:
    """The contrastive loss of clips (B, T, S, S, 3), 0-255, and texts (B, L), and its gradients.

    `parameters` are {"model": the parameters to train, "log_scale": a scalar}. At most `at_once`
    pairs are in the model at a time. If the batch has more, each pair goes through the model twice:
    once for its embeddings, and once to backpropagate the gradients of the embeddings. The result
    is the same.
    """

    def embed(trained: Parameters, rows: slice) -> tuple[mx.array, mx.array]:
        model.update(tree_map(lambda array: array.astype(dtype), trained))
        pixels = mx.array(clips[rows]).astype(mx.float32) / 255
        videos, texts, _ = cast(Any, model(pixels, ids[rows], paddings[rows]))
        return videos.astype(mx.float32), texts.astype(mx.float32)

    def direct(parameters: Parameters) -> mx.array:
        embeddings = embed(parameters["model"], slice(None))
        return contrastive_loss(*embeddings, parameters["log_scale"])

    parts = [slice(first, first + at_once) for first in range(0, len(ids), at_once)]
    try:
        if len(parts) == 1:
            loss, gradients = mx.value_and_grad(direct)(parameters)
            return loss, gradients
        embeddings = []
        for rows in parts:
            embeddings.append(embed(parameters["model"], rows))
            mx.eval(embeddings[-1])
        videos, texts = (mx.concatenate(list(each)) for each in zip(*embeddings, strict=True))
        loss, (to_videos, to_texts, to_scale) = mx.value_and_grad(
            contrastive_loss, argnums=(0, 1, 2)
        )(videos, texts, parameters["log_scale"])

        def carried(trained: Parameters, rows: slice) -> mx.array:
            videos, texts = embed(trained, rows)
            return cast(mx.array, (videos * to_videos[rows]).sum() + (texts * to_texts[rows]).sum())

        total = None
        for rows in parts:
            change = mx.grad(carried)(parameters["model"], rows)
            total = change if total is None else tree_map(mx.add, total, change)
            mx.eval(total)
        return loss, {"model": total, "log_scale": to_scale}
    finally:
        model.update(parameters["model"])
