"""Training, whatever is trained: the recipe, the steps, and runs that go on where they stopped.

Parameters are a tree of float32 arrays. Whatever is random follows from the seed and the epoch, and
the state of a run is one file, replaced whole: a run that was killed and goes on ends in the same
parameters as one that was not.
"""

import dataclasses
import json
import math
import operator
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_map_with_path
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from videoprism_mlx.errors import InputError, TrainingError
from videoprism_mlx.files.atomic import explained_if_full, new_file
from videoprism_mlx.files.lock import LOCK_FILE, locked
from videoprism_mlx.files.record import differences
from videoprism_mlx.pictures.curves import CURVES_FILE
from videoprism_mlx.weights.directory import CONFIG_FILE, write_arrays
from videoprism_mlx.weights.identity import checksum

RUN_FOLDER = "training"
LAST_FILE, BEST_FILE = "last.safetensors", "best.safetensors"
METRICS_FILE = "metrics.jsonl"
RUN_FILES = (LAST_FILE, BEST_FILE, METRICS_FILE, CURVES_FILE, LOCK_FILE)

Parameters = dict[str, Any]

# Parameters and the numbers of some examples to the loss and its gradients.
Gradients = Callable[[Parameters, np.ndarray, np.random.Generator], tuple[mx.array, Parameters]]

# Parameters to metrics by name.
Validate = Callable[[Parameters], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How parameters are trained: Adam, with decoupled weight decay of matrices if there is any.

    The learning rate rises over `warmup` steps from 0, and then stays or, with `decay="cosine"`,
    falls to 0, where it is after the last one. Gradients together longer than `clip` are shortened
    to it. With `patience`, a run ends when so many epochs in a row were no better than the best
    one before, by the measurement that comes first.
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
            if operator.index(getattr(self, name)) < minimum:
                raise InputError(f"{name} is {getattr(self, name)}; expected {minimum} or more")
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value}; expected a number above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay is {self.weight_decay}; expected a number, 0 or above")
        if self.decay not in ("constant", "cosine"):
            raise InputError(f"decay is {self.decay!r}; expected constant or cosine")

    def optimizer(self, steps: int) -> optim.Optimizer:
        """The optimizer of a run of so many steps."""
        rate = self.learning_rate
        if self.decay == "cosine":
            rate = optim.cosine_decay(rate, max(steps - self.warmup, 1))
        if self.warmup:
            rising = optim.linear_schedule(0.0, self.learning_rate, self.warmup)
            after = rate if callable(rate) else lambda _: mx.array(self.learning_rate)
            rate = optim.join_schedules([rising, after], [self.warmup])
        return Adam(rate, weight_decay=self.weight_decay, bias_correction=True)


class Adam(optim.AdamW):
    """Adam whose weight decay is for matrices alone, not for biases, norms and temperatures."""

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: Any) -> mx.array:
        decays = optim.AdamW if parameter.ndim > 1 else optim.Adam
        return decays.apply_single(self, gradient, parameter, state)


class Progress(NamedTuple):
    """How far a run is."""

    epoch: int = 0  # Whole epochs that are done.
    step: int = 0  # Steps of the next one that are done.
    loss: float = 0.0  # The sum of their losses.
    history: tuple[dict[str, Any], ...] = ()  # What was measured, a mapping an epoch.
    checksum: str = ""  # Of the parameters of the best epoch.

    def best(self, metrics: Sequence[str]) -> int | None:
        """The epoch, from 0, that was best first; None before any."""

        def quality(epoch: int) -> list[float]:
            values = self.history[epoch]
            return [-values[one[1:]] if one.startswith("-") else values[one] for one in metrics]

        return max(range(len(self.history)), key=quality, default=None)


