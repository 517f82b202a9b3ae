"""The name and layout of each parameter in Transformers: two tables, `TOWERS` and `PARTS`.

Shapes: D width, P patch size, N positions.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from videoprism_mlx.weights.outline import Shapes, outline

Array = npt.NDArray[Any]

# The beginnings of names, for each class of models: ours and Transformers'.
TOWERS: dict[str, tuple[tuple[str, str], ...]] = {
    "FactorizedEncoder": (),
    "FactorizedVideoCLIP": (
        ("vision_encoder.", "video_model.vision_model."),
        ("auxiliary_encoder.transformers_stack.x_layers.", "video_model.auxiliary_layers."),
        ("contrastive_vision_pooler.", "video_model."),
        ("text_encoder.", "text_model."),
    ),
    "FactorizedVideoClassifier": (
        ("encoder.", "vision_model."),
        ("atten_pooler.", ""),
        ("projection.linear.", "classifier."),
    ),
    "TextEncoder": (),
}

# The parts of a name between dots, ours and Transformers'. They are replaced in this order.
PARTS = (
    ("patch_projection.linear", "spatial_embeddings.patch_embeddings.projection"),
    ("spatial_pos_emb.weight", "spatial_embeddings.position_embeddings"),
    ("temporal_pos_emb.weight", "temporal_embeddings.position_embeddings"),
    ("spatial_encoder.transformers_stack.x_layers", "spatial_layers"),
    ("temporal_encoder.transformers_stack.x_layers", "temporal_layers"),
    ("unimodal_transformer.x_layers", "layers"),
    ("spatial_ln", "layernorm1"),
    ("temporal_ln", "layernorm2"),
    ("unimodal_ln", "layernorm"),
    ("token_emb", "embeddings.token_embedding"),
    ("cls_emb", "embeddings.cls_emb"),
    ("pooling_attention_layer_norm", "head_layernorm"),
    ("pooling_attention_query", "head.pooling_attention_query"),
    ("pooling_attention", "head"),
    ("per_dim_scale.per_dim_scale", "per_dim_scale"),
    ("self_attention", "attention"),
    ("query", "q_proj"),
    ("key", "k_proj"),
    ("value", "v_proj"),
    ("post", "o_proj"),
    ("ff_layer.layer_norm", "layernorm_after"),
    ("layer_norm", "layernorm_before"),
    ("ff_layer.ffn_layer1.linear", "mlp.fc1"),
    ("ff_layer.ffn_layer2.linear", "mlp.fc2"),
)


class Rule(NamedTuple):
    """A kind of parameter that is laid out anew: the pattern of our name, and both changes."""

    pattern: str
    to_mlx: Callable[[Array], Array]
    to_transformers: Callable[[Array], Array]


RULES = (
    # A patch: ours (D, P * P * 3), Transformers a tubelet of one frame, (D, 3, 1, P, P).
    Rule(
        r"patch_projection\.linear\.weight",
        lambda w: w[:, :, 0].transpose(0, 2, 3, 1).reshape(len(w), -1),
        lambda w: w.reshape(len(w), *patch_shape(w)).transpose(0, 3, 1, 2)[:, :, None],
    ),
    # A table: ours (N, D), Transformers (1, N, D). So is the pooler's query, with N = 1.
    Rule(r"\w+_pos_emb\.weight", lambda w: w[0], lambda w: w[None]),
    Rule(r"pooling_attention_query", lambda w: w[0], lambda w: w[None]),
    # As Flax does, Transformers stores the weight minus one.
    Rule(r"\w*(_norm|_ln)\.weight", lambda w: 1 + w, lambda w: w - 1),
)
SAME = Rule("", lambda w: w, lambda w: w)
SCALE = RULES[-1]


class Leaf(NamedTuple):
    """A parameter: its name in MLX, its name in Transformers, and its rule."""

    name: str
    key: str
    rule: Rule


def leaf(name: str, class_name: str) -> Leaf:
    """Where the parameter `name` of a model is in Transformers."""
    rule = next((rule for rule in RULES if re.search(rf"(^|\.){rule.pattern}$", name)), SAME)
    start, new = next((pair for pair in TOWERS[class_name] if name.startswith(pair[0])), ("", ""))
    rest = name.removeprefix(start)
    for ours, theirs in PARTS:
        rest = re.sub(rf"(^|\.){re.escape(ours)}(?=\.|$)", rf"\g<1>{theirs}", rest)
    return Leaf(name, new + rest, rule)


def patch_shape(weight: Array) -> tuple[int, int, int]:
    """(P, P, 3) of a patch projection (D, P * P * 3)."""
    size = round((weight.shape[1] // 3) ** 0.5)
    return size, size, 3


class Layout:
    """Where each parameter of a configuration is in Transformers: `leaves`, and their `shapes`."""

    def __init__(self, config: Mapping[str, Any]):
        own = outline(config).shapes
        self.leaves = [leaf(name, config["model"]) for name in own]
        # A view of one number has the shape but needs no memory.
        self.shapes: Shapes = {
            each.key: each.rule.to_transformers(
                np.broadcast_to(np.float32(0), own[each.name])
            ).shape
            for each in self.leaves
        }
