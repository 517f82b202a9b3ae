"""How many floating-point operations a clip takes: those of the model's matrix products.

Letters: T frames, N patches of a frame, D width, M width of the hidden layers.
"""

from collections.abc import Mapping
from typing import Any


def clip_flops(config: Mapping[str, Any]) -> int:
    """The FLOPs of one clip at the configuration's own size, as this package computes it.

    For a video-text model, they are those of the video's embedding.
    """
    frames, rows, columns = config["pos_emb_shape"]
    patches, width = rows * columns, config["model_dim"]
    tokens = frames * patches
    patch_values = 3 * config["patch_size"] ** 2
    layers = [(config["num_spatial_layers"], patches), (config["num_temporal_layers"], frames)]
    total: int = 2 * tokens * patch_values * width
    if "vocabulary_size" in config:
        layers.append((config.get("num_auxiliary_layers", 0), tokens))
        total += pooling_flops(tokens, width, config["num_heads"])
    for count, length in layers:
        total += count * layer_flops(tokens, length, width, config["mlp_dim"])
    return total


def layer_flops(tokens: int, length: int, width: int, hidden: int) -> int:
    """The FLOPs of one transformer layer in which each token attends to `length` tokens."""
    projections = 4 * width * width + 2 * width * hidden
    attention = 2 * length * width  # The logits, and the weighted sum of the values.
    return 2 * tokens * (projections + attention)


def pooling_flops(tokens: int, width: int, heads: int) -> int:
    """The FLOPs of the video-text models' pooling: one query, 4 * D wide, for all tokens."""
    pooled = 4 * width
    # The query, its product with the key weights, then the value weights and the output.
    return 2 * (4 * pooled * width + 2 * tokens * heads * width)
