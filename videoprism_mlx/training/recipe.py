"""How parameters are trained: the optimizer, its schedule, and when to stop."""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable
from typing import Any, TypeVar

import mlx.core as mx
import mlx.optimizers as optim

from videoprism_mlx.errors import InputError, InputTypeError, whole_number

# How the learning rate goes on after the warm-up.
LR_SCHEDULES = ("constant", "cosine")

C = TypeVar("C", bound=type)


def with_older_names(**older: str) -> Callable[[C], C]:
    """Lets a dataclass be made and read with older names of its fields, too: new name to older.

    An older name wins over the new one: `dataclasses.replace` passes both.
    """
    renamed = {old: new for new, old in older.items()}

    def decorate(cls: C) -> C:
        plain: Any = cls.__init__  # type: ignore[misc]  # It is wrapped, and not called.

        @functools.wraps(plain)
        def __init__(self: Any, *arguments: Any, **settings: Any) -> None:
            given = {name: value for name, value in settings.items() if name not in renamed}
            old = {renamed[name]: value for name, value in settings.items() if name in renamed}
            plain(self, *arguments, **{**given, **old})

        made: Any = cls
        made.__init__ = __init__
        made.older_names = older
        for new, old in older.items():
            setattr(made, old, property(operator.attrgetter(new)))
        return cls

    return decorate


def stored_names(settings: Any) -> dict[str, Any]:
    """The fields of such a dataclass by the names under which earlier versions stored them."""
    older = settings.older_names
    return {older.get(name, name): value for name, value in dataclasses.asdict(settings).items()}


@with_older_names(lr_schedule="decay", max_grad_norm="clip")
@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings of a training run, which uses Adam.

    The learning rate rises from 0 over the first `warmup` steps. After that it stays the same or,
    with `lr_schedule="cosine"`, falls to 0, which it reaches after the last step. `weight_decay` is
    decoupled (AdamW) and applies to matrices only. Gradients whose global norm is above
    `max_grad_norm` are scaled down to it. With `patience`, the run stops after that many epochs in
    a row without an improvement of the first metric. `decay` and `clip` are older names of
    `lr_schedule` and `max_grad_norm`, which go on working.
    """

    epochs: int = 50
    batch_size: int = 4
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warmup: int = 0
    lr_schedule: str = "constant"
    max_grad_norm: float | None = None
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 1, "warmup": 0, "seed": 0}
        for name, minimum in (least | ({} if self.patience is None else {"patience": 1})).items():
            check_count(name, getattr(self, name), minimum)
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < as_number(name, value) < math.inf:
                raise InputError(f"{name} is {value}; expected a number above 0")
        if not 0 <= as_number("weight_decay", self.weight_decay) < math.inf:
            raise InputError(f"weight_decay is {self.weight_decay}; expected a number, 0 or above")
        if self.lr_schedule not in LR_SCHEDULES:
            raise InputError(
                f"lr_schedule is {self.lr_schedule!r}; expected {' or '.join(LR_SCHEDULES)}"
            )

    def record(self) -> dict[str, Any]:
        """The settings under the names that stored runs have."""
        return stored_names(self)

    def optimizer(self, steps: int) -> "Adam":
        """The optimizer for a run of `steps` steps."""
        rate: float | Callable[[mx.array], mx.array] = self.learning_rate
        if self.lr_schedule == "cosine":
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
