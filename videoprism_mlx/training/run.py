"""The training loop: epochs, steps, validation, and continuing a run that was stopped.

Everything random follows from the seed, the epoch and the step. A run that was killed and is
started again therefore ends in the same parameters as one that was never stopped.
"""

import dataclasses
import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import numpy.typing as npt

from videoprism_mlx import progress as bars
from videoprism_mlx.errors import TrainingError, counted
from videoprism_mlx.files.lock import locked
from videoprism_mlx.ranks.joining import current
from videoprism_mlx.training.recipe import Adam, Recipe, check_count
from videoprism_mlx.training.state import (
    METRICS_FILE,
    Parameters,
    Progress,
    RunFiles,
    arrays_of,
    crc32,
    named,
)

logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.integer[Any]]
History = tuple[dict[str, Any], ...]

# The line about an epoch has at most so many characters.
LINE_WIDTH = 100


class Learner(ABC):
    """What a run trains: parameters, and the loss on `count` examples, numbered from 0."""

    count: int
    # Whether the last examples of an epoch are left out if they do not fill a batch.
    whole_batches = False

    def record(self) -> dict[str, Any]:
        """What identifies the examples, for the run's record."""
        return {}

    @abstractmethod
    def start(self) -> Parameters:
        """The parameters that training starts from."""

    @abstractmethod
    def gradients(
        self, parameters: Parameters, rows: Rows, random: np.random.Generator
    ) -> tuple[mx.array, Parameters]:
        """The loss on the examples numbered `rows`, and its gradients."""

    def bounded(self, parameters: Parameters) -> Parameters:
        """The parameters after a step, limited to their allowed range."""
        return parameters

    @abstractmethod
    def validate(self, parameters: Parameters) -> Mapping[str, Any]:
        """The metrics at the end of an epoch."""


