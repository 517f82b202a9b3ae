"""The ways to store a model that are compared, and models stored so."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

import videoprism_mlx as vp
from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.weights.quantize.budget import kept_at_most, layer_costs
from videoprism_mlx.weights.quantize.model import plan


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to store a model: arguments of `vp.quantize`, or a type without quantization."""

    bits: int | None = None
    group_size: int | None = None
    mode: str = "affine"
    budget: float | None = None
    dtype: str = "float32"  # Of the stored weights. All ways compute in float32.

    @property
    def is_plain(self) -> bool:
        """Whether nothing is quantized."""
        return self.bits is None


WHOLE = "float32"

WAYS = {
    WHOLE: Way(),
    "bfloat16": Way(dtype="bfloat16"),
    "8 bits": Way(8),
    "mxfp8": Way(8, mode="mxfp8"),
    "6 bits": Way(6),
    "5 bits": Way(5),
    "4 bits, 6 on average": Way(4, budget=6),
    "4 bits, 5 on average": Way(4, budget=5),
    "4 bits, groups of 32": Way(4, 32),
    "4 bits": Way(4),
    "mxfp4": Way(4, mode="mxfp4"),
    "nvfp4": Way(4, mode="nvfp4"),
    "3 bits, 5 on average": Way(3, budget=5),
    "3 bits": Way(3),
}

Load = Callable[[], VideoPrismModel]


def stored(
    load: Load, way: Way, clips: Sequence[Any], costs: dict[tuple[Any, ...], dict[str, float]]
) -> VideoPrismModel:
    """A model, stored in a way. `clips` (T, S, S, 3) are for a budget.

    `costs` keeps what was measured for a budget, for the next one. Where the usual groups do not
    divide the width, as in the small model, they are of 32 weights.
    """
    model = load()
    if way.is_plain:
        model.set_dtype(getattr(mx, way.dtype))
        model.set_dtype(mx.float32)
        mx.eval(model.parameters())
        return model
    group_size = way.group_size
    if group_size is None and way.mode == "affine" and model.dtype == mx.float32:
        width = model.video_encoder.spatial_ln.weight.size
        group_size = 64 if width % 64 == 0 else 32
    settings = (way.bits, group_size, way.mode)
    if way.budget is None:
        return vp.quantize(model, *settings)
    packings = plan(model, *settings)
    if settings not in costs:
        movable = {path: each for path, each in packings.items() if each is not None}
        costs[settings] = layer_costs(model, movable, clips)
    chosen = kept_at_most(model, packings, costs[settings], way.budget)
    said = {path: False if each is None else each.bits for path, each in chosen.items()}
    return vp.quantize(model, *settings, layers=said)
