"""Training whatever it is: the steps by hand, and runs that are stopped and go on."""

import dataclasses
import json
import math
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from videoprism_mlx.errors import TrainingError
from videoprism_mlx.files.lock import locked
from videoprism_mlx.training import run as training
from videoprism_mlx.training.run import (
    Parameters,
    Progress,
    Recipe,
    Run,
    as_float32,
    require_output,
)

RECIPE = Recipe(epochs=4, batch_size=4, learning_rate=0.1, seed=3)
RECORD = {"task": "lines", "nested": {"sizes": (1, 2)}}
FILES = ("last.safetensors", "best.safetensors", "metrics.jsonl")

# What a test of stopping runs, here and in another process: lines through noisy points.
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


def fit(
    folder: Path,
    recipe: Recipe = RECIPE,
    record: dict[str, Any] = RECORD,
    metric: str = "quality",
    save_every: int | None = None,
    gradients: Callable[..., Any] = gradients,
    validate: Callable[..., Any] = validate,
    **options: Any,
) -> tuple[Parameters, tuple[dict[str, Any], ...]]:
    run = Run(folder, recipe, record, metric, save_every)
    with run.locked():
        return run.fit(start(), len(POINTS), gradients, validate, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def flat(parameters: Parameters) -> dict[str, list[float]]:
    return {name: np.array(array).tolist() for name, array in tree_flatten(parameters)}


# The steps.


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


# Going on.


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


# Three steps make an epoch.
@pytest.mark.parametrize("save_every", [None, 1, 2])
@pytest.mark.parametrize("stops", [[1], [3], [4], [5, 3], [12], [2, 2, 2]])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    stops: list[int], save_every: int | None, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, warmup=4, decay="cosine", weight_decay=0.1, clip=1.0)
    expected, history = fit(tmp_path / "whole", recipe)
    for at in stops:
        with pytest.raises(Stop):
            fit(tmp_path / "run", recipe, save_every=save_every, gradients=stopping(at))
    found, again = fit(tmp_path / "run", recipe, save_every=save_every)
    assert flat(found) == flat(expected) and again == history
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_steps_that_were_kept_are_not_taken_again(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        fit(tmp_path / "run", save_every=2, gradients=stopping(6))
    left: list[int] = []

    def counted(*arguments: Any) -> Any:
        left.append(1)
        return gradients(*arguments)

    fit(tmp_path / "run", save_every=2, gradients=counted)
    assert len(left) == 12 - 5


@pytest.mark.parametrize(
    ("method", "name", "at"),
    [
        ("_keep", "", 3),  # In the midst of the second epoch.
        ("_write", "last.safetensors", 4),  # Between the best parameters and the state.
        ("_write", "best.safetensors", 2),  # Between epochs.
    ],
)
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    method: str, name: str, at: int, tmp_path: Path
) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import videoprism_mlx  # Before MLX, as everywhere.
from test_run import fit
from videoprism_mlx.training.run import Run
calls, original = 0, Run.{method}
def killed(run, *arguments):
    global calls
    calls += arguments[0] == {name!r} or not {name!r}
    if calls == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    original(run, *arguments)
