"""The name and layout of each parameter in a Flax checkpoint: one table, `RULES`.

The parameter trees of MLX and Flax differ in their leaves, which `RULES` lists, and in stacks of
layers, which Flax may store as one array with the layers along the first axis ("scanned").

Shapes: I and O a linear layer's inputs and outputs, N heads, H head width, D width.
"""

import re
from collections.abc import Callable, Container
from typing import Any, NamedTuple

import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from videoprism_mlx.layers import DotProductAttention
from videoprism_mlx.weights.directory import parameter_shapes

Array = npt.NDArray[Any]

ROOT = "params/"

# Functions that change the layout of an array. The ones to Flax also take the number of heads.
ToMLX = Callable[[Array], Array]
ToFlax = Callable[[Array, int], Array]


class Rule(NamedTuple):
    """A kind of leaf: the pattern of its MLX name, its Flax name, and both changes of layout."""

    pattern: str
    flax_leaf: str
    to_mlx: ToMLX
    to_flax: ToFlax


RULES = (
    # Weights: Flax (D, N, H), MLX (N * H, D). Biases: Flax (N, H), MLX (N * H).
    Rule(
        r"(query|key|value)\.weight",
        "w",
        lambda w: w.reshape(len(w), -1).T,
        lambda w, heads: w.T.reshape(w.shape[1], heads, -1),
    ),
    Rule(
        r"(query|key|value)\.bias",
        "b",
        lambda b: b.reshape(-1),
        lambda b, heads: b.reshape(heads, -1),
    ),
    # The output projection, which sums over the heads: Flax (D, N, H), MLX (D, N * H).
    Rule(
        r"post\.weight",
        "w",
        lambda w: w.reshape(len(w), -1),
        lambda w, heads: w.reshape(len(w), heads, -1),
    ),
    Rule(r"post\.bias", "b", lambda b: b, lambda b, heads: b),
    # Flax (I, O), MLX (O, I).
    Rule(r"linear\.weight", "kernel", lambda w: w.T, lambda w, heads: w.T),
    # Flax stores the weight minus one.
    Rule(r"\w*(_norm|_ln)\.weight", "scale", lambda w: 1 + w, lambda w, heads: w - 1),
    Rule(r"\w+_emb\.weight", "emb_var", lambda w: w, lambda w, heads: w),
)
SAME = Rule("", "", lambda w: w, lambda w, heads: w)


class Leaf(NamedTuple):
    """A parameter: its name in MLX, its key in a scanned checkpoint, its layer and its rule."""

    name: str
    key: str
    layer: int | None
    rule: Rule

    @property
    def own_key(self) -> str:
        """The key in a checkpoint that stores every layer separately."""
        return self.key.replace("/x_layers/", f"/x_layers_{self.layer}/")


def leaf(name: str) -> Leaf:
    """Where the MLX parameter `name` is in a Flax checkpoint."""
    rule = next((rule for rule in RULES if re.search(rf"(^|\.){rule.pattern}$", name)), SAME)
    parent, _, own_name = name.rpartition(".")
    path = re.sub(r"\bx_layers\.\d+\b", "x_layers", parent).split(".") if parent else []
    layer = re.search(r"\bx_layers\.(\d+)\b", parent)
    key = ROOT + "/".join([*path, rule.flax_leaf or own_name])
    return Leaf(name, key, int(layer.group(1)) if layer else None, rule)


class Layout:
    """Where each parameter of a model is in a Flax checkpoint.

    `groups` maps each key of a scanned checkpoint to a list: its only parameter or, for a stack,
    the parameters of all layers in order.
    """

    def __init__(self, model: nn.Module):
        self.shapes = parameter_shapes(model)
        attention = (m for m in model.modules() if isinstance(m, DotProductAttention))
        # A model without layers has no attention, and no parameter whose layout depends on heads.
        self.heads = next((m.num_heads for m in attention), 1)
        self.groups: dict[str, list[Leaf]] = {}
        for name in self.shapes:
            each = leaf(name)
            self.groups.setdefault(each.key, []).append(each)
        for group in self.groups.values():
            group.sort(key=lambda each: each.layer or 0)

    def expected(self, scanned: Container[str]) -> dict[str, tuple[int, ...]]:
        """The keys and shapes of a checkpoint in which the keys in `scanned` hold whole stacks."""
        expected: dict[str, tuple[int, ...]] = {}
        for key, group in self.groups.items():
            # A view of one number. It has the shape but needs no memory.
            empty = np.broadcast_to(np.float32(0), self.shapes[group[0].name])
            shape = group[0].rule.to_flax(empty, self.heads).shape
            if group[0].layer is None:
                expected[key] = shape
            elif key in scanned:
                expected[key] = (len(group), *shape)
            else:
                expected |= {each.own_key: shape for each in group}
        return expected
