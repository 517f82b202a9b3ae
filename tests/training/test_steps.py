"""A step of several ranks is the step of one with the whole batch."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from rank_threads import each_rank

import videoprism_mlx as vp
from videoprism_mlx.ranks.group import Group
from videoprism_mlx.ranks.joining import using
from videoprism_mlx.training.losses import contrastive_gradients
from videoprism_mlx.training.retrieval import START_TEMPERATURE, Tuning, prepare
from videoprism_mlx.training.state import Parameters, as_float32

# The batch is divisible by the ranks, or not, or smaller.
BATCHES = [(2, 6), (2, 5), (3, 5), (3, 2)]


def batch(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.RandomState(3)
    clips = random.randint(0, 256, (count, 4, 18, 18, 3)).astype(np.uint8)
    ids = random.randint(3, 40, (count, 7))
    paddings = (np.arange(7) >= random.randint(2, 8, (count, 1))).astype(np.float32)
    return clips, ids, paddings


def step(
    directory: Path, tuning: Tuning, count: int, dtype: mx.Dtype = mx.float32
) -> tuple[mx.array, Parameters]:
    """The loss and the gradients of a batch, with a model of its own."""
    model = vp.load_model(directory)
    prepare(model, tuning, seed=0)
    trained: Any = as_float32(model.trainable_parameters())
    if tuning.rank:  # As they start, one half of the adapters has no gradient.
        random = np.random.RandomState(1)
        flat = [(key, mx.array(0.1 * random.randn(*a.shape))) for key, a in tree_flatten(trained)]
        trained = as_float32(tree_unflatten(flat))
    parameters = {"model": trained, "log_scale": mx.array(-np.log(START_TEMPERATURE), mx.float32)}
    arrays = batch(count)
    found = contrastive_gradients(model, parameters, *arrays, tuning.micro_batch_size, dtype)
    for name, each in tree_flatten(model.trainable_parameters()):
        assert each.tolist() == dict(tree_flatten(trained))[name].tolist()
    return found


def require_equal(
    found: tuple[mx.array, Parameters], expected: tuple[mx.array, Parameters], relative: float
) -> None:
    """Gradients are compared beside the largest one, below which float32 has no digits."""
    assert found[0].item() == pytest.approx(expected[0].item(), rel=relative / 10)
    there = dict(tree_flatten(expected[1]))
    assert dict(tree_flatten(found[1])).keys() == there.keys()
    largest = max(mx.abs(each).max().item() for each in there.values())
    for name, each in tree_flatten(found[1]):
        expect, gap = np.array(there[name]), np.array(each) - np.array(there[name])
        assert np.linalg.norm(gap) <= relative * np.linalg.norm(expect) + 1e-6 * largest, name


@pytest.mark.parametrize("at_once", [8, 2])
@pytest.mark.parametrize(("size", "count"), BATCHES)
def test_contrastive_steps(searchable: Path, size: int, count: int, at_once: int) -> None:
    tuning = Tuning(micro_batch_size=at_once)
    expected = step(searchable, Tuning(), count)
    found = each_rank(size, lambda group: step(searchable, tuning, count))
    for each in found:
        require_equal(each, expected, 1e-4)
        for (_, one), (_, first) in zip(tree_flatten(each), tree_flatten(found[0]), strict=True):
            assert one.tolist() == first.tolist()  # All ranks have the same bits.


@pytest.mark.parametrize(
    "tuning",
    [
        Tuning(rank=2),
        Tuning(towers=("text",)),
        Tuning(towers=("video",), micro_batch_size=1),
        Tuning(grad_checkpoint=True, micro_batch_size=1),
    ],
)
def test_contrastive_steps_of_each_kind(searchable: Path, tuning: Tuning) -> None:
    expected = step(searchable, tuning, 5)
    for each in each_rank(2, lambda group: step(searchable, tuning, 5)):
        require_equal(each, expected, 1e-4)


def test_contrastive_steps_in_bfloat16(searchable: Path) -> None:
    """The model rounds more coarsely: the loss to 1 % and gradients to 10 %."""
    expected = step(searchable, Tuning(), 5, mx.bfloat16)
    for each in each_rank(3, lambda group: step(searchable, Tuning(), 5, mx.bfloat16)):
        require_equal(each, expected, 0.1)


class Echo(Group):
    """The first of two ranks, whose other one sends the same."""

    def all_sum(self, vector: mx.array) -> mx.array:
        mx.eval(vector)
        return vector + vector

    def all_gather(self, vector: mx.array) -> mx.array:
        return mx.concatenate([vector, vector])


def test_a_rank_takes_no_more_memory_than_one_process(searchable: Path) -> None:
    peaks = []
    for group, count in ((Group(), 32), (Echo(0, 2), 64)):
        with using(group):
            mx.reset_peak_memory()
            mx.eval(step(searchable, Tuning(micro_batch_size=32), count))
            peaks.append(mx.get_peak_memory())
    assert peaks[1] < 1.2 * peaks[0]


def test_a_step_takes_few_collectives(searchable: Path) -> None:
    """Rows are gathered with their header, and all gradients are one vector."""

    def counted(group: Group) -> int:
        step(searchable, Tuning(micro_batch_size=1), 5)
        return group.collectives  # type: ignore[attr-defined]

    assert each_rank(2, counted) == [3, 3]
