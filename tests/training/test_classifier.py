"""Classifiers on a frozen encoder: what is learned, what is kept, and what is refused."""

import dataclasses
import json
import logging
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import media
import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.datasets.labels import Labelled
from videoprism_mlx.errors import CheckpointError, TrainingError
from videoprism_mlx.evaluation.metrics import class_probabilities
from videoprism_mlx.features.cache import ArrayCache
from videoprism_mlx.features.processor import Processor, processor_for
from videoprism_mlx.pictures.curves import draw_curves
from videoprism_mlx.training import classifier as classification
from videoprism_mlx.training.classifier import (
    PLAIN,
    Examples,
    Features,
    Views,
    classification_loss,
    fit_head,
    train_classifier,
)
from videoprism_mlx.training.run import Recipe, Run
from videoprism_mlx.weights import directory as checkpoint
from videoprism_mlx.weights.directory import publish
from videoprism_mlx.weights.labels import Labels, load_labels

COLOURS = {"blue": (20, 30, 220), "green": (20, 200, 40), "red": (220, 30, 30)}

# Fast, and enough for the colours of clips.
RECIPE = Recipe(epochs=12, batch_size=4, learning_rate=0.02)
QUICK = dataclasses.replace(RECIPE, epochs=2)
Train = Callable[..., classification.TrainedClassifier]

OWN_FILES = ("config.json", "labels.json", "metrics.json", "model.safetensors", "processor.json")


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing takes as long as the picture of a training."""
    monkeypatch.setattr(classification, "draw_curves", lambda *arguments: None)


@pytest.fixture
def with_pictures(without_pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "draw_curves", draw_curves)


def colour_clip(path: Path, colour: tuple[int, int, int], shade: float = 1.0) -> Path:
    """A short clip that gets brighter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    level = np.linspace(0.7, 1.0, 8)[:, None, None, None] * shade
    frames = np.broadcast_to(level * np.array(colour), (8, 32, 32, 3)).astype(np.uint8)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "32x32", "-r", "8", "-i", "-"]
    encoding = ["-c:v", "mpeg4", "-q:v", "2", "-threads", "1"]
    media.ffmpeg(*raw, *encoding, path, given=frames.tobytes())
    return path


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders train and val, with a folder for each colour."""
    root = tmp_path_factory.mktemp("colours")
    for name, colour in COLOURS.items():
        for number, shade in enumerate((1.0, 0.9, 0.8)):
            colour_clip(root / "train" / name / f"{name}{number}.mp4", colour, shade)
        colour_clip(root / "val" / name / f"{name}.mp4", colour, 0.85)
    return root


@pytest.fixture
def backbone(converted: Callable[[str], Path]) -> Path:
    return converted("encoder_mild")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features for all tests that are not about them."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def train(clips: Path, backbone: Path, tmp_path: Path, shared_cache: Path) -> Train:
    """`train_classifier` on the clips."""

    def trained(output: str = "out", **options: Any) -> classification.TrainedClassifier:
        settings = dict(
            model=backbone,
            data=clips / "train",
            val=clips / "val",
            output=tmp_path / output,
            recipe=QUICK,
            cache=shared_cache,
        )
        return train_classifier(**settings | options)

    return trained


def listed(path: Path, rows: list[tuple[Any, Any]], key: str = "file") -> Path:
    path.write_text(json.dumps([{key: file, "label_idx": label} for file, label in rows]))
    return path


def colour_rows(clips: Path) -> list[tuple[str, int]]:
    """The training clips and their classes."""
    return [
        (str(path), number)
        for number, name in enumerate(sorted(COLOURS))
        for path in sorted((clips / "train" / name).iterdir())
    ]


def contents(directory: Path) -> dict[str, bytes]:
    """What a run writes, but for the picture."""
    names = [*OWN_FILES, *(f"training/{n}.safetensors" for n in ("last", "best"))]
    return {name: (directory / name).read_bytes() for name in [*names, "training/metrics.jsonl"]}


def numbers_of(directory: Path) -> dict[str, np.ndarray]:
    return load_file(directory / "model.safetensors")


# The loss.


def pooled_by_hand(head: dict[str, np.ndarray], tokens: np.ndarray, heads: int) -> np.ndarray:
    """A classifier's pooler, in float64, as its description has it."""
    prefix = "atten_pooler.pooling_attention"
    head = {name: array.astype(np.float64) for name, array in head.items()}

    def projected(name: str, inputs: np.ndarray) -> np.ndarray:
        weight, bias = head[f"{prefix}.{name}.weight"], head[f"{prefix}.{name}.bias"]
        return inputs @ weight.T + bias

    query = projected("query", head[f"{prefix}_query"]).reshape(heads, -1)
    width = query.shape[1]
    softplus = np.log1p(np.exp(head[f"{prefix}.per_dim_scale.per_dim_scale"]))
    query = query * 1.442695041 / np.sqrt(width) * softplus
    keys = projected("key", tokens).reshape(*tokens.shape[:2], heads, width)
    values = projected("value", tokens).reshape(keys.shape)
    logits = np.einsum("hd,bshd->bhs", query, keys)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    attended = np.einsum("bhs,bshd->bhd", weights, values).reshape(len(tokens), -1)
    pooled = projected("post", attended)
    centred = pooled - pooled.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    norm = f"{prefix}_layer_norm"
    return normed * head[f"{norm}.weight"] + head[f"{norm}.bias"]


