"""Whole runs of several ranks, beside those of one: training, continuing, and measuring."""

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from captioned_clips import CAPTIONS
from lines import RECIPE, Lines, Stop, flat, gradients, stopping
from rank_threads import each_rank
from safetensors.numpy import load_file

import videoprism_mlx as vp
from videoprism_mlx.ranks.group import ALONE, Group
from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.training.retrieval import Tuning
from videoprism_mlx.training.run import Run
from videoprism_mlx.training.session import Trained
from videoprism_mlx.training.state import Parameters

pytest_plugins = ["classifier_fixtures", "retrieval_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")

Start = Callable[..., Callable[[Group], Trained]]

SHORT = Recipe(epochs=2, batch_size=4, learning_rate=1e-3, clip=1.0, patience=1)


@pytest.fixture
def tuning(searchable: Path, pairs: Path, tmp_path: Path) -> Start:
    """Tunes the small model on five clips, with a cache and an output of each rank's own."""

    def tuning(name: str, **options: Any) -> Callable[[Group], Trained]:
        def tune(group: Group) -> Trained:
            own = dict(output=tmp_path / f"{name}{group.rank}", cache=tmp_path / f"c{group.rank}")
            how = dict(recipe=SHORT, tuning=Tuning(at_once=1), val=pairs)
            return vp.train_retrieval(searchable, pairs, **(own | how | options))

        return tune

    return tuning


def weights(trained: Trained) -> dict[str, np.ndarray]:
    name = "model" if (trained.directory / "model.safetensors").exists() else "adapters"
    return load_file(trained.directory / f"{name}.safetensors")


