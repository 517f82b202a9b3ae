"""The state of a training run, and the files that store it in the run's folder.

Parameters are a tree of float32 arrays.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_map_with_path
from safetensors import SafetensorError, safe_open

from videoprism_mlx.errors import TrainingError, counted, excerpt, shown
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.lock import LOCK_FILE
from videoprism_mlx.files.reading import parse_json
from videoprism_mlx.files.record import as_json, differences
from videoprism_mlx.pictures.curves import CURVES_FILE
from videoprism_mlx.weights.directory import mlx_path, write_arrays
from videoprism_mlx.weights.identity import checksum

RUN_FOLDER = "training"
LAST_FILE, BEST_FILE = "last.safetensors", "best.safetensors"
METRICS_FILE = "metrics.jsonl"
RUN_FILES = (LAST_FILE, BEST_FILE, METRICS_FILE, CURVES_FILE, LOCK_FILE)

Parameters = dict[str, Any]


class Progress(NamedTuple):
    """The progress of a run."""

    epoch: int = 0  # Epochs that are complete.
    step: int = 0  # Steps of the current epoch that are complete.
    loss: float = 0.0  # The sum of the losses of those steps.
    history: tuple[dict[str, Any], ...] = ()  # The metrics of each epoch.
    checksum: str = ""  # The checksum of the parameters of the best epoch.

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Progress":
        """The progress whose fields were read from JSON."""
        progress = cls(**values)
        return progress._replace(history=tuple(progress.history))

    def best(self, metrics: Sequence[str]) -> int | None:
        """The best epoch, counted from 0. None if no epoch is complete.

        The first of `metrics` decides. Between equal epochs the next metric decides, and in the end
        the earlier epoch is best. A minus in front of a name means that lower is better.
        """

        def quality(epoch: int) -> list[float]:
            values = self.history[epoch]
            return [-values[one[1:]] if one.startswith("-") else values[one] for one in metrics]

        return max(range(len(self.history)), key=quality, default=None)


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The files of a run: its state, its best parameters and its metrics.

    The state is one file that is replaced as a whole. It contains the run's record, so that a run
    with other settings is not continued by mistake.
    """

    folder: Path

    def has_state(self) -> bool:
        """Whether the folder holds the state of a run."""
        return (self.folder / LAST_FILE).exists()

    def remove(self) -> None:
        """Removes the files, except for the lock."""
        for name in RUN_FILES:
            if name != LOCK_FILE:
                (self.folder / name).unlink(missing_ok=True)

    def keep(
        self,
        record: Mapping[str, Any],
        parameters: Parameters,
        state: dict[str, Any],
        progress: Progress,
    ) -> None:
        """Writes the state of the run and its optimizer, and the metrics as a readable file."""
        described = as_json({"record": record, "progress": progress._asdict()}, indent=None)
        arrays = named(parameters, state)
        metadata = {"run": described, "crc32": crc32(described, arrays)}
        self._write(LAST_FILE, arrays, metadata)
        self.write_metrics(progress)

    def write_metrics(self, progress: Progress) -> None:
        """Writes the metrics of each epoch, a line each, unless the file holds them already."""
        text = "".join(as_json(each, indent=None) + "\n" for each in progress.history)
        path = self.folder / METRICS_FILE
        if not path.is_file() or path.read_bytes() != text.encode():
            with new_file(path, replace=True) as partial:
                partial.write_text(text, encoding="utf-8")

    def keep_best(self, parameters: Parameters) -> str:
        """Writes the parameters of the best epoch, and returns their checksum."""
        self._write(BEST_FILE, arrays_of(parameters), {})
        return checksum(parameters)

    def restore(
        self, record: Mapping[str, Any], parameters: Parameters, state: dict[str, Any]
    ) -> tuple[Parameters, dict[str, Any], Progress]:
        """The stored parameters, the optimizer's stored state, and the progress.

        Raises TrainingError unless they belong to a run with the same record and the same shapes.
        Both trees have the same order as in the arguments, because the rounding of a sum over a
        tree depends on the order.
        """
        there, progress = self._described()
        arrays, metadata = self._read(LAST_FILE)
        # Earlier versions wrote no checksum.
        if metadata.get("crc32") not in (None, crc32(metadata["run"], arrays)):
            raise self._damaged(self.folder / LAST_FILE, "its checksum is wrong")
        self._refuse(there, record, progress)
        expected = named(parameters, state)
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != {name: array.shape for name, array in expected.items()}:
            raise TrainingError(
                f"{self.folder / LAST_FILE} holds parameters of other names or shapes; remove "
                f"{self.folder} to start again"
            )
        return (
            tree_map_with_path(lambda key, _: arrays[f"parameters/{key}"], parameters),
            tree_map_with_path(lambda key, _: arrays[f"optimizer/{key}"], state),
            progress,
        )

    def best(self, parameters: Parameters, expected: str | None = None) -> Parameters:
        """The parameters of the best epoch, in the order of `parameters`.

        `expected` is their checksum. Raises TrainingError if they are damaged.
        """
        arrays, _ = self._read(BEST_FILE)
        shapes = {key: array.shape for key, array in arrays_of(parameters).items()}
        if {key: array.shape for key, array in arrays.items()} != shapes:
            raise self._damaged(self.folder / BEST_FILE, "parameters have other names or shapes")
        best = cast(Parameters, tree_map_with_path(lambda key, _: arrays[key], parameters))
        if expected is not None and checksum(best) != expected:
            raise self._damaged(self.folder / BEST_FILE, "its checksum is wrong")
        return best

    def require_alike(self, record: Mapping[str, Any]) -> None:
        """Raises TrainingError if the folder holds a run whose settings differ from `record`.

        Settings that `record` does not have yet are not compared.
        """
        if self.has_state():
            there, progress = self._described()
            self._refuse({key: there[key] for key in record if key in there}, record, progress)

    def _write(self, name: str, arrays: Mapping[str, mx.array], metadata: dict[str, str]) -> None:
        with new_file(self.folder / name, replace=True) as partial:
            write_arrays(partial, arrays, metadata)

    def _read(self, name: str) -> tuple[dict[str, mx.array], dict[str, str]]:
        """The arrays and the metadata of a file. Raises TrainingError if it is damaged."""
        path = self.folder / name
        if not path.is_file():
            raise self._damaged(path, "it is no file")
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
            return dict(cast(dict[str, mx.array], mx.load(mlx_path(path)))), metadata
        except (SafetensorError, RuntimeError, FileNotFoundError) as error:
            raise self._damaged(path, error) from None

    def _described(self) -> tuple[dict[str, Any], Progress]:
        """The record and the progress of the run in the folder."""
        _, metadata = self._read(LAST_FILE)
        try:
            described = parse_json(metadata["run"], "its metadata", TrainingError)
            record, progress = dict(described["record"]), Progress.of(described["progress"])
            epochs = record.get("recipe", {"epochs": 1})["epochs"]
            counts = (progress.epoch, progress.step, epochs)
            if not all(isinstance(count, int) and count >= 0 for count in counts) or epochs == 0:
                raise ValueError(f"its epochs and steps are {shown(counts)}")
            return record, progress
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(self.folder / LAST_FILE, error) from None

    def _damaged(self, path: Path, error: object) -> TrainingError:
        return TrainingError(
            f"{path} is damaged ({excerpt(error)}); remove {self.folder} to start again"
        )

    def _refuse(self, there: Mapping[str, Any], now: Mapping[str, Any], progress: Progress) -> None:
        """Raises TrainingError if two records differ.

        Only the number of epochs may, if the run would have come to the same state with it.
        """
        changed = differences(there, now)
        reason = ""
        if changed and not differences(with_epochs(there, None), with_epochs(now, None)):
            reason = epochs_conflict(there["recipe"], now["recipe"], progress)
            changed = changed if reason else []
        if changed:
            raise TrainingError(
                f"{self.folder} holds a run with other settings, so it cannot be continued: "
                f"{excerpt('; '.join(changed), 300)}{reason}. Name another output, or begin anew "
                "with --overwrite (overwrite=True)"
            )