@dataclasses.dataclass
class Run:
    """A training in a folder, which holds its state, its best parameters and its measurements.

    `record` says what is trained on what. A folder with a run of another record is refused.
    `metric` is the measurement that should be high, or low if a minus is before its name; of
    several the next one counts where those before are alike. `save_every` steps the state is kept,
    beside after each epoch.
    """

    folder: Path
    recipe: Recipe
    record: Mapping[str, Any]
    metric: str | Sequence[str]
    save_every: int | None = None

    def __post_init__(self) -> None:
        if self.save_every is not None and operator.index(self.save_every) < 1:
            raise InputError(f"save_every is {self.save_every}; expected 1 or more")

    def fit(
        self,
        parameters: Parameters,
        count: int,
        gradients: Gradients,
        validate: Validate,
        whole_batches: bool = False,
        bounded: Callable[[Parameters], Parameters] = lambda parameters: parameters,
    ) -> tuple[Parameters, tuple[dict[str, Any], ...]]:
        """Trains on `count` examples. The parameters of the best epoch, and what was measured.

        `whole_batches` leaves out the last examples of an epoch where they make no batch. `bounded`
        brings parameters back to where they may be, after each step. Hold the run's lock meanwhile.
        """
        recipe = self.recipe
        batch_size = min(recipe.batch_size, count)
        steps = count // batch_size if whole_batches else math.ceil(count / batch_size)
        optimizer = recipe.optimizer(steps * recipe.epochs)
        optimizer.init(parameters)
        progress = Progress()
        if (self.folder / LAST_FILE).exists():
            restored = self._restored(parameters, optimizer.state)
            parameters, optimizer.state, progress = restored
            if progress.history:
                self._best_parameters(parameters)  # If it is damaged, that is better told now.
        while not self._is_finished(progress):
            order = np.random.default_rng([recipe.seed, progress.epoch, 0]).permutation(count)
            bar = tqdm(
                total=steps,
                initial=progress.step,
                desc=f"epoch {progress.epoch + 1}/{recipe.epochs}",
                unit="step",
                disable=None,
                leave=False,
            )
            with bar:
                for step in range(progress.step, steps):
                    rows = order[step * batch_size : (step + 1) * batch_size]
                    random = np.random.default_rng([recipe.seed, progress.epoch, 1, step])
                    loss, change = gradients(parameters, rows, random)
                    if recipe.clip is not None:
                        change, _ = optim.clip_grad_norm(change, recipe.clip)
                    value = self._finite(loss, change, progress, step)
                    parameters = bounded(optimizer.apply_gradients(change, parameters))
                    mx.eval(parameters, optimizer.state)
                    progress = progress._replace(step=step + 1, loss=progress.loss + value)
                    bar.set_postfix_str(f"loss {value:.4f}", refresh=False)
                    bar.update()
                    if self.save_every and (step + 1) % self.save_every == 0:
                        self._keep(parameters, optimizer, progress)
            measured = {
                "epoch": progress.epoch + 1,
                "loss": progress.loss / steps,
                "learning_rate": float(optimizer.learning_rate),
                **validate(parameters),
            }
            history = (*progress.history, measured)
            progress = Progress(progress.epoch + 1, history=history, checksum=progress.checksum)
            if self._best(progress) == progress.epoch - 1:
                self._write(BEST_FILE, dict(tree_flatten(parameters)), {})
                progress = progress._replace(checksum=checksum(parameters))
            self._keep(parameters, optimizer, progress)
            report(measured)
        best = self._best_parameters(parameters)
        if checksum(best) != progress.checksum:
            raise self._damaged(self.folder / BEST_FILE, "it is not what the run has written")
        return best, progress.history

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs from the folder, and from what comes of this one."""
        with locked(self.folder, self.folder.parent):
            yield

    def best(self, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What was measured at the best epoch."""
        return dict(history[self._best(Progress(history=tuple(history)))])

    def require_alike(self) -> None:
        """That a run in the folder, if there is one, has what `record` holds by now."""
        if (self.folder / LAST_FILE).exists():
            there, now = self._described()["record"], self._record()
            self._refuse({key: there[key] for key in now if key in there}, now)

    def _best_parameters(self, parameters: Parameters) -> Parameters:
        """Those of the best epoch, in the order of `parameters`."""
        arrays, _ = self._read(BEST_FILE)
        shapes = {key: array.shape for key, array in tree_flatten(parameters)}
        if {key: array.shape for key, array in arrays.items()} != shapes:
            raise self._damaged(self.folder / BEST_FILE, "it holds other parameters")
        return tree_map_with_path(lambda key, _: arrays[key], parameters)

    def _best(self, progress: Progress) -> int | None:
        return progress.best(self._metrics)

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
        """The loss, which must be a number, and so must its gradients."""
        sizes = [mx.abs(each).max() for _, each in tree_flatten(gradients)]
        largest = mx.stack(sizes).max()
        mx.eval(loss, largest, gradients)
        if math.isfinite(loss.item()) and math.isfinite(largest.item()):
            return loss.item()
        kept = "nothing was kept yet"
        if (self.folder / LAST_FILE).exists():
            kept = f"{self.folder} keeps the last good state, and the best one"
        raise TrainingError(
            f"the loss is {loss.item()} and its largest gradient {largest.item()} at step "
            f"{step + 1} of epoch {progress.epoch + 1}; {kept}. Start another run with a lower "
            f"learning rate than {self.recipe.learning_rate:g}, a warm-up, or gradients clipped"
        )

    def _keep(self, parameters: Parameters, optimizer: optim.Optimizer, progress: Progress) -> None:
        """Writes the state, and what was measured for others to read."""
        arrays = named(parameters, optimizer.state)
        described = {"record": self._record(), "progress": progress._asdict()}
        self._write(LAST_FILE, arrays, {"run": json.dumps(described)})
        with new_file(self.folder / METRICS_FILE, replace=True) as partial:
            lines = [json.dumps(measured) + "\n" for measured in progress.history]
            partial.write_text("".join(lines), encoding="utf-8")

    def _write(self, name: str, arrays: Mapping[str, mx.array], metadata: dict[str, str]) -> None:
        with new_file(self.folder / name, replace=True) as partial:
            written = partial.with_name(partial.name + ".safetensors")  # MLX asks for the ending.
            try:
                with explained_if_full(self.folder / name):
                    write_arrays(written, arrays, metadata)
                written.rename(partial)
            finally:
                written.unlink(missing_ok=True)

    def _read(self, name: str) -> tuple[dict[str, mx.array], dict[str, str]]:
        """The arrays and the metadata of a file, which is checked."""
        path = self.folder / name
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
            return dict(mx.load(str(path))), metadata
        except (SafetensorError, RuntimeError, FileNotFoundError) as error:
            raise self._damaged(path, error) from None

    def _described(self) -> dict[str, Any]:
        """The record and the progress of the state that was kept."""
        _, metadata = self._read(LAST_FILE)
        try:
            described = json.loads(metadata["run"])
            return {key: described[key] for key in ("record", "progress")}
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(self.folder / LAST_FILE, error) from None

    def _damaged(self, path: Path, error: object) -> TrainingError:
        return TrainingError(f"{path} is damaged ({error}); remove {self.folder} to begin again")

    def _refuse(self, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """That two records are alike."""
        if changed := differences(there, now):
            raise TrainingError(
                f"{self.folder} is a run of another configuration, which does not go on: "
                f"{'; '.join(changed)}. Name another output, or remove {self.folder}"
            )

    def _restored(
        self, parameters: Parameters, state: dict[str, Any]
    ) -> tuple[Parameters, dict[str, Any], Progress]:
        """The state that was kept, the arrays of each tree in the order that they start in.

        Sums over a tree, and so their rounding, are in its order.
        """
        described = self._described()
        self._refuse(described["record"], self._record())
        arrays, _ = self._read(LAST_FILE)
        expected = named(parameters, state)
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != {name: array.shape for name, array in expected.items()}:
            raise TrainingError(
                f"{self.folder / LAST_FILE} holds other parameters; remove {self.folder}"
            )
        progress = Progress(**described["progress"])
        return (
            tree_map_with_path(lambda key, _: arrays[f"parameters/{key}"], parameters),
            tree_map_with_path(lambda key, _: arrays[f"optimizer/{key}"], state),
            progress._replace(history=tuple(progress.history)),
        )

    def _record(self) -> dict[str, Any]:
        """As it comes back from a file."""
        return json.loads(json.dumps({**self.record, "recipe": dataclasses.asdict(self.recipe)}))


def named(parameters: Parameters, state: dict[str, Any]) -> dict[str, mx.array]:
    """The arrays of a state, as a file calls them."""
    trees = {"parameters": parameters, "optimizer": state}
    return {f"{kind}/{key}": a for kind, tree in trees.items() for key, a in tree_flatten(tree)}


def require_output(directory: Path, files: Collection[str]) -> None:
    """That a run may write to `directory`: it is new, empty, or holds a run and what came of it.

    What came of it is config.json and `files`.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; expected a new directory, or that of a run")
    folder = directory / RUN_FOLDER
    held = visible(directory) - {RUN_FOLDER, CONFIG_FILE, *files}
    held |= {f"{RUN_FOLDER}/{name}" for name in visible(folder) - set(RUN_FILES)}
    if held or (visible(directory) and not folder.is_dir()):
        name = min(held or visible(directory))
        raise InputError(
            f"{directory} holds something else than a run, such as {name}; name a new directory"
        )


def visible(directory: Path) -> set[str]:
    """The names in a directory that may not be there, but for hidden ones."""
    names = os.listdir(directory) if directory.is_dir() else []
    return {name for name in names if not name.startswith(".")}


def report(measured: Mapping[str, Any]) -> None:
    """A line about an epoch."""
    numbers = [f"{key} {value:.4g}" for key, value in measured.items() if isinstance(value, float)]
    tqdm.write(f"epoch {measured['epoch']}: {', '.join(numbers)}", file=sys.stderr)


def as_float32(parameters: Parameters) -> Parameters:
    """The parameters in the type that they are trained in."""
    return tree_map(lambda array: array.astype(mx.float32), parameters)
