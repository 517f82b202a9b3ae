"""Probes: how well a frozen encoder's features tell classes apart, by the size of the training set.

Each probe is an attention pooler and a projection, as of a classifier, trained on a part of the
videos. Shapes: E examples, C classes.
"""

import dataclasses
import functools
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError, are, counted
from videoprism_mlx.evaluation.metrics import TITLES, multi_label_metrics, single_label_metrics
from videoprism_mlx.evaluation.protocols import Evaluation
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.files import places
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.checksum import is_intact, with_checksum
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.files.lock import locked
from videoprism_mlx.files.reading import read_json_object
from videoprism_mlx.files.record import as_json, digest
from videoprism_mlx.progress import bar, hidden, note
from videoprism_mlx.ranks.group import Group
from videoprism_mlx.ranks.joining import alone, current, over_ranks
from videoprism_mlx.training.classes import Lists, read_lists, require_labels, require_variety
from videoprism_mlx.training.classifier import OFFICIAL_RECIPE, HeadLearner, logits_of
from videoprism_mlx.training.examples import Examples, Features
from videoprism_mlx.training.recipe import Recipe, check_count
from videoprism_mlx.training.run import Run
from videoprism_mlx.training.session import Source, fill_all
from videoprism_mlx.training.state import RUN_FOLDER
from videoprism_mlx.training.views import PLAIN
from videoprism_mlx.weights.identity import ModelIdentity
from videoprism_mlx.weights.loading import with_new_head

# How many videos to train on.
Size = int | Literal["all"]

# A probe: how many videos it is trained on, and its seed.
Probe = tuple[int, int]

SIZES: tuple[Size, ...] = (16, 64, "all")

# The file with the metrics of a probe that is complete.
PROBE_FILE = "probe.json"


@over_ranks
def evaluate_probe(
    model: VideoPrismModel,
    processor: Processor,
    data: str | Path,
    val: str | Path,
    *,
    labels: str | Path | Sequence[str] | None = None,
    sizes: Sequence[Size] = SIZES,
    seeds: int = 3,
    recipe: Recipe = OFFICIAL_RECIPE,
    partial: bool = False,
    skip_bad: bool = False,
    cache: str | Path | None = None,
    identity: ModelIdentity | None = None,
    dataset: str | None = None,
    output: str | Path | None = None,
    lists: Lists | None = None,
) -> dict[str, Any]:
    """Measures how well a frozen encoder's features tell classes apart, by the size of the data.

    For each of `sizes`, numbers of videos or "all", as many probes as `seeds` are trained, each on
    another part of the videos of `data`. A probe is a new attention pooler and projection, trained
    with `recipe` to the last epoch, and measured on the videos of `val`. `data`, `val` and `labels`
    are as for `train_classifier`. A smaller part is within the larger ones of the same seed, and
    has as many videos of each class as possible.

    The result has `sizes`, with the `mean` and the standard deviation (`spread`) of each metric
    over the seeds; `metrics` are the means of the last size. Features and finished probes are kept
    in `cache`: the same call continues a run that was stopped. `lists` are `data` and `val` if they
    have been read before. For the other arguments see `evaluate_retrieval`.
    """
    check_probe(sizes, seeds, recipe)
    noted = (identity, data, dataset, output)
    evaluation = Evaluation("probe", model, processor, partial, skip_bad, cache, *noted)
    lists = read_lists(data, val, labels) if lists is None else lists
    listed = [each for each in lists if each is not None]
    videos = [video for each in listed for video in each.videos]
    evaluation.require_alike(videos, [[each.labels, each.names] for each in listed])
    check_sizes(sizes, len(lists.training.videos))
    own = places.cache_directory()
    root = own / "features" if cache is None else Path(cache)
    features = Features(root, model.video_encoder, processor, partial)
    training, held_out, skipped = examples_of(features, lists, (data, val), skip_bad)
    check_sizes(sizes, len(training.paths))
    folder = (own if cache is None else root) / "probes"
    probes = Probes(features, training, held_out, lists.count_classes(), recipe, folder)
    each = range(recipe.seed, recipe.seed + seeds)
    counts = {size: len(training.paths) if size == "all" else size for size in sizes}
    found = probes.together([(count, seed) for count in counts.values() for seed in each])
    rows = [
        row_of(size, counts[size], {seed: found[counts[size], seed] for seed in each})
        for size in sizes
    ]
    checksum = sha256(Path(val)) if Path(val).is_file() else None
    validation = {"path": str(val), "sha256": checksum}
    settings = {"validation": validation, "recipe": recipe.record(), "seeds": seeds}
    return evaluation.result({**probes.measured(rows, lists), "skipped": skipped}, settings)


