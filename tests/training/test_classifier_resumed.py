"""Seeds, and classifiers whose training is stopped and continued."""

import dataclasses
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from coloured_clips import (
    COLOURS,
    OWN_FILES,
    QUICK,
    Stop,
    Train,
    colour_clip,
    colour_rows,
    contents,
    listed,
    numbers_of,
)

import videoprism_mlx as vp
from videoprism_mlx.errors import CheckpointError, TrainingError
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.training import classifier
from videoprism_mlx.training.losses import classification_loss
from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.weights import directory as checkpoint

pytest_plugins = ["classifier_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")


def test_a_seed_repeats_a_run(train: Train) -> None:
    options = dict(views=3, recipe=dataclasses.replace(QUICK, seed=5))
    train("one", **options)
    one = contents(train("one", **options).directory)  # It had ended, and is written once more.
    assert one == contents(train("same", **options).directory)
    other = train("other", **options | dict(recipe=dataclasses.replace(QUICK, seed=6)))
    assert contents(other.directory)["model.safetensors"] != one["model.safetensors"]


def test_fresh_heads_follow_the_seed(
    train: Train,
) -> None:
    still = dict(recipe=Recipe(epochs=1, learning_rate=1e-30), val=None)
    one, same = (numbers_of(train(name, **still).directory) for name in ("one", "same"))
    still["recipe"] = dataclasses.replace(still["recipe"], seed=1)
    other = numbers_of(train("other", **still).directory)
    for key in ("atten_pooler.pooling_attention_query", "projection.linear.weight"):
        np.testing.assert_array_equal(one[key], same[key])
        assert np.abs(one[key] - other[key]).max() > 0.01


@pytest.mark.parametrize("at", [1, 2, 5, 6])  # Three steps an epoch.
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    at: int,
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = dict(views=2, save_every=1, recipe=dataclasses.replace(QUICK, clip=0.5))
    steps = 0

    def stopping(*arguments: Any) -> mx.array:
        nonlocal steps
        steps += 1
        if steps == at:
            raise Stop
        return classification_loss(*arguments)

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(classifier, "classification_loss", stopping)
        train("run", **options)
    assert contents(train("run", **options).directory) == contents(
        train("whole", **options).directory
    )


def test_a_run_that_was_killed_ends_as_one_that_was_not(
    train: Train,
    clips: Path,
    backbone: Path,
    tmp_path: Path,
) -> None:
    """Once while features are made, once in an epoch, and once while the result is written."""
    script = f"""
import os, signal, sys
from pathlib import Path
from videoprism_mlx.features.cache import ArrayCache
from videoprism_mlx.training.classifier import train_classifier
from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.training.run import Run
owner, name, at = (
    (ArrayCache, "store", 4),
    (Run, "_keep", 5),
    (os, "replace", 0),
)[int(sys.argv[1])]
original, calls = getattr(owner, name), 0
def killed(*arguments):
    global calls
    calls += 1
    if calls == at or (name == "replace" and str(arguments[1]).endswith("labels.json")):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
setattr(owner, name, killed)
train_classifier(
    {str(backbone)!r}, {str(clips / "train")!r}, {str(tmp_path / "run")!r},
    {str(clips / "val")!r}, recipe={QUICK!r}, views=2, save_every=1,
    cache={str(tmp_path / "cache")!r},
)
"""
    for stage in ("0", "1", "2"):
        command = [sys.executable, "-c", script, stage]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        with pytest.raises(CheckpointError, match="is not a model directory"):
            vp.load(tmp_path / "run") if (tmp_path / "run").exists() else checkpoint.read_config(
                tmp_path / "run"
            )
    options = dict(views=2, save_every=1)
    run = train("run", cache=tmp_path / "cache", **options)
    assert contents(run.directory) == contents(train("whole", **options).directory)
    assert {path.name for path in run.directory.iterdir()} == {*OWN_FILES, "training"}


def test_another_configuration_does_not_go_on(
    train: Train,
    converted: Callable[[str], Path],
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = colour_rows(clips)
    data = listed(tmp_path / "train.json", rows)
    names = sorted(COLOURS)
    before = contents(train(data=data, labels=names).directory)
    changes = {
        "recipe.learning_rate": dict(recipe=dataclasses.replace(QUICK, learning_rate=1.0)),
        "preprocessing.frames was 4 and is now 2": dict(num_frames=2),
        "preprocessing.resize": dict(resize="crop"),
        "views.count was None and is now 2": dict(views=2),
        "labels.names": dict(labels=names[::-1]),
        "labels.count was 3 and is now 4": dict(labels=[*names, "d"]),
        "model.head": dict(model=converted("clip_mild")),
        "encoder.weights": dict(model=converted("clip_mild")),
        "validation.videos was 3 and is now None": dict(val=None),
        "validation.list": dict(val=listed(tmp_path / "val.json", rows[::4])),
        "training.videos was 9 and is now 8": dict(data=listed(tmp_path / "t.json", rows[1:])),
        "training.list": dict(data=listed(tmp_path / "t.json", [*rows[1:], (rows[0][0], 1)])),
    }
    monkeypatch.setattr(Processor, "read", None)  # It is said before any video is read.
    for message, change in changes.items():
        if "data" in change:
            listed(tmp_path / "t.json", rows[1:] + ([(rows[0][0], 1)] if "list" in message else []))
        with pytest.raises(TrainingError, match=f"(?s)cannot be continued: .*{message}"):
            train(**dict(data=data, labels=names) | change)
    assert contents(tmp_path / "out") == before


def test_where_a_command_is_given_does_not_matter(
    train: Train, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clips)
    before = contents(train(data="train", val="val").directory)
    monkeypatch.chdir(tmp_path)
    assert contents(train().directory) == before


def test_videos_that_changed_are_another_configuration(
    train: Train, clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(clips / "train", tmp_path / "train")
    train(data=tmp_path / "train")
    colour_clip(tmp_path / "train" / "red" / "red0.mp4", (200, 100, 0))
    with pytest.raises(TrainingError, match=r"usable.training was .* and is now .*"):
        train(data=tmp_path / "train")


def test_a_loss_that_is_no_number(
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = 0

    def breaking(*arguments: Any) -> mx.array:
        nonlocal steps
        steps += 1
        return classification_loss(*arguments) * (math.nan if steps == 5 else 1)

    with monkeypatch.context() as patched, pytest.raises(TrainingError, match="the loss is nan"):
        patched.setattr(classifier, "classification_loss", breaking)
        train("run")
    assert not (tmp_path / "run" / "config.json").exists()
    assert contents(train("run").directory) == contents(train("whole").directory)