def require_near(found: dict[str, Any], expected: dict[str, Any], relative: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            gap = np.linalg.norm(found[name] - value)
            assert gap <= relative * np.linalg.norm(value) + 1e-5, name
        else:
            assert found[name] == pytest.approx(value, rel=relative), name


@pytest.mark.parametrize("size", [2, 3])
def test_retrieval(tuning: Start, tmp_path: Path, size: int) -> None:
    alone = tuning("alone")(ALONE)
    found = each_rank(size, tuning("together"))
    for each in found:
        assert each.metrics == found[0].metrics and each.history == found[0].history
    for one, other in zip(found[0].history, alone.history, strict=True):
        require_near(one, other, 1e-4)
    require_near(weights(found[0]), weights(alone), 1e-3)
    assert sorted(tmp_path.glob("together*")) == [tmp_path / "together0"]  # It alone writes.


@pytest.mark.parametrize("tuned", [Tuning(rank=2), Tuning(towers=("text",), dtype="bfloat16")])
def test_adapters_and_frozen_towers(tuning: Start, tuned: Tuning) -> None:
    alone = tuning("alone", tuning=tuned, val=None)(ALONE)
    found = each_rank(2, tuning("together", tuning=tuned, val=None))
    require_near(weights(found[0]), weights(alone), 1e-3 if tuned.rank else 2e-2)
    assert found[1].metrics == found[0].metrics


def test_another_number_of_ranks_continues(tuning: Start, tmp_path: Path) -> None:
    constant = dataclasses.replace(SHORT, patience=None)
    more = dataclasses.replace(constant, epochs=4)
    whole = tuning("whole", recipe=more)(ALONE)
    each_rank(3, tuning("parts", recipe=constant))
    continued = each_rank(2, tuning("parts", recipe=more))[0]
    assert len(continued.history) == 4
    require_near(weights(continued), weights(whole), 1e-3)


@pytest.mark.attack
def test_as_many_ranks_continue_with_the_same_bits(tuning: Start) -> None:
    constant = dataclasses.replace(SHORT, patience=None)
    more = dataclasses.replace(constant, epochs=4)
    each_rank(2, tuning("again", recipe=constant))
    again = each_rank(2, tuning("again", recipe=more))
    unbroken = each_rank(2, tuning("unbroken", recipe=more))
    for name, array in weights(unbroken[0]).items():
        assert (weights(again[0])[name] == array).all(), name


@pytest.mark.parametrize(("size", "batch_size", "several"), [(2, 4, False), (3, 2, True)])
def test_a_classifier(
    converted: Callable[[str], Path], tmp_path: Path, clips: Path, size: int, batch_size: int,
    several: bool,
) -> None:  # fmt: skip
    videos = sorted((clips / "train").rglob("*.mp4"))
    labels = [[n % 3] if n % 2 or not several else [0, 2] for n in range(len(videos))]
    data = tmp_path / "data.json"
    rows = [
        {"file": str(video), "label_idx": label if several else label[0]}
        for video, label in zip(videos, labels, strict=True)
    ]
    data.write_text(json.dumps(rows))
    recipe = Recipe(epochs=2, batch_size=batch_size, learning_rate=1e-3)

    def train(group: Group, name: str = "together") -> Trained:
        output, cache = tmp_path / f"{name}{group.rank}", tmp_path / f"c{group.rank}"
        model = converted("encoder_mild")
        return vp.train_classifier(model, data, output, data, recipe=recipe, views=2, cache=cache)

    converted("encoder_mild")
    alone = train(ALONE, "alone")
    found = each_rank(size, train)
    for one, other in zip(found[0].history, alone.history, strict=True):
        require_near(one, other, 1e-4)
    require_near(weights(found[0]), weights(alone), 1e-4)
    assert found[-1].metrics == found[0].metrics


def test_ranks_that_round_differently_do_not_drift_apart(tmp_path: Path) -> None:
    """Each rank adds an error of its own to every gradient, as an unlike device might."""

    def fit(group: Group) -> dict[str, list[float]]:
        def drifting(parameters: Parameters, *arguments: Any) -> tuple[mx.array, Parameters]:
            loss, change = gradients(parameters, *arguments)
            change["layer"]["bias"] = change["layer"]["bias"] + 0.01 * group.rank
            return loss, change

        run = Run(tmp_path / f"run{group.rank}", RECIPE, {"task": "lines"}, "quality")
        parameters, _ = run.fit(Lines(gradients=drifting))
        return flat(parameters)

    (tmp_path / "run0").mkdir()
    alone = fit(ALONE)
    (tmp_path / "run0" / "last.safetensors").unlink()
    assert each_rank(3, fit) == [alone] * 3


def test_the_first_rank_decides_when_to_stop(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=9, patience=2)

    def fit(group: Group) -> int:
        epochs = iter(range(9))
        # The first rank's numbers fall; the others', which do not count, rise.
        quality = lambda _: {"quality": float(next(epochs)) * (1 if group.rank else -1)}  # noqa: E731
        run = Run(tmp_path / f"run{group.rank}", recipe, {}, "quality")
        return len(run.fit(Lines(validate=quality))[1])

    (tmp_path / "run0").mkdir()
    assert each_rank(2, fit) == [3, 3]


def test_a_state_that_only_the_first_rank_has(tmp_path: Path) -> None:
    def fit(group: Group, **learner: Any) -> dict[str, list[float]]:
        run = Run(tmp_path / f"run{group.rank}", RECIPE, {"task": "lines"}, "quality", 1)
        return flat(run.fit(Lines(**learner))[0])

    for rank in range(2):
        (tmp_path / f"run{rank}").mkdir()
    with pytest.raises(Stop):
        each_rank(2, lambda group: fit(group, gradients=stopping(6)))
    assert not list((tmp_path / "run1").iterdir())
    continued = each_rank(2, fit)
    for path in (tmp_path / "run0").iterdir():
        path.unlink()
    assert continued == [fit(ALONE)] * 2


@pytest.mark.parametrize("captions", ["each", "joined"])
def test_measuring_retrieval(
    searchable: Path, pairs: Path, tmp_path: Path, captions: str, capsys: Any
) -> None:
    def measure(group: Group) -> dict[str, Any]:
        model, processor = vp.load(searchable)
        output = tmp_path / f"{group.rank}.json"
        how = dict(cache=tmp_path / f"m{group.rank}", data=pairs, output=output)
        return vp.evaluate_retrieval(model, processor, vp.read_captions(pairs), captions, **how)

    alone = measure(ALONE)
    (tmp_path / "0.json").unlink()
    assert len(CAPTIONS) == alone["videos"]
    assert each_rank(3, measure) == [alone] * 3
    assert (tmp_path / "0.json").exists() and not (tmp_path / "1.json").exists()


def test_measuring_classes_and_probes(
    searchable: Path, converted: Callable[[str], Path], pairs: Path, tmp_path: Path
) -> None:
    rows = [(f"{number}.mp4", ("cold", "warm")[number % 2]) for number in range(5)]
    data = pairs.parent / "classes.csv"
    with open(data, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("video", "label"), *rows])

    def measure(group: Group) -> list[dict[str, Any]]:
        cache = tmp_path / f"m{group.rank}"
        both = vp.load(searchable)
        recipe = Recipe(epochs=1, batch_size=2)
        how: dict[str, Any] = dict(sizes=(2, "all"), seeds=2, recipe=recipe, cache=cache)
        return [
            vp.evaluate_zero_shot(*both, vp.read_labels(data), cache=cache),
            vp.evaluate_probe(*both, data, data, **how),
        ]

    alone = measure(Group(rank=9, size=1))
    for each in each_rank(3, measure):
        assert each == alone
