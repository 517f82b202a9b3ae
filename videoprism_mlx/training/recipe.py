"""How parameters are trained: the optimizer, its schedule, and when to stop."""

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from videoprism_mlx.errors import InputError, InputTypeError, whole_number


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings of a training run, which uses Adam.

    The learning rate rises from 0 over the first `warmup` steps. After that it stays the same or,
    with `decay="cosine"`, falls to 0, which it reaches after the last step. `weight_decay` is
    decoupled (AdamW) and applies to matrices only. Gradients whose global norm is above `clip` are
    scaled down to it. With `patience`, the run stops after that many epochs in a row without an
    improvement of the first metric.
    """

    epochs: int = 50
    batch_size: int = 4
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warmup: int = 0
    decay: str = "constant"
    clip: float | None = None
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 1, "warmup": 0, "seed": 0}
        for name, minimum in (least | ({} if self.patience is None else {"patience": 1})).items():
            check_count(name, getattr(self, name), minimum)
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < as_number(name, value) < math.inf:
                raise InputError(f"{name} is {value}; expected a number above 0")
        if not 0 <= as_number("weight_decay", self.weight_decay) < math.inf:
            raise InputError(f"weight_decay is {self.weight_decay}; expected a number, 0 or above")
        if self.decay not in ("constant", "cosine"):
            raise InputError(f"decay is {self.decay!r}; expected constant or cosine")

    def optimizer(self, steps: int) -> "Adam":
        """The optimizer for a run of `steps` steps."""
        rate: float | Callable[[mx.array], mx.array] = self.learning_rate
        if self.decay == "cosine":
            rate = optim.cosine_decay(self.learning_rate, max(steps - self.warmup, 1))
        if self.warmup:
            rising = optim.linear_schedule(0.0, self.learning_rate, self.warmup)
            after = rate if callable(rate) else lambda _: mx.array(self.learning_rate)
            rate = optim.join_schedules([rising, after], [self.warmup])
        return Adam(rate, weight_decay=self.weight_decay, bias_correction=True)


class Adam(optim.AdamW):
    """AdamW that decays matrices only: not biases, norms and the temperature."""

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: Any) -> mx.array:
        decays = optim.AdamW if parameter.ndim > 1 else optim.Adam
        updated: mx.array = decays.apply_single(self, gradient, parameter, state)
        return updated


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises InputError unless `value` is a whole number, `least` or more."""
    if whole_number(value, name) < least:
        raise InputError(f"{name} is {value}; expected {least} or more")


def as_number(name: str, value: Any) -> float:
    """`value` as a float. Raises InputTypeError unless it is a number."""
    try:
        return float(operator.pos(value))  # A text has no sign.
    except TypeError:
        raise InputTypeError(f"{name} is {value!r}; expected a number") from None
