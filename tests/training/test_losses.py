"""The losses by hand, and the gradients of a batch that goes through the model in parts."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from coloured_clips import logits_by_hand, loss_by_hand, numbers_of
from mlx.utils import tree_flatten, tree_unflatten

import videoprism_mlx as vp
from videoprism_mlx.training.losses import (
    classification_loss,
    contrastive_gradients,
    contrastive_loss,
)
from videoprism_mlx.training.retrieval import START_TEMPERATURE, Tuning, prepare
from videoprism_mlx.training.state import Parameters, as_float32

RANDOM = np.random.RandomState(3)


@pytest.mark.parametrize("several", [False, True])
def test_the_classification_loss_by_hand(several: bool, converted: Callable[[str], Path]) -> None:
    directory = converted("classifier_mild")
    model, random = vp.load_classifier(directory), np.random.RandomState(0)
    tokens = random.randn(5, 36, 24).astype(np.float32)
    targets = (random.rand(5, 7) < 0.3).astype(np.float32) if several else random.randint(0, 7, 5)
    expected = loss_by_hand(logits_by_hand(numbers_of(directory), tokens, 4), targets)
    found = classification_loss(model, mx.array(tokens), mx.array(targets))
    assert found.dtype == mx.float32 and found.shape == ()
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_contrastive_loss_by_hand() -> None:
    videos, texts = (RANDOM.randn(5, 4).astype(np.float32) for _ in range(2))
    log_scale = 1.3
    logits = np.exp(log_scale) * videos.astype(np.float64) @ texts.T.astype(np.float64)

    def one_way(logits: np.ndarray) -> float:
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return -np.log(np.diag(chances)).mean()

    expected = (one_way(logits) + one_way(logits.T)) / 2
    ours = contrastive_loss(mx.array(videos), mx.array(texts), mx.array(log_scale))
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def batch(count: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    clips = RANDOM.randint(0, 256, (count, 4, 18, 18, 3)).astype(np.uint8)
    ids = RANDOM.randint(3, 40, (count, 7))
    paddings = (np.arange(7) >= RANDOM.randint(2, 8, (count, 1))).astype(np.float32)
    return clips, ids, paddings


def parameters_of(model: Any) -> Parameters:
    return {
        "model": as_float32(model.trainable_parameters()),
        "log_scale": mx.array(-np.log(START_TEMPERATURE), mx.float32),
    }


@pytest.mark.parametrize("tuning", [Tuning(), Tuning(recompute=True), Tuning(rank=2)])
def test_the_batch_may_go_through_the_model_in_parts(searchable: Path, tuning: Tuning) -> None:
    model = vp.load_model(searchable)
    prepare(model, tuning, seed=0)
    parameters, arrays = parameters_of(model), batch()
    if tuning.rank:  # As they start, one half of the adapters has no gradient.
        flat = tree_flatten(parameters["model"])
        random = [
            (key, mx.array(0.1 * RANDOM.randn(*each.shape), mx.float32)) for key, each in flat
        ]
        parameters["model"] = tree_unflatten(random)
    loss, whole = contrastive_gradients(model, parameters, *arrays, at_once=5)
    for at_once in (1, 2, 3):
        again, parts = contrastive_gradients(model, parameters, *arrays, at_once=at_once)
        assert again.item() == pytest.approx(loss.item(), rel=1e-6)
        expected = dict(tree_flatten(whole))
        largest = max(mx.abs(each).max().item() for each in expected.values())
        assert dict(tree_flatten(parts)).keys() == expected.keys()
        for name, each in tree_flatten(parts):
            np.testing.assert_allclose(
                np.array(each), np.array(expected[name]), atol=1e-5 * largest, err_msg=name
            )
    for name, each in tree_flatten(model.trainable_parameters()):
        assert each.tolist() == dict(tree_flatten(parameters["model"]))[name].tolist()


def test_recomputing_changes_nothing(searchable: Path) -> None:
    arrays = batch()
    results = []
    for recompute in (False, True):
        model = vp.load_model(searchable)
        prepare(model, Tuning(recompute=recompute), seed=0)
        results.append(contrastive_gradients(model, parameters_of(model), *arrays, at_once=5))
    assert results[0][0].item() == results[1][0].item()
    for (name, one), (_, other) in zip(*(tree_flatten(each) for _, each in results), strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-7, err_msg=name)


def test_bfloat16_computes_nearly_the_same(searchable: Path) -> None:
    model = vp.load_model(searchable)
    parameters, arrays = parameters_of(model), batch()
    loss, gradients = contrastive_gradients(model, parameters, *arrays, at_once=2)
    rough, rounded = contrastive_gradients(model, parameters, *arrays, at_once=2, dtype=mx.bfloat16)
    assert rough.item() == pytest.approx(loss.item(), rel=0.05)
    one, other = (
        np.concatenate([np.array(each).ravel() for _, each in tree_flatten(tree["model"])])
        for tree in (gradients, rounded)
    )
    assert all(each.dtype == mx.float32 for _, each in tree_flatten(rounded))
    assert one @ other > 0.97 * np.linalg.norm(one) * np.linalg.norm(other)


@pytest.mark.slow
def test_memory_is_that_of_the_pairs_at_once() -> None:
    config = vp.models.get_config("videoprism_lvt_demo_tiny")
    model = vp.get_model(config)
    parameters = parameters_of(model)
    clips = RANDOM.randint(0, 256, (64, 8, 64, 64, 3)).astype(np.uint8)
    ids, paddings = RANDOM.randint(3, 40, (64, 8)), np.zeros((64, 8), np.float32)

    def peak(count: int, at_once: int) -> int:
        gc.collect()
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()  # Other tests may have left something.
        batch = clips[:count], ids[:count], paddings[:count]
        mx.eval(contrastive_gradients(model, parameters, *batch, at_once))
        return mx.get_peak_memory() - before

    peak(4, 4)  # What comes once.
    assert peak(64, 4) < 1.3 * peak(8, 4)
    assert peak(64, 64) > 3 * peak(64, 4)
