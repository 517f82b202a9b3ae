"""What ranks exchange, and how they share work."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from rank_threads import each_rank

from videoprism_mlx.ranks import group as groups
from videoprism_mlx.ranks.group import ALONE, Group

SIZES = (2, 3, 5)


def tree_of(rank: int) -> dict[str, object]:
    random = np.random.RandomState(rank)
    return {
        "z": mx.array(random.randn(3, 2), mx.float32),
        "a": [mx.array(random.randn(), mx.float32), mx.array(random.randn(40), mx.float32)],
        "m": {"step": mx.array(rank + 2**40, mx.uint64), "half": mx.array([rank], mx.bfloat16)},
    }


def flat(tree: object) -> dict[str, object]:
    return {name: each.tolist() for name, each in tree_flatten(tree)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 64])
def test_shares_are_in_order_and_nearly_equal(count: int, size: int) -> None:
    shares = [list(range(count))[Group(rank, size).share(count)] for rank in range(size)]
    assert [number for share in shares for number in share] == list(range(count))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1 and lengths[0] == max(lengths)


@pytest.mark.parametrize("piece", [8, 1 << 20])
@pytest.mark.parametrize("size", SIZES)
def test_sums_of_trees(size: int, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "PIECE", piece)
    trees = {rank: {key: tree_of(rank)[key] for key in ("z", "a")} for rank in range(size)}
    found = each_rank(size, lambda group: group.sum(trees[group.rank]))
    every = [dict(tree_flatten(tree)) for tree in trees.values()]
    for result in found:
        assert list(result) == ["z", "a"]  # The order of the tree, on which sums over it depend.
        for name, array in tree_flatten(result):
            expected = np.sum([np.array(each[name], np.float64) for each in every], axis=0)
            np.testing.assert_allclose(np.array(array), expected, atol=1e-6)
        assert flat(result) == flat(found[0])


@pytest.mark.parametrize("piece", [8, 1 << 20])
def test_copies_have_the_bits_of_the_first(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "PIECE", piece)
    odd = mx.array([-0.0, float("nan"), float("inf"), 1e-45])

    def copied(group: Group) -> object:
        mine = odd if group.is_first else mx.ones(4)
        return group.copy({**tree_of(group.rank), "odd": mine, "none": mx.zeros((0,))})

    for result in each_rank(3, copied):
        assert result.pop("odd").view(mx.uint32).tolist() == odd.view(mx.uint32).tolist()
        assert result.pop("none").tolist() == []
        assert flat(result) == flat(tree_of(0))
        assert [each.dtype for _, each in tree_flatten(result)] == [
            each.dtype for _, each in tree_flatten(tree_of(0))
        ]


@pytest.mark.parametrize("counts", [(2, 1), (0, 3, 1), (1, 0, 0), (0, 0)])
def test_rows_of_different_counts(counts: tuple[int, ...]) -> None:
    for dtype in (np.float32, np.uint8, np.int64, np.bool_):
        rows = (np.random.RandomState(0).randn(sum(counts), 2, 3) * 5).astype(dtype)
        firsts = np.cumsum([0, *counts])

        def gathered(group: Group, rows: np.ndarray = rows, firsts: np.ndarray = firsts) -> object:
            own = rows[firsts[group.rank] : firsts[group.rank + 1]]
            # Without rows, a rank may not know their shape.
            return group.gather(own if len(own) else np.empty(0, rows.dtype))

        for found in each_rank(len(counts), gathered):
            assert found.dtype == rows.dtype and len(found) == len(rows)
            assert (found == rows).all() if len(rows) else True


def test_values_of_all_ranks_and_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "PIECE", 16)
    values = [{"metrics": [1.5, None], "name": "ä" * 50}, "short", 3]
    found = each_rank(3, lambda group: group.collect(values[group.rank]))
    assert found == [values] * 3
    assert each_rank(3, lambda group: group.broadcast(values[group.rank])) == [values[0]] * 3


def test_a_group_of_one_returns_what_it_is_given() -> None:
    tree, rows, value = tree_of(0), np.arange(3), {"a": (1, 2)}
    assert ALONE.sum(tree) is tree and ALONE.copy(tree) is tree
    assert ALONE.gather(rows) is rows and ALONE.broadcast(value) is value
    assert ALONE.collect(value) == [value] and ALONE.part("abc") == "abc" and ALONE.is_first
