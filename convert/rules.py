"""The name and layout of each parameter in a Flax checkpoint: one table, `RULES`.

The parameter trees of MLX and Flax differ in their leaves, which `RULES` lists, and in stacks of
layers, which Flax may store as one array with the layers along the first axis ("scanned").

Shapes: I and O a linear layer's inputs and outputs, N heads, H head width, D width.
"""

import functools
import re
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from videoprism_mlx.weights.outline import outline

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
SCALE = next(rule for rule in RULES if rule.flax_leaf == "scale")


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
    layer = re.search(r"\bx_layers\.(\d+)\b", name)
    key, rule = place(name.replace(layer.group(), "x_layers") if layer else name)
    return Leaf(name, key, int(layer.group(1)) if layer else None, rule)


@functools.lru_cache(maxsize=1000)
def place(name: str) -> tuple[str, Rule]:
    """The key and the rule of a parameter. The name has no number of a layer in it."""
    rule = next((rule for rule in RULES if re.search(rf"(^|\.){rule.pattern}$", name)), SAME)
    parent, _, own_name = name.rpartition(".")
    path = parent.split(".") if parent else []
    return ROOT + "/".join([*path, rule.flax_leaf or own_name]), rule


class Layout:
    """Where each parameter of a configuration is in a Flax checkpoint.

    `groups` maps each key of a scanned checkpoint to a list: its only parameter or, for a stack,
    the parameters of all layers in order. `empty` has the keys and shapes of the arrays without
    elements that a scanned checkpoint holds for stacks without layers.
    """

    def __init__(self, config: Mapping[str, Any]):
        self.shapes, absent, self.heads = outline(config)
        self.groups: dict[str, list[Leaf]] = {}
        for name in self.shapes:
            each = leaf(name)
            self.groups.setdefault(each.key, []).append(each)
        for group in self.groups.values():
            group.sort(key=lambda each: each.layer or 0)
        empty = [leaf(name) for name in absent]
        self.empty = {each.key: (0, *self._shape(each, absent[each.name])) for each in empty}

    def _shape(self, each: Leaf, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in Flax of a parameter, of one layer."""
        # A view of one number. It has the shape but needs no memory.
        return each.rule.to_flax(np.broadcast_to(np.float32(0), shape), self.heads).shape

    def expected(self, scanned: Container[str]) -> dict[str, tuple[int, ...]]:
        """The keys and shapes of a checkpoint in which the keys in `scanned` hold whole stacks."""
        expected = {key: shape for key, shape in self.empty.items() if key in scanned}
        for key, group in self.groups.items():
            shape = self._shape(group[0], self.shapes[group[0].name])
            if group[0].layer is None:
                expected[key] = shape
            elif key in scanned:
                expected[key] = (len(group), *shape)
            else:
                expected |= {each.own_key: shape for each in group}
        return expected