def check_probe(sizes: Sequence[Size], seeds: int, recipe: Recipe) -> None:
    """Raises InputError unless probes can be trained like this."""
    check_count("seeds", seeds)
    if recipe.patience is not None:
        raise InputError(
            f"patience is {recipe.patience}; expected None: a probe is measured after its last "
            "epoch, and the videos that it is measured on choose nothing"
        )
    if isinstance(sizes, str) or not len(sizes):
        raise InputError(f"sizes is {sizes!r}; expected some numbers of videos, or 'all'")
    for size in sizes:
        if size != "all":
            check_count("size", size, 2)


def check_sizes(sizes: Sequence[Size], videos: int) -> None:
    """Raises InputError unless there are as many videos to train on."""
    for size in sizes:
        if size != "all" and size > videos:
            raise InputError(
                f"size is {size}, and there {are(videos)} {counted(videos, 'video')} to train on; "
                "expected at most as many, or 'all'"
            )


def examples_of(
    features: Features, lists: Lists, named: tuple[str | Path, str | Path], skip_bad: bool
) -> tuple[Examples, Examples, list[str]]:
    """The examples to train and to measure on, and a line about each video that is left out."""
    training, validation = lists
    assert validation is not None  # A list was given.
    both = ((training, "features"), (validation, "features to measure on"))
    sources = [
        Source(name, functools.partial(features.fill, each.videos, PLAIN, what))
        for name, (each, what) in zip(named, both, strict=True)
    ]
    paths, skipped = fill_all(sources, skip_bad)
    cache, count = features.cache(PLAIN), lists.count_classes()
    examples = Examples.of(cache, training, paths[0], count)
    held_out = Examples.of(cache, validation, paths[1], count)
    require_variety(examples.labels)
    require_labels(held_out.labels, named[1])
    return examples, held_out, skipped


