"""More epochs of the same recipe, finished runs, and heads that are trained further."""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from coloured_clips import QUICK, Train
from coloured_clips import contents as results
from lines import FILES, RECIPE, contents, fit, flat, stopping
from lines import Stop as Stopped
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from videoprism_mlx.errors import TrainingError
from videoprism_mlx.training.recipe import Recipe

pytest_plugins = ["classifier_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")

TWO = dataclasses.replace(RECIPE, epochs=2)
COSINE = dict(decay="cosine", learning_rate=0.1)


@pytest.mark.parametrize("settings", [{}, {"warmup": 5}, {"clip": 1.0, "weight_decay": 0.1}])
@pytest.mark.parametrize("at", [None, 2, 5])
def test_more_epochs_end_as_if_they_had_been_asked_for_at_once(
    at: int | None, settings: dict[str, float], tmp_path: Path
) -> None:
    """Even if the shorter run was stopped in the midst of an epoch."""
    two, four = (dataclasses.replace(recipe, **settings) for recipe in (TWO, RECIPE))
    expected, history = fit(tmp_path / "whole", four)
    if at is None:
        fit(tmp_path / "run", two)
    else:
        with pytest.raises(Stopped):
            fit(tmp_path / "run", two, gradients=stopping(at), save_every=1)
    found, again = fit(tmp_path / "run", four)
    assert flat(found) == flat(expected) and again == history
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_fewer_epochs_than_were_trained_are_refused(tmp_path: Path) -> None:
    fit(tmp_path / "run", TWO)
    before = contents(tmp_path / "run")
    with pytest.raises(
        TrainingError,
        match=r"recipe.epochs was 2 and is now 1 \(it has been trained for 2 epochs already\)",
    ):
        fit(tmp_path / "run", dataclasses.replace(TWO, epochs=1))
    assert contents(tmp_path / "run") == before
    with pytest.raises(Stopped):
        fit(tmp_path / "stopped", RECIPE, gradients=stopping(5))
    fit(tmp_path / "stopped", TWO)
    assert contents(tmp_path / "stopped") == before


def test_a_cosine_is_not_made_longer(tmp_path: Path) -> None:
    """Half way through twice the epochs the rate would be half of the first."""
    two, four = (dataclasses.replace(recipe, **COSINE) for recipe in (TWO, RECIPE))
    fit(tmp_path / "run", two)
    before = contents(tmp_path / "run")
    with pytest.raises(TrainingError) as refused:
        fit(tmp_path / "run", four)
    said = str(refused.value)
    assert "recipe.epochs was 2 and is now 4, and with the cosine that ends after the last" in said
    assert "another learning rate: 0.05 and not 0 now. Name another output" in said
    assert contents(tmp_path / "run") == before
    with pytest.raises(TrainingError, match=r"recipe\.clip was None and is now 1.0; recipe\.epoch"):
        fit(tmp_path / "run", dataclasses.replace(four, clip=1.0))


@pytest.mark.parametrize("epochs", [0, -1, "2", None, 1.5, [2], "missing"])
def test_a_state_with_absurd_epochs_is_damaged(epochs: object, tmp_path: Path) -> None:
    """A state of an earlier version, which has no checksum."""
    fit(tmp_path / "run", TWO)
    path = tmp_path / "run" / FILES[0]
    with safe_open(path, "numpy") as file:
        described = json.loads(file.metadata()["run"])
    described["record"]["recipe"]["epochs"] = epochs
    if epochs == "missing":
        del described["record"]["recipe"]["epochs"]
    save_file(load_file(path), path, {"run": json.dumps(described)})
    with pytest.raises(TrainingError, match=r"last\.safetensors is damaged"):
        fit(tmp_path / "run", RECIPE)


def test_a_finished_run_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fit(tmp_path / "run" / "training", TWO)
    assert caplog.messages == []
    fit(tmp_path / "run" / "training", TWO)
    assert caplog.messages == [
        f"{tmp_path / 'run'}: this run is finished after 2 epochs; with more epochs it would go on"
    ]
    fit(tmp_path / "run" / "training", RECIPE)
    assert caplog.messages[1:] == [f"{tmp_path / 'run'}: continuing after epoch 2 of 4"]
    caplog.clear()
    patient = Recipe(epochs=9, batch_size=4, learning_rate=1e-30, patience=2)
    for _ in range(2):
        fit(tmp_path / "patient" / "training", patient)
    [line] = caplog.messages
    assert line.endswith("is finished after 3 epochs: the last 2 brought no improvement")


def test_metrics_follow_from_the_state(tmp_path: Path) -> None:
    """A run may be killed after its state was written, and before the metrics were."""
    fit(tmp_path / "run")
    whole = contents(tmp_path / "run")
    for left in ("", whole[FILES[2]].decode().split("\n")[0] + "\n", None):
        metrics = tmp_path / "run" / FILES[2]
        metrics.unlink() if left is None else metrics.write_text(left)
        fit(tmp_path / "run")
        assert contents(tmp_path / "run") == whole


def test_a_classifier_with_more_epochs(train: Train) -> None:
    train("run", recipe=dataclasses.replace(QUICK, epochs=1))
    longer = train("run", recipe=QUICK)
    assert len(longer.history) == 2
    assert results(longer.directory) == results(train("whole", recipe=QUICK).directory)


def test_nothing_warns_of_a_head_that_is_being_trained(
    train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    train("run")
    assert not [line for line in caplog.messages if "random" in line]


def test_a_trained_classifier_is_trained_further(train: Train, tmp_path: Path) -> None:
    """With a learning rate of next to nothing, it ends as it began."""
    first = train("first")
    still = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-30)
    second = train("second", model=first.directory, recipe=still)
    best = json.loads((first.directory / "metrics.json").read_text())
    assert second.metrics["val_loss"] == pytest.approx(best["val_loss"], rel=1e-6)
    assert second.metrics["top1"] == best["top1"]
    fresh = train("fresh", recipe=still)
    assert not np.isclose(fresh.metrics["val_loss"], best["val_loss"], rtol=1e-3)
    record = json.loads((second.directory / "config.json").read_text())
    assert record["source"] == {"trained_from": str(first.directory)}