def logits_by_hand(head: dict[str, np.ndarray], tokens: np.ndarray, heads: int) -> np.ndarray:
    pooled = pooled_by_hand(head, tokens.astype(np.float64), heads)
    return pooled @ head["projection.linear.weight"].T + head["projection.linear.bias"]


def loss_by_hand(logits: np.ndarray, targets: np.ndarray) -> float:
    """As Optax has it."""
    if targets.ndim == 1:
        log_sums = np.log(np.exp(logits).sum(-1))
        return float((log_sums - logits[np.arange(len(targets)), targets]).mean())
    likely = 1 / (1 + np.exp(-logits))
    return float(-(targets * np.log(likely) + (1 - targets) * np.log(1 - likely)).mean())


@pytest.mark.parametrize("several", [False, True])
def test_the_loss_by_hand(several: bool, converted: Callable[[str], Path]) -> None:
    directory = converted("classifier_mild")
    model, random = vp.load_classifier(directory), np.random.RandomState(0)
    tokens = random.randn(5, 36, 24).astype(np.float32)
    targets = (random.rand(5, 7) < 0.3).astype(np.float32) if several else random.randint(0, 7, 5)
    expected = loss_by_hand(logits_by_hand(numbers_of(directory), tokens, 4), targets)
    found = classification_loss(model, mx.array(tokens), mx.array(targets))
    assert found.dtype == mx.float32 and found.shape == ()
    assert found.item() == pytest.approx(expected, rel=1e-5)


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


# What is learned.


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
    assert json.loads((directory / "labels.json").read_text()) == {
        "labels": ["blue", "green", "red"], "multi_label": False,
    }  # fmt: skip
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
    assert "the best epoch is that of the least loss" in caplog.text
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


# Seeds, and going on.


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


