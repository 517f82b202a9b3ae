"""What training minimizes: a classifier's loss, and the contrastive loss of videos and captions.

Shapes: B batch, T frames, N patches of a frame, S size of a frame, L text positions, D width,
C classes.
"""

from typing import Any, Protocol, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_map

from videoprism_mlx.encoders import FactorizedVideoCLIP
from videoprism_mlx.ranks.group import Group
from videoprism_mlx.ranks.joining import current
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
    is the same. Each of several ranks has a share of the pairs, which also go through twice: a rank
    that waited for the others' embeddings half way would have to keep all its activations.
    """
    group = current()
    share = group.share(len(ids))
    firsts = range(share.start, share.stop, at_once)
    parts = [slice(first, min(first + at_once, share.stop)) for first in firsts]

    def embed(trained: Parameters, rows: slice) -> mx.array:
        """The embeddings of videos and texts (B, 2, D)."""
        model.update(tree_map(lambda array: array.astype(dtype), trained))
        pixels = mx.array(clips[rows]).astype(mx.float32) / 255
        videos, texts, _ = cast(Any, model(pixels, ids[rows], paddings[rows]))
        return mx.stack([videos.astype(mx.float32), texts.astype(mx.float32)], axis=1)

    def loss_of(both: mx.array, log_scale: mx.array) -> mx.array:
        return contrastive_loss(both[:, 0], both[:, 1], log_scale)

    def direct(parameters: Parameters) -> mx.array:
        return loss_of(embed(parameters["model"], parts[0]), parameters["log_scale"])

    try:
        if group.size == len(parts) == 1:
            loss, gradients = mx.value_and_grad(direct)(parameters)
            return loss, gradients
        embeddings = []
        for rows in parts:
            embeddings.append(embed(parameters["model"], rows))
            mx.eval(embeddings[-1])
        both = of_all(group, embeddings)
        of_both = mx.value_and_grad(loss_of, argnums=(0, 1))
        loss, (to_both, to_scale) = of_both(both, parameters["log_scale"])

        def carried(trained: Parameters, rows: slice) -> mx.array:
            return cast(mx.array, (embed(trained, rows) * to_both[rows]).sum())

        total = tree_map(mx.zeros_like, parameters["model"])
        for number, rows in enumerate(parts):
            change = mx.grad(carried)(parameters["model"], rows)
            total = tree_map(mx.add, total, change) if number else change
            mx.eval(total)
        return of_first(group, loss, {"model": total, "log_scale": to_scale})
    finally:
        model.update(parameters["model"])


def of_all(group: Group, parts: list[mx.array]) -> mx.array:
    """The embeddings (B, 2, D) of a batch, from those of this rank's share in parts."""
    if group.size == 1:
        return mx.concatenate(parts)
    return mx.array(group.gather_parts([np.array(part) for part in parts]))


def of_first(group: Group, loss: mx.array, gradients: Parameters) -> tuple[mx.array, Parameters]:
    """The loss, and the gradients summed over the ranks.

    Each rank has computed the whole loss and the whole gradient of the temperature. The first
    rank's count, as devices that differ may round them differently.
    """
    if not group.is_first:
        loss, scale = mx.zeros_like(loss), mx.zeros_like(gradients["log_scale"])
        gradients = {**gradients, "log_scale": scale}
    return group.sum((loss, gradients))


def mean_over_ranks(
    group: Group, loss: mx.array, gradients: Parameters, share: float
) -> tuple[mx.array, Parameters]:
    """The mean loss of a batch, and its gradients, from the mean of each rank's `share` of it."""
    if group.size == 1:
        return loss, gradients
    both = tree_map(lambda array: array * share, (loss, gradients))
    return cast(tuple[mx.array, Parameters], group.sum(both))