@dataclasses.dataclass(frozen=True)
class Probes:
    """Trains probes on parts of `training`, and measures them on `held_out`.

    What a probe depends on names its folder below `root`. A probe that is complete leaves its
    metrics there, one that was stopped the state of its training.
    """

    features: Features
    training: Examples
    held_out: Examples
    classes: int
    recipe: Recipe
    root: Path

    def together(self, wanted: Sequence[Probe]) -> dict[Probe, dict[str, float]]:
        """The metrics of probes. Of several ranks, each trains its share of those not yet kept."""
        group = current()
        wanted = list(dict.fromkeys(wanted))
        found: dict[Probe, dict[str, float]] = {}
        if group.size > 1:
            own = [(probe, kept(self.folder(self.record(*probe)) / PROBE_FILE)) for probe in wanted]
            found = united(group, [(probe, metrics) for probe, metrics in own if metrics])
        left = [probe for probe in wanted if probe not in found][group.rank :: group.size]
        new: list[tuple[Probe, dict[str, float]]] = []
        with alone(), bar(unit="probe", total=len(left)) as shown:
            for videos, seed in left:
                metrics = self.metrics(videos, seed)
                new.append(((videos, seed), metrics))
                shown.update()
                said = ", ".join(f"{TITLES[name]} {value:.1%}" for name, value in metrics.items())
                note(f"{counted(videos, 'video')}, seed {seed}: {said}")
        return {**found, **united(group, new)}

    def measured(self, rows: Sequence[Mapping[str, Any]], lists: Lists) -> dict[str, Any]:
        """What was measured, from the row of each size, and how many of the listed videos count."""
        total = sum(len(listed.videos) for listed in lists if listed is not None)
        used = len(self.training.paths) + len(self.held_out.paths)
        return {
            "metrics": rows[-1]["mean"],
            "sizes": rows,
            "training_videos": rows[-1]["videos"],
            "validation_videos": len(self.held_out.paths),
            "videos": total,
            "measured": used,
            "total": total,
            "used": used,
        }

    def part(self, videos: int, seed: int) -> Examples:
        """The examples that a probe is trained on."""
        return self.training.part(chosen(self.training, videos, seed))

    def record(self, videos: int, seed: int) -> dict[str, Any]:
        """What a probe depends on."""
        return {
            **self.features.record(PLAIN),
            "training": self.part(videos, seed).digest(),
            "validation": self.held_out.digest(),
            "classes": self.classes,
            "recipe": dataclasses.replace(self.recipe, seed=seed).record(),
        }

    def folder(self, record: Mapping[str, Any]) -> Path:
        """The folder of the probe with this record."""
        return self.root / digest(record)

    def metrics(self, videos: int, seed: int) -> dict[str, float]:
        """The metrics of one probe, which is trained unless it has been."""
        record = self.record(videos, seed)
        folder = self.folder(record)
        with locked(folder, folder):
            metrics = kept(folder / PROBE_FILE)
            if metrics is None:
                part, recipe = self.part(videos, seed), dataclasses.replace(self.recipe, seed=seed)
                metrics = self.trained(part, recipe, folder / RUN_FOLDER, record)
                described = with_checksum({**record, "metrics": metrics})
                with new_file(folder / PROBE_FILE, replace=True) as partial:
                    partial.write_text(as_json(described) + "\n", encoding="utf-8")
                shutil.rmtree(folder / RUN_FOLDER)
        return metrics

    def trained(
        self, part: Examples, recipe: Recipe, folder: Path, record: Mapping[str, Any]
    ) -> dict[str, float]:
        """The metrics of a probe that is trained now, or trained further, in a folder."""
        mx.random.seed(recipe.seed)
        classifier = with_new_head(self.features.encoder, self.classes)
        learner = HeadLearner(classifier, part, None, 1, recipe.batch_size)
        run = Run(folder, recipe, record, "epoch")  # The last epoch counts.
        with hidden():
            parameters, _ = run.fit(learner)
        classifier.update(parameters)
        logits = logits_of(classifier, self.held_out, recipe.batch_size)
        measure = multi_label_metrics if self.held_out.targets.ndim == 2 else single_label_metrics
        return measure(logits, self.held_out.targets)


def united(
    group: Group, own: list[tuple[Probe, dict[str, float]]]
) -> dict[Probe, dict[str, float]]:
    """The metrics that all ranks have, by the probe."""
    found = group.collect(own)
    return {(videos, seed): metrics for each in found for (videos, seed), metrics in each}


def row_of(size: Size, videos: int, found: Mapping[int, dict[str, float]]) -> dict[str, Any]:
    """The metrics of the probes of a size, by their seeds: of each, their mean and their spread."""
    runs = [{"seed": seed, **metrics} for seed, metrics in found.items()]
    columns = {name: [run[name] for run in runs] for name in runs[0] if name != "seed"}
    return {
        "size": size,
        "videos": videos,
        "mean": {name: float(np.mean(values)) for name, values in columns.items()},
        "spread": {
            name: float(np.std(values, ddof=1)) if len(values) > 1 else None
            for name, values in columns.items()
        },
        "runs": runs,
    }


def chosen(examples: Examples, count: int, seed: int) -> npt.NDArray[np.intp]:
    """The numbers of `count` examples, drawn by the seed, ascending.

    Of examples with one class each, every class gives one before another gives a second, as long as
    it has some.
    """
    order = np.random.default_rng(seed).permutation(len(examples.paths))
    if examples.targets.ndim == 1:
        seen: Counter[int] = Counter()
        turns = []
        for target in examples.targets[order].tolist():
            turns.append(seen[target])
            seen[target] += 1
        order = order[np.argsort(turns, kind="stable")]
    return np.sort(order[:count])


def kept(path: Path) -> dict[str, float] | None:
    """The metrics of a probe that is complete. None if the file is missing or damaged."""
    if not path.is_file():
        return None
    try:
        found = read_json_object(path)
    except InputError:
        return None
    metrics = found.get("metrics")
    return metrics if is_intact(found) and isinstance(metrics, dict) else None