class Stop(KeyboardInterrupt):
    pass


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
        patched.setattr(classification, "classification_loss", stopping)
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
from videoprism_mlx.training import classifier as classification
from videoprism_mlx.training.run import Recipe
owner, name, at = (
    (classification.ArrayCache, "store", 4),
    (classification.Run, "_keep", 5),
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
classification.train_classifier(
    {str(backbone)!r}, {str(clips / "train")!r}, {str(tmp_path / "run")!r},
    {str(clips / "val")!r}, recipe={QUICK!r}, views=2, save_every=1,
    cache={str(tmp_path / "cache")!r},
)
"""
    for stage in ("0", "1", "2"):
        command = [sys.executable, "-c", script, stage]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        with pytest.raises(CheckpointError, match="is no model directory"):
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
        "preprocessing.frames is 4 there and 2 now": dict(num_frames=2),
        "preprocessing.resize": dict(resize="crop"),
        "views.count is None there and 2 now": dict(views=2),
        "labels.names": dict(labels=names[::-1]),
        "labels.count is 3 there and 4 now": dict(labels=[*names, "d"]),
        "model.head": dict(model=converted("clip_mild")),
        "encoder.weights": dict(model=converted("clip_mild")),
        "validation.videos is 3 there and None now": dict(val=None),
        "validation.list": dict(val=listed(tmp_path / "val.json", rows[::4])),
        "training.videos is 9 there and 8 now": dict(data=listed(tmp_path / "t.json", rows[1:])),
        "training.list": dict(data=listed(tmp_path / "t.json", [*rows[1:], (rows[0][0], 1)])),
    }
    monkeypatch.setattr(Processor, "read", None)  # It is said before any video is read.
    for message, change in changes.items():
        if "data" in change:
            listed(tmp_path / "t.json", rows[1:] + ([(rows[0][0], 1)] if "list" in message else []))
        with pytest.raises(TrainingError, match=f"(?s)does not go on: .*{message}"):
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
    with pytest.raises(TrainingError, match=r"usable.training is .* there and .* now"):
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
        patched.setattr(classification, "classification_loss", breaking)
        train("run")
    assert not (tmp_path / "run" / "config.json").exists()
    assert contents(train("run").directory) == contents(train("whole").directory)


# Features.


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of videos as they are read."""
    names: list[str] = []
    original = Processor.read

    def noted(processor: Processor, video: Any, **options: Any) -> np.ndarray:
        names.append(Path(video).name)
        return original(processor, video, **options)

    monkeypatch.setattr(Processor, "read", noted)
    return names


def test_features_are_made_once(
    train: Train,
    converted: Callable[[str], Path],
    reads: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache = dict(cache=tmp_path / "cache")
    train("one", **cache)
    assert len(reads) == len(set(reads)) == 12
    # 9 videos of 4 frames of 9 patches of 24 numbers of two bytes.
    assert f"9 of 9 videos are new, and will take {9 * 4 * 9 * 24 * 2 / 1e6:.1f} MB" in (
        capsys.readouterr().err
    )
    reads.clear()
    train("two", **cache, recipe=dataclasses.replace(QUICK, seed=1, epochs=1))
    train(  # The encoder of the result is the same.
        "three", **cache, model=tmp_path / "one", val=None
    )
    assert reads == [] and "are new" not in capsys.readouterr().err

    train("other model", **cache, model=converted("clip_mild"), val=None)
    assert len(reads) == 9
    reads.clear()
    train("other frames", **cache, num_frames=2, val=None)
    assert len(reads) == 9
    reads.clear()
    train("other type", **cache, dtype="bfloat16", val=None)
    assert len(reads) == 9
    reads.clear()
    train("views", **cache, views=3)
    assert len(reads) == 27
    reads.clear()
    train("other views", **cache, views=3, crop=0.5)
    assert len(reads) == 27


def test_features_are_kept_with_the_models(
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "kept"))
    train(cache=None)
    assert len(list((tmp_path / "kept" / "features").rglob("*.npy"))) == 12


def features_of(directory: Path, root: Path, **settings: Any) -> Features:
    model, processor = vp.load(directory)
    return Features(root, model, dataclasses.replace(processor, **settings))


def test_kept_features_are_the_encoders(backbone: Path, clips: Path, tmp_path: Path) -> None:
    features = features_of(backbone, tmp_path)
    videos = tuple((clips / "train" / "red").iterdir())
    listed = Labelled(videos, ((0,), (1,), (1,)), False, None)
    examples, _ = features.of(listed, 2, Views(3, crop=0.5, span=0.5), "features")
    model, processor = vp.load(backbone)
    for path, video in zip(examples.paths, videos, strict=True):
        kept = np.load(path)
        assert kept.shape == (3, 36, 24) and kept.dtype == np.float16
        expected = np.array(model(**processor(videos=[video]))[0][0])
        np.testing.assert_allclose(kept[0], expected, atol=2e-3)  # The first is the plain one.
        assert np.abs(kept[1] - kept[0]).max() > 0.05 and np.abs(kept[2] - kept[1]).max() > 0.05
    tokens, targets = examples.batch(np.array([2, 0]), np.array([1, 2]))
    assert tokens.dtype == mx.float32 and targets.tolist() == [1, 0]
    expected = [np.load(examples.paths[row])[view] for row, view in ((2, 1), (0, 2))]
    np.testing.assert_array_equal(np.array(tokens), np.array(expected, np.float32))


def test_views_show_a_span_of_the_video(backbone: Path, tmp_path: Path) -> None:
    features = features_of(backbone, tmp_path, num_frames=8, size=96)
    views = Views(12, crop=1.0, span=0.4)
    spans = []
    for clip in features.read(media.clip("b.mp4"), views)[1:]:
        numbers = [media.number(frame) for frame in clip]
        steps = np.diff(numbers)
        assert (steps >= 4).all() and np.ptp(steps) <= 1  # Evenly, over 40 of 100 or more.
        spans.append((numbers[0], numbers[-1] + int(steps.max())))
    lengths = [end - start for start, end in spans]
    assert min(start for start, _ in spans) >= 0 and max(end for _, end in spans) <= 102
    assert min(lengths) >= 32 and max(lengths) - min(lengths) > 15
    assert len({start for start, _ in spans}) > 6


def test_views_show_a_square_of_the_frames(backbone: Path, tmp_path: Path) -> None:
    """Of frames that are brighter to the right and greener to the bottom."""
    ramp = np.linspace(0, 255, 96)
    image = np.zeros((96, 96, 3))
    image[..., 0], image[..., 1] = ramp[None], ramp[:, None]
    path = tmp_path / "ramp.mkv"
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "96x96", "-r", "8", "-i", "-"]
    pixels = np.repeat(image[None].astype(np.uint8), 4, axis=0)
    media.ffmpeg(*raw, "-c:v", "ffv1", "-pix_fmt", "gbrp", path, given=pixels.tobytes())
    features = features_of(backbone, tmp_path, size=48)
    plain, *others = features.read(path, Views(9, crop=0.5, span=1.0))
    assert np.ptp(plain[..., 0]) > 0.95
    corners = []
    for clip in others:
        assert clip.shape == plain.shape
        np.testing.assert_array_equal(clip[0], clip[-1])  # All frames alike.
        across, down = (np.ptp(clip[0, ..., channel]) for channel in (0, 1))
        assert 0.46 < across < 1 and across == pytest.approx(down, abs=0.03)
        corners.append((clip[0, 0, 0, 0], clip[0, 0, 0, 1]))
        assert corners[-1][0] + across <= 1.001 and corners[-1][1] + down <= 1.001
    assert np.ptp(np.array(corners), axis=0).min() > 0.1