Run.{method} = killed
fit(Path({str(tmp_path / "run")!r}), save_every=2)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    fit(tmp_path / "run", save_every=2)
    fit(tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_run_that_was_killed_while_it_wrote(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import videoprism_mlx  # Before MLX, as everywhere.
from test_run import fit
from videoprism_mlx.training import run as training
original = training.write_arrays
def halved(path, arrays, metadata):
    original(path, arrays, metadata)
    os.truncate(path, 100)
    if "last" in str(path):
        os.kill(os.getpid(), signal.SIGKILL)
training.write_arrays = halved
fit(Path({str(tmp_path / "run")!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any("partial" in path.name for path in (tmp_path / "run").iterdir())
    fit(tmp_path / "run")
    fit(tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert not any("partial" in path.name for path in (tmp_path / "run").iterdir())


def test_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        fit(tmp_path / "run", gradients=stopping(5))
    before = contents(tmp_path / "run")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="make room or write elsewhere"):
            fit(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(tmp_path / "run") == before
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*FILES, ".lock"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(recipe=dataclasses.replace(RECIPE, seed=4)), "recipe.seed is 3 there and 4 now"),
        (dict(recipe=dataclasses.replace(RECIPE, clip=1)), "recipe.clip is None there and 1 now"),
        (dict(record={**RECORD, "task": "curves"}), "task is lines there and curves now"),
        (dict(record={"task": "lines"}), r"nested.sizes is \[1, 2\] there and None now"),
    ],
)
def test_another_configuration_does_not_go_on(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    fit(tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(TrainingError, match=message):
        fit(tmp_path / "run", **changes)
    assert contents(tmp_path / "run") == before


def test_what_is_known_early_is_compared_early(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", RECIPE, {"task": "lines"}, "quality")
    run.require_alike()  # There is none.
    fit(tmp_path / "run")
    run.require_alike()  # What the rest will be is not known yet.
    run.record = {"task": "lines", "nested": {"sizes": [1]}}
    with pytest.raises(TrainingError, match=r"sizes is \[1, 2\] there and \[1\] now"):
        run.require_alike()
    run.record = {"task": "lines", "more": None}
    run.require_alike()


def test_two_runs_at_once(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "run", tmp_path),
        pytest.raises(ValueError, match="another run is writing to"),
    ):
        fit(tmp_path / "run")


def test_a_best_file_of_other_contents_is_not_published(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    path = tmp_path / "run" / "best.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\xff" * 4)
    with pytest.raises(TrainingError, match=r"best.safetensors is damaged .*not what the run"):
        fit(tmp_path / "run")


@pytest.mark.parametrize("name", ["last.safetensors", "best.safetensors"])
def test_damaged_states_are_named(name: str, tmp_path: Path) -> None:
    fit(tmp_path / "run")
    path = tmp_path / "run" / name
    whole = path.read_bytes()
    for damaged in (b"", whole[:50], whole[:-10]):
        path.write_bytes(damaged)
        with pytest.raises(TrainingError, match=rf"{path} is damaged .* remove"):
            fit(tmp_path / "run")
    path.unlink()
    if name.startswith("best"):
        with pytest.raises(TrainingError, match="is damaged"):
            fit(tmp_path / "run")
    mx.save_safetensors(str(tmp_path / "run" / "last.safetensors"), {"x": mx.zeros(1)})
    with pytest.raises(TrainingError, match="is damaged"):
        fit(tmp_path / "run")


def test_other_parameters_are_refused(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    run = Run(tmp_path / "run", RECIPE, RECORD, "quality")
    with pytest.raises(TrainingError, match="holds other parameters"):
        run.fit({"layer": {"weight": mx.zeros((4, 1))}}, 10, gradients, validate)


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
        (dict(clip=-1.0), "clip is -1.0"),
        (dict(weight_decay=-0.1), "weight_decay is -0.1; expected a number, 0 or above"),
        (dict(decay="linear"), "decay is 'linear'; expected constant or cosine"),
    ],
)
def test_bad_recipes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**changes)


def test_how_often_the_state_may_be_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save_every is 0; expected 1 or more"):
        Run(tmp_path, RECIPE, RECORD, "quality", 0)


def test_where_a_run_may_write(tmp_path: Path) -> None:
    output = tmp_path / "out"
    require_output(output, ["labels.json"])
    (output / "training").mkdir(parents=True)
    for name in (".DS_Store", "config.json", "labels.json", "training/last.safetensors"):
        (output / name).touch()
    require_output(output, ["labels.json"])
    (output / "training" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"something else than a run, such as training/notes.txt"):
        require_output(output, ["labels.json"])
    (output / "training" / "notes.txt").unlink()
    with pytest.raises(ValueError, match=r"such as labels.json; name a new directory"):
        require_output(output, [])
    with pytest.raises(ValueError, match=r"is a file; expected a new directory"):
        require_output(output / "config.json", [])
    (tmp_path / "model").mkdir()
    require_output(tmp_path / "model", [])
    (tmp_path / "model" / "config.json").touch()  # A model that no run made.
    with pytest.raises(ValueError, match=r"such as config.json"):
        require_output(tmp_path / "model", [])


def test_parameters_are_trained_in_float32() -> None:
    parameters = as_float32({"a": mx.ones(2, mx.float16), "b": [{"c": mx.ones(1, mx.bfloat16)}]})
    assert {array.dtype for _, array in tree_flatten(parameters)} == {mx.float32}


def test_no_epoch_is_best_before_any() -> None:
    assert Progress().best(["quality"]) is None


def test_files_of_a_run_are_known() -> None:
    assert {*FILES, "curves.png"} <= set(training.RUN_FILES)