def with_epochs(record: Mapping[str, Any], epochs: int | None) -> dict[str, Any]:
    """A run's record with another number of epochs."""
    return {**record, "recipe": {**record.get("recipe", {}), "epochs": epochs}}


def epochs_conflict(there: Mapping[str, Any], now: Mapping[str, Any], progress: Progress) -> str:
    """What would be different if a run were continued with another number of epochs.

    The recipes are alike in everything else. It is empty if nothing would be.
    """
    before, after = there["epochs"], now["epochs"]
    if (progress.epoch, progress.step) > (after, 0):
        return f" (it has been trained for {counted(progress.epoch, 'epoch')} already)"
    if there["decay"] == "constant" or (progress.epoch, progress.step) == (0, 0):
        return ""
    rates = [
        there["learning_rate"] * (1 + math.cos(math.pi * progress.epoch / epochs)) / 2
        for epochs in (before, after)
    ]
    now_and_then = "" if there["warmup"] else f": {rates[1]:.3g} and not {rates[0]:.3g} now"
    return (
        f", and with the {there['decay']} that ends after the last of them, every step would have "
        f"had another learning rate{now_and_then}"
    )


def crc32(described: str, arrays: Mapping[str, mx.array]) -> str:
    """The checksum of a run's state: of its description, and of its arrays with their names."""
    check = zlib.crc32(described.encode())
    for name, array in sorted(arrays.items()):
        check = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), check)
        check = zlib.crc32(np.ascontiguousarray(np.asarray(array)).data, check)
    return f"{check:08x}"


def arrays_of(tree: dict[str, Any]) -> dict[str, mx.array]:
    """The arrays of a tree by their paths, in the order of the tree."""
    return dict(cast(list[tuple[str, mx.array]], tree_flatten(tree)))


def named(parameters: Parameters, state: dict[str, Any]) -> dict[str, mx.array]:
    """The arrays of a run's state, by their names in the file."""
    trees = {"parameters": parameters, "optimizer": state}
    return {
        f"{kind}/{key}": a for kind, tree in trees.items() for key, a in arrays_of(tree).items()
    }


def as_float32(parameters: Parameters) -> Parameters:
    """The parameters in float32. Training keeps them in this type."""
    return cast(Parameters, tree_map(lambda array: array.astype(mx.float32), parameters))