def test_views_follow_the_seed_and_the_name(backbone: Path, clips: Path, tmp_path: Path) -> None:
    features = features_of(backbone, tmp_path)
    video = media.clip("b.mp4")
    elsewhere = tmp_path / "moved" / video.parent.name
    elsewhere.mkdir(parents=True)
    copy = Path(shutil.copy(video, elsewhere / "b.mp4"))
    other = Path(shutil.copy(video, tmp_path / "other.mp4"))
    one, same, fewer = (features.read(v, Views(n)) for v, n in ((video, 3), (copy, 3), (copy, 2)))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(one[:2], fewer)
    for different in (features.read(other, Views(3)), features.read(video, Views(3, seed=1))):
        np.testing.assert_array_equal(one[0], different[0])
        assert np.abs(one[1] - different[1]).max() > 0.05
        assert np.abs(one[2] - different[2]).max() > 0.05


@pytest.mark.parametrize("name", ["one.mp4", "two.mp4", "raw.h264", "hidden.webm", "uneven.mkv"])
def test_views_of_odd_videos(name: str, backbone: Path, tmp_path: Path) -> None:
    features = features_of(backbone, tmp_path)
    clips = features.read(media.clip(name), Views(8, span=0.1))
    assert {clip.shape for clip in clips} == {(4, 18, 18, 3)}


def test_views_of_images(backbone: Path, clips: Path, tmp_path: Path) -> None:
    from PIL import Image

    images = []
    for number in range(3):
        images.append(tmp_path / f"{number}.png")
        Image.new("RGB", (20, 20), (80 * number, 0, 0)).save(images[-1])
    features = features_of(backbone, tmp_path)
    for video in (tuple(images), tuple(images[:1]), images[0], tmp_path):
        assert len(features.read(video, Views(4, span=0.3))) == 4


