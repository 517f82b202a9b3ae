"""What a classifier learns, and what it starts from."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from coloured_clips import (
    COLOURS,
    OWN_FILES,
    QUICK,
    RECIPE,
    Train,
    colour_rows,
    listed,
    logits_by_hand,
    loss_by_hand,
    numbers_of,
)

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.features.processor import processor_for
from videoprism_mlx.files.checksum import with_checksum
from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.weights.labels import Labels, load_labels

pytest_plugins = ["classifier_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.mark.parametrize("several", [False, True])
def test_the_first_step_by_hand(
    several: bool,
    train: Train,
    converted: Callable[[str], Path],
    clips: Path,
    tmp_path: Path,
) -> None:
    """The loss of a step on all examples is that of the head as it starts, on kept features."""
    directory = converted("classifier_mild")
    rows = [(file, [label, 6] if several else label) for file, label in colour_rows(clips)]
    names = [f"class {number}" for number in range(7)]
    recipe = Recipe(epochs=1, batch_size=9)
    options = dict(model=directory, val=None, labels=names, recipe=recipe)
    trained = train(data=listed(tmp_path / "train.json", rows), **options)

    model, processor = vp.load(directory)
    videos = mx.array(np.stack([processor.read(file) for file, _ in rows]))
    tokens = np.array(model.encoder(videos)[0]).astype(np.float16)
    logits = logits_by_hand(numbers_of(directory), tokens, 4)
    targets = np.array([label for _, label in colour_rows(clips)])
    if several:
        targets = np.eye(7)[targets]
        targets[:, 6] = 1
    assert trained.history[0]["loss"] == pytest.approx(loss_by_hand(logits, targets), rel=1e-4)


def test_colours_are_learned_and_found_again(
    train: Train,
    clips: Path,
    backbone: Path,
    with_pictures: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained = train(recipe=RECIPE)
    assert trained.metrics["top1"] == 1.0 and trained.skipped == []
    assert trained.history[-1]["loss"] < 0.1 < trained.history[0]["loss"]
    directory = trained.directory
    assert {path.name for path in directory.iterdir()} == {*OWN_FILES, "training"}
    assert (directory / "training" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((directory / "labels.json").read_text()) == with_checksum(
        {"labels": ["blue", "green", "red"], "multi_label": False}
    )
    assert json.loads((directory / "metrics.json").read_text()) == trained.metrics
    config = json.loads((directory / "config.json").read_text())
    assert config["num_classes"] == 3 and config["source"] == {"trained_from": str(backbone)}

    for name in COLOURS:
        video = clips / "val" / name / f"{name}.mp4"
        assert main(["classify", str(video), "--model", str(directory)]) == 0
        first = capsys.readouterr().out.splitlines()[1]
        assert first.endswith(f"  {name}") and float(first.split("%")[0]) > 60


def test_the_encoder_stays_as_it_was(train: Train, backbone: Path) -> None:
    before, after = numbers_of(backbone), numbers_of(train().directory)
    of_encoder = {key for key in after if key.startswith("encoder.")}
    assert of_encoder == {f"encoder.{key}" for key in before}
    for key, array in before.items():
        assert after[f"encoder.{key}"].dtype == array.dtype
        np.testing.assert_array_equal(after[f"encoder.{key}"], array)
    of_head = {key.split(".")[0] for key in after.keys() - of_encoder}
    assert of_head == {"atten_pooler", "projection"}


def test_metrics_are_those_of_the_result(train: Train, clips: Path) -> None:
    recipe = Recipe(epochs=3, batch_size=2, learning_rate=5e-4)
    trained = train(recipe=recipe, data=clips / "val", val=clips / "train")
    model, processor = vp.load(trained.directory)
    rows = colour_rows(clips)
    logits = np.concatenate([np.array(model(**processor(videos=[file]))[0]) for file, _ in rows])
    targets = np.array([label for _, label in rows])
    right = logits.argmax(1) == targets
    assert 0 < right.mean() < 1  # Or this would show little.
    metrics = trained.metrics
    best = max(trained.history, key=lambda measured: (measured["top1"], -measured["val_loss"]))
    assert metrics["top1"] == best["top1"] == pytest.approx(right.mean())
    assert metrics["epoch"] == best["epoch"] and metrics["epochs"] == 3
    assert metrics["val_loss"] == pytest.approx(loss_by_hand(logits, targets), rel=2e-3)
    assert metrics["mean_class_accuracy"] == pytest.approx(right.reshape(3, 3).mean())
    assert metrics["classes"] == [
        {"name": name, "examples": 3, "accuracy": pytest.approx(right[3 * n : 3 * n + 3].mean())}
        for n, name in enumerate(sorted(COLOURS))
    ]
    assert metrics["videos"] == {"training": 3, "validation": 9}


def test_several_labels(
    train: Train,
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Class 0 is what is not red, class 1 what is not blue; class 2 is nowhere in validation.
    labels = {0: [0], 1: [0, 1], 2: [1]}
    rows = [(file, labels[label]) for file, label in colour_rows(clips)]
    data = listed(tmp_path / "train.json", [*rows, (rows[0][0], [])])
    val = [(str(clips / "val" / n / f"{n}.mp4"), labels[i]) for i, n in enumerate(sorted(COLOURS))]
    (tmp_path / "names.txt").write_text("cold\nwarm\nnone\n")
    trained = train(
        data=data,
        val=listed(tmp_path / "val.json", val),
        labels=tmp_path / "names.txt",
        recipe=dataclasses.replace(RECIPE, epochs=20),
    )
    assert trained.metrics["map"] == 1.0 and trained.metrics["best_by"] == "map"
    assert "top1" not in trained.metrics
    assert trained.metrics["classes"] == [
        {"name": "cold", "examples": 2, "average_precision": 1.0},
        {"name": "warm", "examples": 2, "average_precision": 1.0},
        {"name": "none", "examples": 0, "average_precision": None},
    ]
    assert json.loads((trained.directory / "labels.json").read_text())["multi_label"] is True

    video = clips / "val" / "green" / "green.mp4"
    assert main(["classify", str(video), "--model", str(trained.directory), "--json"]) == 0
    found = {
        one["label"]: one["probability"] for one in json.loads(capsys.readouterr().out)["labels"]
    }
    model, processor = vp.load(trained.directory)
    logits = np.array(model(**processor(videos=[video]))[0])[0]
    expected = 1 / (1 + np.exp(-logits))
    assert found == pytest.approx(
        dict(zip(["cold", "warm", "none"], expected.tolist(), strict=True)), abs=1e-4
    )
    assert found["cold"] + found["warm"] > 1.2  # Each is on its own.


def test_without_validation_the_least_loss_is_best(
    train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "videoprism_mlx"):
        trained = train(val=None, recipe=dataclasses.replace(QUICK, epochs=5))
    assert "the epoch with the lowest training loss is best" in caplog.text
    losses = [measured["loss"] for measured in trained.history]
    assert trained.metrics["epoch"] == 1 + int(np.argmin(losses))
    assert trained.metrics["loss"] == min(losses) and trained.metrics["classes"] == []


def test_training_stops_when_nothing_gets_better(
    train: Train,
) -> None:
    trained = train(recipe=dataclasses.replace(RECIPE, epochs=60, patience=2))
    tops = [measured["top1"] for measured in trained.history]
    assert tops[-3:] == [1.0] * 3 and max(tops[:-3]) < 1
    losses = [measured["val_loss"] for measured in trained.history[-3:]]
    assert trained.metrics["epoch"] == len(tops) - 2 + int(np.argmin(losses))


def test_the_head_of_a_classifier_goes_on(
    train: Train,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = train("first")
    still = dict(recipe=Recipe(epochs=1, learning_rate=1e-30))
    caplog.clear()
    with caplog.at_level(logging.WARNING, "videoprism_mlx"):
        again = train("again", model=first.directory, **still)
    assert "fresh" not in caplog.text and "new head" not in caplog.text
    before, after = numbers_of(first.directory), numbers_of(again.directory)
    assert before.keys() == after.keys()
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array)
    with caplog.at_level(logging.WARNING, "videoprism_mlx"):
        train("other", model=first.directory, labels=["red", "blue", "green"], **still)
    assert "has other class names; the given names are used" in caplog.text


def test_names_are_those_of_the_head(train: Train, clips: Path, tmp_path: Path) -> None:
    first = train("first")
    data = listed(tmp_path / "train.json", colour_rows(clips))
    trained = train("again", model=first.directory, data=data, val=None)
    assert load_labels(trained.directory, 3) == Labels(("blue", "green", "red"))
    trained = train("fresh", data=data, val=None)
    assert load_labels(trained.directory, 3) == Labels(("class 0", "class 1", "class 2"))


def test_another_number_of_classes_gets_a_fresh_head(
    train: Train,
    converted: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    directory = converted("classifier_mild")
    with caplog.at_level(logging.WARNING, "videoprism_mlx"):
        trained = train(model=directory)
    assert "is a classifier with 7 classes; for 3 classes it gets a new head" in caplog.text
    before, after = numbers_of(directory), numbers_of(trained.directory)
    assert after["projection.linear.weight"].shape == (3, 24)
    for key in before:
        if key.startswith("encoder."):
            np.testing.assert_array_equal(after[key], before[key])
    query = "atten_pooler.pooling_attention_query"
    assert np.abs(after[query] - before[query]).max() > 0.1


def test_the_vision_tower_of_a_video_text_model(train: Train, searchable: Path) -> None:
    trained = train(model=searchable, recipe=RECIPE)
    assert trained.metrics["top1"] == 1.0
    before, after = numbers_of(searchable), numbers_of(trained.directory)
    for key in after:
        if key.startswith("encoder."):
            expected = before[key.replace("encoder.", "vision_encoder.", 1)]
            np.testing.assert_array_equal(after[key], expected)
    assert not (trained.directory / "sentencepiece.model").exists()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_encoder_of_less_precision(dtype: str, train: Train, clips: Path) -> None:
    trained = train(dtype=dtype, recipe=RECIPE)
    assert trained.metrics["top1"] == 1.0
    model, processor = vp.load(trained.directory)
    assert model.encoder.spatial_ln.weight.dtype == getattr(mx, dtype)
    assert model.projection.linear.weight.dtype == mx.float32
    logits, _ = model(**processor(videos=[clips / "val" / "red" / "red.mp4"]))
    assert np.argmax(np.array(logits)) == 2


def test_the_result_reads_videos_as_it_was_trained(train: Train, clips: Path) -> None:
    settings = dict(num_frames=2, size=24, resize="crop", resample="lanczos")
    trained = train(**settings)
    model, processor = vp.load(trained.directory)
    assert {name: getattr(processor, name) for name in settings} == settings
    assert processor_for(model).size == 18  # As it would be by the model alone.
    again = train("again", model=trained.directory)  # They are handed on.
    assert vp.load(again.directory)[1] == processor
    with pytest.raises(ValueError, match="size is 20; expected a multiple of 6"):
        train("bad", size=20)