@dataclasses.dataclass
class Run:
    """A training run in a folder.

    `record` describes the model and the data. A folder with a run of another record is refused.
    `metric` is the name of the metric that chooses the best epoch, or several names: see
    `Progress.best`. The state is kept after each epoch and, with `save_every`, also after every
    `save_every` steps.
    """

    folder: Path
    recipe: Recipe
    record: Mapping[str, Any]
    metric: str | Sequence[str]
    save_every: int | None = None
    _has_state: bool = dataclasses.field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.save_every is not None:
            check_count("save_every", self.save_every)

    def fit(self, learner: Learner) -> tuple[Parameters, History]:
        """Trains until the recipe says to stop: the best epoch's parameters, all epochs' metrics.

        It continues a run that was stopped. The caller must hold the run's lock. Of several ranks,
        only the first one reads and writes files, and its numbers decide.
        """
        recipe, count, group = self.recipe, learner.count, current()
        batch_size = min(recipe.batch_size, count)
        steps = count // batch_size if learner.whole_batches else math.ceil(count / batch_size)
        parameters = learner.start()
        optimizer = recipe.optimizer(steps * recipe.epochs)
        optimizer.init(parameters)
        progress = Progress()
        self._has_state = group.broadcast(self._files.has_state())
        if self._has_state:
            if group.is_first:
                restored = self._restored(parameters, optimizer)
                parameters, optimizer.state, progress = restored
            progress = Progress.of(group.broadcast(progress._asdict()))
            logger.info("%s", self._found(progress))
            say_kept(self.folder)
        parameters = in_common(parameters, optimizer)
        while not self._is_finished(progress):
            parameters, progress = self._epoch(learner, parameters, optimizer, progress, steps)
            parameters = in_common(parameters, optimizer)
            measured = {
                "epoch": progress.epoch + 1,
                "loss": progress.loss / steps,
                "learning_rate": float(optimizer.learning_rate),
                **learner.validate(parameters),
            }
            measured = group.broadcast(measured)
            history = (*progress.history, measured)
            progress = Progress(progress.epoch + 1, history=history, checksum=progress.checksum)
            if group.is_first and progress.best(self._metrics) == progress.epoch - 1:
                progress = progress._replace(checksum=self._files.keep_best(parameters))
            self._keep(parameters, optimizer, progress)
            report(measured, [name.lstrip("-") for name in self._metrics], self.folder)
        if group.is_first:
            parameters = self._files.best(parameters, progress.checksum)
        return in_common(parameters), progress.history

    def _restored(
        self, parameters: Parameters, optimizer: Adam
    ) -> tuple[Parameters, dict[str, Any], Progress]:
        """The state in the folder: parameters, the optimizer's state, and progress."""
        restored = self._files.restore(self._record(), parameters, optimizer.state)
        parameters, _, progress = restored
        self._files.write_metrics(progress)  # A run that was killed may not have done it.
        if progress.history:
            # If the file is damaged, raise the error now and not at the end. A run that was
            # killed may have left the parameters of a later epoch, so the checksum may differ.
            self._files.best(parameters)
        return restored

    def _found(self, progress: Progress) -> str:
        """One line about the run that was found in the folder."""
        epochs, most = progress.epoch, self.recipe.epochs
        if not self._is_finished(progress):
            return f"{self.folder.parent}: continuing after epoch {epochs} of {most}"
        reason = ""
        if epochs < most:
            reason = f": the last {self.recipe.patience} brought no improvement"
        elif self.recipe.lr_schedule == "constant":
            reason = "; with more epochs it would go on"
        return (
            f"{self.folder.parent}: this run is finished after {counted(epochs, 'epoch')}{reason}"
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs from writing to the folder or publishing beside it.

        Of several ranks, only the first one writes.
        """
        with locked(self.folder, self.folder.parent) if current().is_first else nullcontext():
            yield

    def best(self, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The metrics of the best epoch."""
        best = Progress(history=tuple(history)).best(self._metrics)
        if best is None:
            raise TrainingError("no epoch is complete yet, so there is no best epoch")
        return dict(history[best])

    def remove(self) -> None:
        """Removes an earlier run from the folder. The caller must hold the run's lock."""
        self._files.remove()

    def require_alike(self) -> None:
        """Raises TrainingError if the folder holds a run whose settings differ from `record`."""
        self._files.require_alike(self._record())

    def _epoch(
        self,
        learner: Learner,
        parameters: Parameters,
        optimizer: Adam,
        progress: Progress,
        steps: int,
    ) -> tuple[Parameters, Progress]:
        """Runs the remaining steps of an epoch."""
        recipe, epoch = self.recipe, progress.epoch
        batch_size = min(recipe.batch_size, learner.count)
        order = np.random.default_rng([recipe.seed, epoch, 0]).permutation(learner.count)
        what = f"epoch {epoch + 1}/{recipe.epochs}"
        with bars.bar(what=what, unit="step", total=steps, done=progress.step) as bar:
            for step in range(progress.step, steps):
                rows = order[step * batch_size : (step + 1) * batch_size]
                random = np.random.default_rng([recipe.seed, epoch, 1, step])
                loss, change = learner.gradients(parameters, rows, random)
                if recipe.max_grad_norm is not None:
                    change, _ = optim.clip_grad_norm(change, recipe.max_grad_norm)
                value = self._finite(loss, change, progress, step)
                parameters = learner.bounded(optimizer.apply_gradients(change, parameters))
                mx.eval(parameters, optimizer.state)
                progress = progress._replace(step=step + 1, loss=progress.loss + value)
                bar.set_postfix_str(f"loss {value:.4f}", refresh=False)
                bar.update()
                if self.save_every and (step + 1) % self.save_every == 0:
                    self._keep(parameters, optimizer, progress)
        return parameters, progress

    def _keep(self, parameters: Parameters, optimizer: Adam, progress: Progress) -> None:
        if current().is_first:
            self._files.keep(self._record(), parameters, optimizer.state, progress)
        self._has_state = True
        say_kept(self.folder)

    @property
    def _files(self) -> RunFiles:
        return RunFiles(self.folder)

    @property
    def _metrics(self) -> Sequence[str]:
        return [self.metric] if isinstance(self.metric, str) else self.metric

    def _is_finished(self, progress: Progress) -> bool:
        if progress.epoch >= self.recipe.epochs:
            return True
        best = progress.best(self._metrics[:1])
        patience = self.recipe.patience
        return patience is not None and best is not None and progress.epoch - 1 - best >= patience

    def _finite(
        self, loss: mx.array, gradients: Parameters, progress: Progress, step: int
    ) -> float:
        """The loss as a float. Raises TrainingError unless it and all gradients are finite."""
        largest = mx.stack([mx.abs(each).max() for each in arrays_of(gradients).values()]).max()
        mx.eval(loss, largest, gradients)
        value, size = cast(float, loss.item()), cast(float, largest.item())
        if math.isfinite(value) and math.isfinite(size):
            return value
        kept = "nothing was kept yet"
        if self._has_state:
            kept = f"{self.folder} keeps the last good state, and the best one"
        raise TrainingError(
            f"the loss is {value} and its largest gradient {size} at step {step + 1} of epoch "
            f"{progress.epoch + 1}; {kept}. Start another run with a lower learning rate than "
            f"{self.recipe.learning_rate:g}, a warm-up, or clipped gradients"
        )

    def _record(self) -> dict[str, Any]:
        """The record and the recipe, in the form in which a JSON file stores them."""
        record = {**self.record, "recipe": self.recipe.record()}
        return cast(dict[str, Any], json.loads(json.dumps(record)))


def in_common(parameters: Parameters, optimizer: Adam | None = None) -> Parameters:
    """The first rank's parameters, and in `optimizer` its state.

    Devices that differ round differently: over many steps, parameters would drift apart.
    """
    group, state = current(), {} if optimizer is None else optimizer.state
    if group.size > 1 and len(set(group.collect(crc32("", named(parameters, state))))) > 1:
        parameters, state = group.copy((parameters, state))
        if optimizer is not None:
            optimizer.state = state
    return parameters


def say_kept(folder: Path) -> None:
    """Notes what to say if a rank is lost, once there is a state."""
    current().kept = (
        f"{folder} keeps the last state: the same command goes on from it, also with another "
        "number of ranks"
    )


def printed_names(measured: Mapping[str, Any], first: Sequence[str]) -> list[str]:
    """The names of the numbers of an epoch that fit on its line, those of `first` before others."""
    names = [name for name, value in measured.items() if isinstance(value, float)]
    room = LINE_WIDTH - len("epoch 1000: ")
    chosen = set()
    for name in sorted(names, key=lambda name: name not in first):
        length = len(name) + len(" 1.234e-05, ")
        if length <= room:
            room -= length
            chosen.add(name)
    return [name for name in names if name in chosen]


def report(measured: Mapping[str, Any], first: Sequence[str], folder: Path) -> None:
    """Prints one line about an epoch. At the first epoch it says where the other numbers are."""
    names = printed_names(measured, ("loss", "val_loss", *first))
    said = ", ".join(f"{name} {measured[name]:.4g}" for name in names)
    bars.note(f"epoch {measured['epoch']}: {said}")
    left_out = [name for name in measured if name not in (*names, "epoch", "step")]
    if left_out and measured["epoch"] == 1:
        bars.note(f"all measurements of each epoch: {folder / METRICS_FILE}")
