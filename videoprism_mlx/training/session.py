"""A whole training run of any kind, from the check of the output to the result: see `train`.

A `Task` describes the model and the data before any video is read. It makes a `Learner`, which has
the examples and the parameters.
"""

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import mlx.core as mx

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError, counted
from videoprism_mlx.evaluation.metrics import TITLES
from videoprism_mlx.features.cache import require_usable
from videoprism_mlx.features.processor import (
    Needs,
    Processor,
    check_model,
    processor_for,
    with_settings,
)
from videoprism_mlx.files import places
from videoprism_mlx.files.output import require_own, require_writable
from videoprism_mlx.pictures.curves import draw_curves
from videoprism_mlx.ranks.alike import require_alike
from videoprism_mlx.ranks.joining import alone, current, over_ranks
from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.training.run import History, Learner, Run
from videoprism_mlx.training.state import RUN_FILES, RUN_FOLDER, Parameters
from videoprism_mlx.video.ffmpeg.decoding import Decoding
from videoprism_mlx.weights.directory import CONFIG_FILE

logger = logging.getLogger(__name__)

L = TypeVar("L", bound=Learner)

# Where the array of each video is cached; None if the video cannot be used.
Paths = Sequence[Path | None]


class Trained(NamedTuple):
    """The result of a training run."""

    directory: Path
    metrics: dict[str, Any]  # The metrics of the best epoch, as in metrics.json.
    history: History  # The metrics of each epoch.
    skipped: list[str]  # A line about each video that cannot be used.


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of all training runs: how videos are read, and what is kept.

    An option that is None leaves the model's own setting. `partial` reads the frames of a damaged
    video that can be decoded. `skip_bad` leaves out videos that cannot be used. `overwrite`
    begins anew where there is a run.
    """

    num_frames: int | None = None
    size: int | None = None
    resize: str | None = None
    resample: str | None = None
    partial: bool = False
    dtype: str | mx.Dtype | None = None
    save_every: int | None = None
    skip_bad: bool = False
    cache: str | Path | None = None
    decoding: Decoding | None = None
    overwrite: bool = False

    def processor(self, model: VideoPrismModel, directory: Path) -> Processor:
        """The processor of a model, with the settings that are not None."""
        processor = with_settings(processor_for(model, directory), model, **self._settings)
        processor.known_words = None  # It learns new ones.
        return processor

    @property
    def _settings(self) -> dict[str, Any]:
        names = ("num_frames", "size", "resize", "resample", "decoding")
        return {name: getattr(self, name) for name in names}

    def check_model(
        self, model: str | Path, dtype: str | mx.Dtype | None = None, needs: Needs | None = None
    ) -> None:
        """As `check_model` of features/processor.py, with these settings."""
        check_model(model, dtype, needs=needs, **self._settings)

    def cache_folder(self, name: str) -> Path:
        """The folder for arrays made from videos: by default the folder `name` in the cache."""
        return places.cache_directory() / name if self.cache is None else Path(self.cache)


class Source(NamedTuple):
    """A list of videos, and a function that caches an array for each of them."""

    name: str | Path
    fill: Callable[[], tuple[Paths, list[str]]]  # Also returns a line about each bad video.


class Outcome(NamedTuple):
    """The outcome of a run."""

    best: Parameters  # The parameters of the best epoch.
    measured: dict[str, Any]  # The metrics of the best epoch.
    history: History
    skipped: list[str]


class Task(Protocol[L]):
    """A model and the data to train it on: everything that is known before a video is read."""

    @property
    def record(self) -> Mapping[str, Any]:
        """The settings that the result depends on."""

    @property
    def alike(self) -> Mapping[str, Any]:
        """The settings that all ranks must have in common."""

    @property
    def metric(self) -> Sequence[str]:
        """The metrics that choose the best epoch: see `Progress.best`."""

    @property
    def sources(self) -> Sequence[Source]:
        """The videos to train on and, if there are any, those to validate on."""

    def learner(self, training: Paths, validation: Paths | None = None) -> L:
        """The learner for the videos of `sources`, whose arrays are cached at these paths."""

    def publish(self, learner: L, outcome: Outcome, output: Path) -> dict[str, Any]:
        """Writes the result to `output`, and returns the metrics that were written."""


@over_ranks
def train(
    prepare: Callable[[], Task[L]],
    output: Path,
    files: Collection[str],
    recipe: Recipe,
    options: Options,
) -> Trained:
    """Trains the task that `prepare` loads, or continues the run in `output`.

    `files` are the names of the files that `publish` writes to `output`, besides config.json. Of
    several ranks, the first one writes.
    """
    group = current()
    if group.is_first:
        check_output(output, files)
        require_writable(output)
    require_writable(options.cache_folder("features"))
    task = prepare()
    record, sources = task.record, task.sources
    require_alike(group, {**task.alike, "recipe": recipe.record()})
    run = Run(output / RUN_FOLDER, recipe, record, task.metric, options.save_every)
    if group.is_first:
        if options.overwrite:
            with run.locked():
                run.remove()
        run.require_alike()
    if len(sources) == 1:
        logger.info("no videos to validate on: the epoch with the lowest training loss is best")
    group.kept = "What was prepared is kept: the same command goes on"
    paths, skipped = fill_all(sources, options.skip_bad)
    learner = task.learner(*paths)
    run.record = {**record, **learner.record()}
    metrics: dict[str, Any] = {}
    with run.locked():
        best, history = run.fit(learner)
        if group.is_first:
            measured = run.best(history)
            outcome = Outcome(best, measured, history, skipped)
            with alone():
                metrics = task.publish(learner, outcome, output)
            draw_curves(run.folder, history, measured["epoch"], TITLES)
    return Trained(output, group.broadcast(metrics), history, skipped)


def check_output(output: Path, files: Collection[str]) -> None:
    """Raises OutputError unless `output` is new, empty, or holds only a run and its results."""
    require_own(output, "a training run", [RUN_FOLDER], {CONFIG_FILE, *files})
    require_own(output / RUN_FOLDER, "a training run", RUN_FILES, ())


def fill_all(sources: Sequence[Source], skip_bad: bool) -> tuple[list[Paths], list[str]]:
    """Caches the arrays of all videos. Returns their paths, and a line about each bad video.

    It reads the videos of all sources before it raises an error about bad ones.
    """
    paths, skipped = [], []
    for source in sources:
        found, lines = source.fill()
        paths.append(found)
        skipped += lines
    for source, found in zip(sources, paths, strict=True):
        if skip_bad and not any(found):
            raise InputError(
                f"none of the {counted(len(found), 'video')} of {source.name} can be used"
            )
    require_usable(skipped, sum(map(len, paths)), skip_bad)
    return paths, skipped
