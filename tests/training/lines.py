"""What the tests of runs train: a line through noisy points, by ten examples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.training.run import Learner, Run
from videoprism_mlx.training.state import Parameters

RECIPE = Recipe(epochs=4, batch_size=4, learning_rate=0.1, seed=3)  # Three steps make an epoch.
RECORD = {"task": "lines", "nested": {"sizes": (1, 2)}}
FILES = ("last.safetensors", "best.safetensors", "metrics.jsonl")

POINTS = np.random.RandomState(0).randn(10, 3).astype(np.float32)
HEIGHTS = POINTS @ np.array([1.0, -2.0, 0.5], np.float32) + 3


def start() -> Parameters:
    return {"layer": {"weight": mx.zeros((3, 1)), "bias": mx.zeros((1,))}}


def loss_of(parameters: Parameters, points: mx.array, heights: mx.array) -> mx.array:
    layer = parameters["layer"]
    return mx.square((points @ layer["weight"] + layer["bias"])[:, 0] - heights).mean()


def gradients(
    parameters: Parameters, rows: np.ndarray, random: np.random.Generator
) -> tuple[mx.array, Parameters]:
    noise = random.normal(0, 0.1, len(rows)).astype(np.float32)
    return mx.value_and_grad(loss_of)(
        parameters, mx.array(POINTS[rows]), mx.array(HEIGHTS[rows] + noise)
    )


def validate(parameters: Parameters) -> dict[str, float]:
    return {"quality": -loss_of(parameters, mx.array(POINTS), mx.array(HEIGHTS)).item()}


class Lines(Learner):
    """Trains with functions that a test may replace."""

    count = len(POINTS)

    def __init__(
        self,
        gradients: Callable[..., Any] = gradients,
        validate: Callable[..., Any] = validate,
        start: Callable[[], Parameters] = start,
        whole_batches: bool = False,
    ):
        self.functions = gradients, validate, start
        self.whole_batches = whole_batches

    def start(self) -> Parameters:
        return self.functions[2]()

    def gradients(self, *arguments: Any) -> tuple[mx.array, Parameters]:
        return self.functions[0](*arguments)

    def validate(self, parameters: Parameters) -> dict[str, float]:
        return self.functions[1](parameters)


def fit(
    folder: Path,
    recipe: Recipe = RECIPE,
    record: dict[str, Any] = RECORD,
    metric: str = "quality",
    save_every: int | None = None,
    **learner: Any,
) -> tuple[Parameters, tuple[dict[str, Any], ...]]:
    run = Run(folder, recipe, record, metric, save_every)
    with run.locked():
        return run.fit(Lines(**learner))


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def flat(parameters: Parameters) -> dict[str, list[float]]:
    return {name: np.array(array).tolist() for name, array in tree_flatten(parameters)}


class Stop(KeyboardInterrupt):
    pass


def stopping(at: int) -> Callable[..., Any]:
    """As `gradients`, until a step, which is stopped."""
    steps = 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == at:
            raise Stop
        return gradients(*arguments)

    return interrupted
