"""The cached features that a classifier is trained on."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from coloured_clips import (
    QUICK,
    Train,
)

import videoprism_mlx as vp
from videoprism_mlx.datasets.labels import Labelled
from videoprism_mlx.features.cache import ArrayCache
from videoprism_mlx.training.classifier import HeadLearner
from videoprism_mlx.training.examples import Examples, Features
from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.training.run import Run
from videoprism_mlx.training.views import Views

pytest_plugins = ["classifier_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")


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


def test_kept_features_are_the_encoders(backbone: Path, clips: Path, tmp_path: Path) -> None:
    encoder, processor = vp.load(backbone)
    features = Features(tmp_path, encoder, processor)
    videos = tuple((clips / "train" / "red").iterdir())
    listed = Labelled(videos, ((0,), (1,), (1,)), False, None)
    views = Views(3, crop=0.5, span=0.5)
    paths, _ = features.fill(listed.videos, views, "features")
    examples = Examples.of(features.cache(views), listed, paths, 2)
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
    run = Run(tmp_path / "run", recipe, {}, "top1")
    run.fit(HeadLearner(model, examples, examples, views=3, batch_size=20))
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
    run = Run(tmp_path / "run", recipe, {}, "top1")
    _, history = run.fit(HeadLearner(model, examples, examples, batch_size=16))
    assert history[0]["top1"] < 0.9
    best = max(history, key=lambda measured: measured["top1"])
    assert best["top1"] == best["top5"] == best["mean_class_accuracy"] == 1.0
