"""Counts the operations of a forward pass in MLX's graph, with our shortcuts and without.

    python -m benchmarks.cost [--models base "video-text base"] [--save]

FLOPs are those of matrix products. Bytes are what all primitives read and write, except for views.
An array that is used twice counts twice. The counts are the same on every machine. They are those
of a GPU, where a LayerNorm or a compiled function is one primitive. Everything is in one block,
because blocks do not change the work.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn

from benchmarks.timing import save
from benchmarks.work import MODELS, inputs_of, model_of
from videoprism_mlx.runtime import device

# Primitives that move no data if memory is contiguous.
VIEWS = {
    "Broadcast", "BroadcastAxes", "Copy", "CustomTransforms", "Depends", "ExpandDims", "Flatten",
    "Reshape", "Slice", "Split", "Squeeze", "StopGradient", "Transpose", "Unflatten", "View",
}  # fmt: skip

# What a GPU runs as one primitive. While counting, a primitive that is not used stands for it.
STAND_INS = {"LayerNorm": mx.arcsinh, "gelu": mx.erf, "softplus": mx.cosh, "capped exp": mx.sinh}
NAMES = {"ArcSinh": "LayerNorm", "Erf": "gelu", "Cosh": "softplus", "Sinh": "capped exp"}

# How many kinds of primitives the table lists.
LISTED = 6


class Cost(NamedTuple):
    """The cost of a computation."""

    flops: int
    bytes: int
    primitives: int
    by_name: dict[str, int]

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes


def cost_of(function: Callable[..., Any], arguments: Mapping[str, mx.array]) -> Cost:
    """The cost of calling a function of arrays."""
    steps: list[dict[str, Any]] = []

    def collect(step: dict[str, Any]) -> None:
        if step["type"] == "primitive" and step["name"] not in VIEWS:
            steps.append(step)

    names = list(arguments)
    call = lambda *arrays: function(**dict(zip(names, arrays, strict=True)))  # noqa: E731
    mx.export_function(collect, call, *arguments.values())
    by_name = Counter(NAMES.get(step["name"], step["name"]) for step in steps)
    moved = sum(
        math.prod(shape) * dtype.size
        for step in steps
        for _, shape, dtype in [*step["inputs"], *step["outputs"]]
    )
    return Cost(sum(map(flops_of, steps)), moved, len(steps), dict(by_name.most_common()))


def flops_of(step: Mapping[str, Any]) -> int:
    """The additions and multiplications of a matrix product."""
    if step["name"] not in ("Matmul", "AddMM"):
        return 0
    inner: int = step["inputs"][0][1][-1]
    outer: int = math.prod(step["outputs"][0][1])
    return 2 * inner * outer


def model_cost(model: nn.Module, inputs: Mapping[str, Any], plainly: bool = False) -> Cost:
    """The cost of a model's forward pass, in one block."""
    arrays = {name: mx.array(array) for name, array in inputs.items()}
    if "text_paddings" in arrays and not plainly:  # A model cannot see padding while MLX traces.
        length = int((inputs["text_paddings"] == 0).sum(axis=1).max())
        arrays |= {name: arrays[name][:, :length] for name in ("text_token_ids", "text_paddings")}
    gpu = device.gpu_backend()._replace(
        gelu=STAND_INS["gelu"], capped_exp=lambda cap: STAND_INS["capped exp"]
    )
    with ExitStack() as stack:
        stack.enter_context(device.block_size(1e9))
        if plainly:
            stack.enter_context(device.plain())
        stack.enter_context(patch.object(device, "backend", lambda: gpu))
        stack.enter_context(patch.object(nn, "gelu", STAND_INS["gelu"]))
        stack.enter_context(patch.object(nn, "softplus", STAND_INS["softplus"]))
        normalized = lambda self, x: STAND_INS["LayerNorm"](x)  # noqa: E731
        stack.enter_context(patch.object(nn.LayerNorm, "__call__", normalized))
        return cost_of(lambda **arrays: tuple(wanted(model(**arrays))), arrays)


def wanted(result: Any) -> list[mx.array]:
    """The arrays in what a model returned."""
    return [each for each in result if isinstance(each, mx.array)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["base", "video-text base"], metavar="NAME")
    parser.add_argument(
        "--save", action="store_true", help="write the figures to benchmarks/results"
    )
    options = parser.parse_args()

    figures: dict[str, Any] = {}
    print(f"{'':28} GFLOP     GB  FLOP/byte  primitives")
    for name in options.models:
        model, inputs = model_of(name), inputs_of(name)
        costs = {"plain": model_cost(model, inputs, True), "ours": model_cost(model, inputs)}
        for way, cost in costs.items():
            print(
                f"{name + ', ' + way:28}{cost.flops / 1e9:6.0f} {cost.bytes / 1e9:6.1f}  "
                f"{cost.intensity:9.0f}  {cost.primitives:10,}"
            )
            most = list(cost.by_name.items())[:LISTED]
            print("    " + ", ".join(f"{count} {primitive}" for primitive, count in most))
        ours, plain = costs["ours"], costs["plain"]
        print(
            f"    ours to plain: {ours.flops / plain.flops:.2f} of the FLOPs, "
            f"{ours.bytes / plain.bytes:.2f} of the bytes, "
            f"{ours.primitives / plain.primitives:.2f} of the primitives"
        )
        figures[name] = {way: cost._asdict() for way, cost in costs.items()}
    if options.save:
        save("cost", "python -m benchmarks.cost", {"models": MODELS, **figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
