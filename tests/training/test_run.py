"""The training loop: the steps by hand, the best epoch, and what goes wrong."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from lines import (
    HEIGHTS,
    POINTS,
    RECIPE,
    RECORD,
    contents,
    fit,
    flat,
    gradients,
    loss_of,
)
from mlx.utils import tree_flatten

from videoprism_mlx.errors import InputTypeError, TrainingError
from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.training.run import Run
from videoprism_mlx.training.state import RUN_FILES, Parameters, Progress, as_float32


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        dataclasses.replace(RECIPE, weight_decay=0.3, clip=0.5),
        dataclasses.replace(RECIPE, warmup=5),
        dataclasses.replace(RECIPE, warmup=4, decay="cosine", weight_decay=0.1),
        dataclasses.replace(RECIPE, decay="cosine", batch_size=100, epochs=7),
    ],
)
def test_steps_by_hand(recipe: Recipe, tmp_path: Path) -> None:
    rows_seen: list[np.ndarray] = []

    def noted(parameters: Parameters, rows: np.ndarray, random: np.random.Generator) -> Any:
        rows_seen.append(rows)
        return mx.value_and_grad(loss_of)(
            parameters, mx.array(POINTS[rows]), mx.array(HEIGHTS[rows])
        )

    last: list[Parameters] = []
    _, history = fit(
        tmp_path / "run",
        recipe,
        gradients=noted,
        validate=lambda parameters: last.append(parameters) or {"quality": 0.0},
    )

    steps = math.ceil(10 / recipe.batch_size) * recipe.epochs
    assert len(rows_seen) == steps
    weights, m, v, losses = np.zeros(4), np.zeros(4), np.zeros(4), []
    inputs = np.c_[POINTS, np.ones(10)].astype(np.float64)
    for step, rows in enumerate(rows_seen):
        errors = inputs[rows] @ weights - HEIGHTS[rows]
        losses.append((errors**2).mean())
        gradient = 2 * inputs[rows].T @ errors / len(rows)
        if recipe.clip is not None:
            gradient *= min(1, recipe.clip / np.linalg.norm(gradient))
        rate = recipe.learning_rate
        if step < recipe.warmup:
            rate *= step / recipe.warmup
        elif recipe.decay == "cosine":
            done = (step - recipe.warmup) / (steps - recipe.warmup)
            rate *= (1 + math.cos(math.pi * done)) / 2
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        t = step + 1
        change = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        decay = recipe.weight_decay * np.array([1, 1, 1, 0])  # The bias is no matrix.
        weights = weights - rate * (change + decay * weights)
    layer = last[-1]["layer"]
    found = [*np.array(layer["weight"])[:, 0], layer["bias"].item()]
    np.testing.assert_allclose(found, weights, rtol=2e-5, atol=1e-6)
    by_epoch = np.mean(np.reshape(losses, (recipe.epochs, -1)), axis=1)
    np.testing.assert_allclose([one["loss"] for one in history], by_epoch, rtol=1e-4)
    assert history[-1]["learning_rate"] == pytest.approx(rate, rel=1e-5, abs=1e-8)


def test_an_epoch_takes_every_example_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def noted(parameters: Parameters, rows: np.ndarray, random: np.random.Generator) -> Any:
        seen.append(rows.tolist())
        return gradients(parameters, rows, random)

    fit(tmp_path / "run", gradients=noted)
    epochs = [seen[i] + seen[i + 1] + seen[i + 2] for i in range(0, 12, 3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert [len(rows) for rows in seen[:3]] == [4, 4, 2]
    assert len({tuple(epoch) for epoch in epochs}) == 4

    seen.clear()
    fit(tmp_path / "whole", gradients=noted, whole_batches=True)
    assert [len(rows) for rows in seen] == [4] * 8


def test_whatever_is_random_differs_from_step_to_step(tmp_path: Path) -> None:
    drawn: list[float] = []

    def noted(parameters: Parameters, rows: np.ndarray, random: np.random.Generator) -> Any:
        drawn.append(random.random())
        return gradients(parameters, rows, random)

    fit(tmp_path / "run", gradients=noted)
    assert len(set(drawn)) == 12


def test_a_seed_repeats_a_run(tmp_path: Path) -> None:
    one, _ = fit(tmp_path / "one")
    same, _ = fit(tmp_path / "same")
    other, _ = fit(tmp_path / "other", dataclasses.replace(RECIPE, seed=4))
    assert contents(tmp_path / "one") == contents(tmp_path / "same")
    assert flat(one) == flat(same) != flat(other)


def test_the_best_epoch_is_what_is_kept(tmp_path: Path) -> None:
    qualities, seen = [0.1, 0.7, 0.7, 0.2], []

    def scripted(parameters: Parameters) -> dict[str, float]:
        seen.append(flat(parameters))
        return {"quality": qualities[len(seen) - 1]}

    best, history = fit(tmp_path / "run", validate=scripted)
    assert flat(best) == seen[1]  # The first of the best.
    assert [one["quality"] for one in history] == qualities
    run = Run(tmp_path / "run", RECIPE, RECORD, "quality")
    assert run.best(history)["epoch"] == 2

    seen.clear()
    best, _ = fit(tmp_path / "low", metric="-quality", validate=scripted)
    assert flat(best) == seen[0]


def test_of_epochs_alike_the_next_measurement_decides(tmp_path: Path) -> None:
    measured = iter([(0.5, 3.0), (0.9, 2.0), (0.9, 1.0), (0.9, 1.0), (0.9, 0.5)])
    metrics = ["quality", "-cost"]
    _, history = fit(
        tmp_path / "run",
        dataclasses.replace(RECIPE, epochs=9, patience=2),
        metric=metrics,
        validate=lambda parameters: dict(zip(["quality", "cost"], next(measured), strict=True)),
    )
    assert len(history) == 4  # The first alone makes for patience.
    assert Run(tmp_path / "run", RECIPE, RECORD, metrics).best(history)["epoch"] == 3


def test_patience(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=20, patience=3)
    qualities = [0.1, 0.5, 0.2, 0.6, 0.6, 0.5, 0.5, 0.9, 0.9, 0.9]
    measured = iter(qualities)
    _, history = fit(
        tmp_path / "run", recipe, validate=lambda parameters: {"quality": next(measured)}
    )
    assert [one["quality"] for one in history] == qualities[:7]

    def no_more(*arguments: Any) -> Any:
        raise AssertionError("the run had ended")

    _, again = fit(tmp_path / "run", recipe, gradients=no_more)
    assert again == history


def test_what_is_measured_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, history = fit(tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(history)
    assert [one["epoch"] for one in history] == [1, 2, 3, 4]
    printed = capsys.readouterr()
    assert printed.out == ""
    said = [line for line in printed.err.splitlines() if line.startswith("epoch ")]
    assert said[0] == (
        f"epoch 1: loss {history[0]['loss']:.4g}, learning_rate 0.1, "
        f"quality {history[0]['quality']:.4g}"
    )


# What goes wrong.


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run(value: float, tmp_path: Path) -> None:
    steps = 0

    def breaking(*arguments: Any) -> tuple[mx.array, Parameters]:
        nonlocal steps
        steps += 1
        loss, change = gradients(*arguments)
        return (loss * value if steps == 5 else loss), change

    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) .* at step 2 of epoch 2; "
    ) as e:
        fit(tmp_path / "run", gradients=breaking)
    assert "keeps the last good state" in str(e.value) and "lower learning rate" in str(e.value)
    fit(tmp_path / "run")
    fit(tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_gradient_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    def breaking(*arguments: Any) -> tuple[mx.array, Parameters]:
        loss, change = gradients(*arguments)
        change["layer"]["bias"] = mx.array(math.nan)
        return loss, change

    with pytest.raises(TrainingError, match=r"its largest gradient nan .* nothing was kept yet"):
        fit(tmp_path / "run", gradients=breaking)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(epochs=0), "epochs is 0; expected 1 or more"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(warmup=-1), "warmup is -1; expected 0 or more"),
        (dict(seed=-1), "seed is -1"),
        (dict(patience=0), "patience is 0; expected 1"),
        (dict(learning_rate=0), "learning_rate is 0; expected a number above 0"),
        (dict(learning_rate=math.nan), "learning_rate is nan"),
        (dict(clip=-1.0), "max_grad_norm is -1.0"),
        (dict(weight_decay=-0.1), "weight_decay is -0.1; expected a number, 0 or above"),
        (dict(decay="linear"), "lr_schedule is 'linear'; expected constant or cosine"),
    ],
)
def test_bad_recipes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(epochs=1.5), "epochs is 1.5; expected a whole number"),
        (dict(patience="5"), "patience is '5'; expected a whole number"),
        (dict(learning_rate="1e-4"), "learning_rate is '1e-4'; expected a number"),
        (dict(weight_decay=None), "weight_decay is None; expected a number"),
    ],
)
def test_recipes_of_wrong_types(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        Recipe(**changes)


def test_how_often_the_state_may_be_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save_every is 0; expected 1 or more"):
        Run(tmp_path, RECIPE, RECORD, "quality", 0)


def test_parameters_are_trained_in_float32() -> None:
    parameters = as_float32({"a": mx.ones(2, mx.float16), "b": [{"c": mx.ones(1, mx.bfloat16)}]})
    assert {array.dtype for _, array in tree_flatten(parameters)} == {mx.float32}


def test_no_epoch_is_best_before_any() -> None:
    assert Progress().best(["quality"]) is None


def test_the_files_of_a_run_are_known() -> None:
    assert {"last.safetensors", "best.safetensors", "metrics.jsonl", "curves.png"} <= set(RUN_FILES)


def test_no_epoch_is_the_best_of_none(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no epoch is complete yet"):
        Run(tmp_path, RECIPE, RECORD, "quality").best(())