def test_frames_at_a_rate(backbone: Path, tmp_path: Path) -> None:
    features = features_of(backbone, tmp_path, fps=5.0, size=96)
    firsts = set()
    for clip in features.read(media.clip("b.mp4"), Views(8, crop=1.0)):
        numbers = [media.number(frame) for frame in clip]
        assert np.diff(numbers).tolist() == pytest.approx([6, 6, 6], abs=1)  # 30 are shown.
        firsts.add(numbers[0])
    assert 0 in firsts and len(firsts) > 4 and max(firsts) > 40
    slow = features_of(backbone, tmp_path, fps=0.5)
    with pytest.raises(vp.VideoError, match=r"has 2 frames at 0.5 a second; expected 4"):
        slow.read(media.clip("b.mp4"), PLAIN)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(count=0), "views is 0; expected 1 or more"),
        (dict(crop=0), "crop is 0; expected a share, up to 1"),
        (dict(span=1.5), "span is 1.5"),
        (dict(span=math.nan), "span is nan"),
    ],
)
def test_bad_views(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Views(**settings)


def kept_examples(root: Path, count: int, views: int = 1, classes: int = 2) -> Examples:
    """Features of nothing: a class has its own direction, and the first number is the view's."""
    random = np.random.RandomState(0)
    directions = random.randn(classes, 24)
    cache = ArrayCache(root, {"test": [count, views]})
    targets = np.arange(count) % classes
    paths = []
    for number, target in enumerate(targets):
        paths.append(cache.folder / f"{number}.npy")
        tokens = random.randn(views, 36, 24) * 0.3 + directions[target]
        tokens[..., 0] = np.arange(views)[:, None]
        cache.store(paths[-1], tokens.astype(np.float16))
    labels = tuple((int(target),) for target in targets)
    return Examples(cache, tuple(paths), labels, targets)


def test_an_epoch_takes_a_view_of_each_video(
    converted: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = kept_examples(tmp_path, 20, views=3)
    seen: list[list[int]] = []
    original = Examples.batch

    def noted(self: Examples, rows: np.ndarray, views: np.ndarray) -> Any:
        tokens, targets = original(self, rows, views)
        seen.append(np.array(tokens)[:, 0, 0].astype(int).tolist())
        return tokens, targets

    monkeypatch.setattr(Examples, "batch", noted)
    recipe = Recipe(epochs=3, batch_size=20, learning_rate=1e-3)
    model = vp.load_classifier(converted("encoder_mild"), 2)
    fit_head(model, Run(tmp_path / "run", recipe, {}, "top1"), examples, examples, views=3)
    training, validation = seen[::2], seen[1::2]
    assert validation == [[0] * 20] * 3
    assert all(set(epoch) == {0, 1, 2} for epoch in training)
    assert len({tuple(epoch) for epoch in training}) == 3


def test_what_can_be_told_apart_is_learned(
    converted: Callable[[str], Path], tmp_path: Path
) -> None:
    examples = kept_examples(tmp_path, 40, classes=8)
    recipe = Recipe(epochs=30, batch_size=16, learning_rate=1e-2, decay="cosine", warmup=5)
    model = vp.load_classifier(converted("encoder_mild"), 8)
    history = fit_head(model, Run(tmp_path / "run", recipe, {}, "top1"), examples, examples)
    assert history[0]["top1"] < 0.9
    best = max(history, key=lambda measured: measured["top1"])
    assert best["top1"] == best["top5"] == best["mean_class_accuracy"] == 1.0


# Where training starts.


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
    assert "fresh" not in caplog.text
    before, after = numbers_of(first.directory), numbers_of(again.directory)
    assert before.keys() == after.keys()
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array)
    with caplog.at_level(logging.WARNING, "videoprism_mlx"):
        train("other", model=first.directory, labels=["red", "blue", "green"], **still)
    assert "which is trained on, is one of other classes" in caplog.text


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
    assert "is a classifier of 7 classes; of 3, its head is a fresh one" in caplog.text
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


# What is refused.


def test_labels_out_of_range(train: Train, clips: Path, tmp_path: Path) -> None:
    rows = colour_rows(clips)
    data = listed(tmp_path / "train.json", [*rows, (rows[0][0], 3)])
    with pytest.raises(ValueError, match=r"train.json, entry 10: label_idx is 3; expected 0 to 2"):
        train(data=data, labels=["a", "b", "c"])
    val = listed(tmp_path / "val.json", [(rows[0][0], 7)])
    with pytest.raises(ValueError, match=r"val.json, entry 1: label_idx is 7; expected 0 to 2"):
        train(val=val)
    assert not (tmp_path / "out").exists()


def test_lists_of_two_kinds(train: Train, clips: Path, tmp_path: Path) -> None:
    rows = colour_rows(clips)
    data = listed(tmp_path / "train.json", [(file, [label]) for file, label in rows])
    val = listed(tmp_path / "val.json", rows)
    with pytest.raises(ValueError, match=r"a list of classes in .*train.json and one class in"):
        train(data=data, val=val)
    with pytest.raises(ValueError, match=r"have numbers and those of .* names; say with labels"):
        train(data=listed(tmp_path / "x.json", rows))
    nothing = listed(tmp_path / "nothing.json", [(rows[0][0], [])])
    with pytest.raises(ValueError, match=r"no video of .*nothing.json has a label"):
        train(data=data, val=nothing)


@pytest.mark.parametrize("label", [0, [0], [], [0, 1]])
def test_one_class_alone(label: Any, train: Train, clips: Path, tmp_path: Path) -> None:
    data = listed(tmp_path / "train.json", [(file, label) for file, _ in colour_rows(clips)])
    with pytest.raises(ValueError, match="all 9 videos to train on have the same label"):
        train(data=data, val=None)


def test_classes_without_a_video_are_named(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "videoprism_mlx"):
        train(labels=["blue", "puce", "green", "red", "mauve"])
    assert "2 of 5 classes have no video to train on, and will not be found: puce, mauve" in (
        caplog.text
    )


def test_validating_on_what_is_trained_on_is_told(
    train: Train,
    clips: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "videoprism_mlx"):
        train(val=clips / "train")
    assert "9 of 9 videos to validate on are trained on as well" in caplog.text


@pytest.fixture
def with_bad(clips: Path, tmp_path: Path) -> dict[str, Path]:
    """A list of which three cannot be used, and one to validate on of which one cannot."""
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    bad = [("empty.mp4", 0), ("text.mp4", 3), ("gone.mp4", 1)]
    rows = colour_rows(clips)
    return {
        "data": listed(tmp_path / "train.json", [*rows[:4], *bad, *rows[4:]]),
        "val": listed(tmp_path / "val.json", [*rows[::4], ("empty.mp4", 0)]),
    }


def test_bad_videos_are_all_named(
    train: Train,
    with_bad: dict[str, Path],
    tmp_path: Path,
    reads: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = dict(**with_bad, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"4 of 16 videos cannot be used.*--skip-bad"):
        train(**options)
    said = capsys.readouterr().err
    for name, why in (("empty", "is empty"), ("text", "is text"), ("gone", "No such file")):
        assert any(f"{name}.mp4" in line and why in line for line in said.splitlines())
    assert not (tmp_path / "out").exists()
    reads.clear()
    with pytest.raises(ValueError, match="4 of 16"):
        train(**options)
    assert set(reads) == {"empty.mp4", "text.mp4"}  # The others are kept.


def test_bad_videos_can_be_left_out(
    train: Train,
    with_bad: dict[str, Path],
    clips: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "videoprism_mlx"):
        trained = train("out", **with_bad, skip_bad=True)
    assert len(trained.skipped) == 4 and trained.metrics["skipped"] == trained.skipped
    assert trained.metrics["videos"] == {"training": 9, "validation": 3}
    # The one video of class 3 is among them.
    assert "1 of 4 classes have no video to train on, and will not be found: class 3" in caplog.text
    rows = colour_rows(clips)
    good = train(
        "good",
        data=listed(tmp_path / "good.json", rows),
        val=listed(tmp_path / "good_val.json", rows[::4]),
        labels=[f"class {number}" for number in range(4)],
    )
    before, after = (contents(one.directory)["model.safetensors"] for one in (trained, good))
    assert before == after

    colour_clip(tmp_path / "empty.mp4", COLOURS["blue"])  # Mended, it would be another run.
    with pytest.raises(TrainingError, match=r"usable.training is"):
        train("out", **with_bad, skip_bad=True)


def test_no_video_that_can_be_used(train: Train, tmp_path: Path) -> None:
    data = listed(tmp_path / "train.json", [("gone.mp4", 0), ("lost.mp4", 1)])
    with pytest.raises(ValueError, match="none of 2 videos can be used"):
        train(data=data, val=None, skip_bad=True)


def test_too_little_is_left(train: Train, clips: Path, tmp_path: Path) -> None:
    rows = [*colour_rows(clips)[:3], ("gone.mp4", 1)]
    with pytest.raises(ValueError, match="all 3 videos to train on have the same label"):
        train(data=listed(tmp_path / "train.json", rows), val=None, skip_bad=True)


def test_an_output_that_holds_something_else(train: Train, backbone: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all I have")
    with pytest.raises(ValueError, match=r"something else than a run, such as thesis.txt"):
        train("mine")
    before = contents_of_model(backbone)
    with pytest.raises(ValueError, match=r"something else than a run"):
        train(output=backbone)
    assert contents_of_model(backbone) == before


def contents_of_model(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_features_that_are_no_numbers(train: Train, backbone: Path, tmp_path: Path) -> None:
    model = vp.load_model(backbone)
    model.temporal_ln.weight = mx.full(24, 1e30)
    vp.save_model(model, tmp_path / "wild")
    with pytest.raises(ValueError, match="the encoder makes NaN or infinity of a video"):
        train(model=tmp_path / "wild")


def test_without_matplotlib_the_training_ends_well(
    train: Train,
    with_pictures: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    trained = train()
    assert "pip install 'videoprism_mlx[pictures]'" in caplog.text
    assert not (trained.directory / "training" / "curves.png").exists()


# The directory.


def test_what_is_published_replaces_what_was(backbone: Path, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    (directory / "training").mkdir(parents=True)
    (directory / "training" / "state").write_text("kept")
    model = vp.load_model(backbone)
    publish(model, directory, {"labels.json": "one"}, source={"from": "here"})
    assert numbers_of(directory).keys() == numbers_of(backbone).keys()
    model.spatial_ln.weight = mx.zeros(24)
    publish(model, directory, {"labels.json": "two"})
    assert (directory / "labels.json").read_text() == "two"
    assert not numbers_of(directory)["spatial_ln.weight"].any()
    assert "source" not in json.loads((directory / "config.json").read_text())
    assert (directory / "training" / "state").read_text() == "kept"
    names = {path.name for path in directory.iterdir()}
    assert names == {"config.json", "model.safetensors", "labels.json", "training"}


def test_what_cannot_be_published_leaves_what_was(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = vp.load_model(backbone)
    publish(model, tmp_path / "out", {"labels.json": "one"})
    before = contents_of_model(tmp_path / "out")

    def full(*arguments: Any) -> None:
        raise RuntimeError("[write] Unable to write")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="make room"):
        patched.setattr(mx, "save_safetensors", full)
        publish(model, tmp_path / "out", {"labels.json": "two"})
    assert contents_of_model(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("{", "labels.json does not name classes"),
        ("[]", "labels.json does not name classes"),
        ('{"labels": ["a", "b"]}', "does not name classes: 'multi_label'"),
        ('{"labels": ["a", 2], "multi_label": false}', "the name of class 1 is 2"),
        ('{"labels": ["a", "b"], "multi_label": false}', "names 2 classes; the model has 3"),
    ],
)
def test_labels_that_are_damaged(labels: str, message: str, tmp_path: Path) -> None:
    assert load_labels(tmp_path, 2) == Labels(("class 0", "class 1"))
    (tmp_path / "labels.json").write_text(labels)
    with pytest.raises(CheckpointError, match=message):
        load_labels(tmp_path, 3)


def test_probabilities() -> None:
    logits = np.array([[1.0, -2.0, 800.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(
        class_probabilities(logits, True), [[0.731059, 0.119203, 1], [0.5, 0.5, 0.5]], atol=1e-6
    )
    np.testing.assert_allclose(class_probabilities(logits, False)[1], [1 / 3] * 3)
    halved = class_probabilities(logits, True, temperature=2)
    assert halved[0, 0] == pytest.approx(1 / (1 + math.exp(-0.5)))
    with pytest.raises(ValueError, match="temperature is 0"):
        class_probabilities(logits, True, temperature=0)


# The command.


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def command(clips: Path, backbone: Path, tmp_path: Path, shared_cache: Path) -> list[object]:
    where = ["--data", clips / "train", "--val", clips / "val", "-o", tmp_path / "out"]
    return ["train", "classifier", *where, "--model", backbone, "--cache", shared_cache]


def test_the_command(
    command: list[object],
    train: Train,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    how = ["--epochs", 12, "--batch-size", 4, "--learning-rate", 0.02]
    assert run(*command, *how) == 0
    printed = capsys.readouterr()
    assert printed.out == (
        "class  examples  accuracy\n"
        "blue          1    100.0%\n"
        "green         1    100.0%\n"
        "red           1    100.0%\n"
        "top1                 100.0%\n"
        "top5                 100.0%\n"
        "mean class accuracy  100.0%\n"
        f"loss                {printed.out.split('loss')[1].split()[0]:>7}\n"
        f"{printed.out.splitlines()[-1]}\n"
    )
    assert printed.out.splitlines()[-1].startswith(f"{tmp_path / 'out'}: epoch ")
    assert "epoch 12: loss " in printed.err
    assert contents(tmp_path / "out") == contents(train("same", recipe=RECIPE).directory)

    assert run(*command, *how, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "output": str(tmp_path / "out"),
        **json.loads((tmp_path / "out" / "metrics.json").read_text()),
    }
    assert run(*command, *how, "--seed", 1) == 2
    assert "recipe.seed is 0 there and 1 now" in capsys.readouterr().err


def test_options_mean_what_they_say(
    command: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def noted(*arguments: Any, **options: Any) -> classification.TrainedClassifier:
        calls.append((arguments, options))
        metrics = {"classes": [], "loss": 1.0, "epoch": 1}
        return classification.TrainedClassifier(tmp_path, metrics, (), ["a line"])

    monkeypatch.setattr(classification, "train_classifier", noted)
    assert run(*command) == 1  # A video was left out.
    (_, plain), _ = calls[0], calls.clear()
    assert plain["recipe"] == Recipe() == classification.OFFICIAL_RECIPE
    assert (plain["views"], plain["skip_bad"], plain["partial"]) == (1, False, False)
    assert not {"crop", "span"} & plain.keys()
    assert PLAIN.crop == PLAIN.span == 0.75  # As the help says.
    run(
        *command,
        *("--labels", tmp_path / "l.txt", "--dtype", "bfloat16", "--frames", 8, "--size", 24),
        *("--resize", "crop", "--resample", "lanczos", "--partial", "--skip-bad"),
        *("--views", 4, "--crop", 0.5, "--span", 0.25, "--epochs", 3, "--batch-size", 5),
        *("--learning-rate", 0.5, "--weight-decay", 0.25, "--warmup", 7, "--decay", "cosine"),
        *("--clip", 2.0, "--patience", 6, "--seed", 9, "--save-every", 11),
    )
    [(_, said)] = calls
    assert said.pop("recipe") == Recipe(3, 5, 0.5, 0.25, 7, "cosine", 2.0, 6, 9)
    assert said.pop("cache") is not None
    assert said == dict(
        labels=tmp_path / "l.txt", dtype="bfloat16", num_frames=8, size=24, resize="crop",
        resample="lanczos", partial=True, skip_bad=True, views=4, crop=0.5, span=0.25,
        save_every=11,
    )  # fmt: skip


def test_a_command_that_leaves_videos_out(
    command: list[object],
    with_bad: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [*command, "--data", with_bad["data"], "--val", with_bad["val"], "--epochs", 1]
    assert run(*arguments) == 2
    assert "4 of 16 videos cannot be used" in capsys.readouterr().err
    assert run(*arguments, "--skip-bad") == 1
    assert capsys.readouterr().err.endswith("4 videos were left out\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--crop", "0.5"], "--crop is about further versions; say with --views how many"),
        (["--views", "0"], "views is 0; expected 1 or more"),
        (["--epochs", "0"], "epochs is 0; expected 1 or more"),
        (["--labels", "gone.txt"], "gone.txt"),
        (["--data", "gone.json"], "gone.json"),
        (["--model", "gone"], "no model is called 'gone'"),
        (["--dtype", "int8"], "dtype is 'int8'"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], message: str, command: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, *arguments) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("videoprism-mlx: ") and message in said.err
    assert said.out == ""


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom videoprism_mlx.cli import main\n"
        "try: main(['train', 'classifier', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'mlx', 'numpy', 'cv2', 'safetensors', 'matplotlib'} & set(sys.modules)\n"
        "print(heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "set()" and "--patience" in done.stdout
