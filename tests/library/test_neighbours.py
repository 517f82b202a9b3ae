"""The index by neighbours finds what comparing all moments finds."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import drawn_clips
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from thinned import thinned

from videoprism_mlx.files.lock import Claim
from videoprism_mlx.library import neighbours
from videoprism_mlx.library.indexing import add as adding
from videoprism_mlx.library.neighbours import build, index_names, keep_up, with_neighbours
from videoprism_mlx.library.search.nearest import moments_of
from videoprism_mlx.library.storage import LOCKS
from videoprism_mlx.library.table import Tables

WIDTH, VIDEO, LEAST, GROUP = 32, 20, 2000, 50

Vectors = npt.NDArray[np.float32]


def drawn(count: int, seed: int) -> Vectors:
    """Embeddings (count, WIDTH) of length one, in clusters."""
    random = np.random.default_rng(seed)
    middles = np.random.default_rng(0).standard_normal((25, WIDTH))
    vectors = middles[random.integers(25, size=count)] + random.normal(0, 0.3, (count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def add(tables: Tables, vectors: Vectors, first: int = 0) -> None:
    """Adds moments, of which each VIDEO are of one video."""
    numbers = first + np.arange(len(vectors))
    columns: dict[str, Any] = {
        "video": [f"{number // VIDEO}" for number in numbers],
        "take": np.ones(len(numbers), np.int64),
        "number": (numbers % VIDEO).astype(np.int32),
        "start": numbers * 4.0,
        "end": numbers * 4.0 + 4,
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), WIDTH),
        "picture": [b""] * len(numbers),
    }
    tables.add_moments(pa.table(columns, schema=tables.moments.schema))


def found(tables: Tables, query: Vectors, where: str | None = None, count: int = 10) -> list[int]:
    """The numbers of the moments nearest to a query, the nearest first."""
    asked = tables.moments.search(query, vector_column_name="embedding")
    asked = with_neighbours(asked, count, is_filtered=where is not None)
    asked = asked.where(where) if where else asked
    rows = asked.select(["video", "number", "_distance"]).to_arrow().to_pydict()
    return [int(a) * VIDEO + b for a, b in zip(rows["video"], rows["number"], strict=True)]


def nearest(vectors: Vectors, query: Vectors, count: int = 10) -> list[int]:
    """The same, by comparing all."""
    return np.argsort(-(vectors @ query), kind="stable")[:count].tolist()


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """A library of LEAST moments without an index."""
    made = Tables.create(tmp_path / "library", {}, WIDTH)
    add(made, drawn(LEAST, 1))
    return made


def test_a_small_library_has_no_index(tables: Tables) -> None:
    assert not keep_up(tables, 10 * LEAST + 10, GROUP)
    assert list(tables.moments.list_indices()) == []
    assert keep_up(tables, LEAST + 1, GROUP)
    assert [index.name for index in tables.moments.list_indices()] == ["by_video"]
    assert not keep_up(tables, LEAST + 1, GROUP)
    vectors = drawn(LEAST, 1)
    for query in drawn(5, 2):
        assert found(tables, query) == nearest(vectors, query)


def test_the_moments_of_a_video_are_found_by_an_index(tables: Tables) -> None:
    keep_up(tables, LEAST, GROUP)
    rows = [{"id": "3", "take": 1}, {"id": "70", "take": 1}, {"id": "4", "take": 2}]
    asked = tables.moments.search(drawn(1, 2)[0], "embedding", "vector").bypass_vector_index()
    asked = asked.where(moments_of(rows), prefilter=True).limit(100)
    assert "ScalarIndexQuery" in asked.explain_plan(True)
    assert len(asked.to_arrow()) == 2 * VIDEO


def test_the_index_finds_what_comparing_all_finds(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "SEARCHED", 8)
    assert keep_up(tables, LEAST, GROUP)
    assert index_names(tables.moments) == ["neighbours_40"]
    assert not keep_up(tables, LEAST, GROUP)
    vectors = drawn(LEAST, 1)
    for query in drawn(20, 2):
        assert found(tables, query) == nearest(vectors, query)
    plan = with_neighbours(tables.moments.search(vectors[0]), 10).explain_plan(True)
    assert "neighbours_40" in plan and "minimum_nprobes=8, maximum_nprobes=Some(8)" in plan


def test_moments_that_the_index_lacks_are_found_and_added_to_it(tables: Tables) -> None:
    keep_up(tables, LEAST, GROUP)
    vectors = np.concatenate([drawn(LEAST, 1), drawn(VIDEO, 3)])
    add(tables, vectors[LEAST:], first=LEAST)
    queries = vectors[LEAST : LEAST + 5]
    for number, query in enumerate(queries, LEAST):
        assert found(tables, query)[0] == number
        assert found(tables, query) == nearest(vectors, query)
    assert not keep_up(tables, LEAST, GROUP)  # So few can wait.
    more = drawn(LEAST // 10, 4)
    add(tables, more, first=len(vectors))
    vectors = np.concatenate([vectors, more])
    assert keep_up(tables, LEAST, GROUP)
    stats = tables.moments.index_stats("neighbours_40")
    assert (stats.num_unindexed_rows, stats.num_indexed_rows) == (0, len(vectors))
    for query in queries:
        assert found(tables, query) == nearest(vectors, query)


def test_an_index_with_too_few_groups_is_replaced(tables: Tables) -> None:
    build(tables.moments, group=LEAST // 2)
    build(tables.moments, group=LEAST)
    assert index_names(tables.moments) == ["neighbours_1"]
    assert keep_up(tables, LEAST, GROUP)
    assert index_names(tables.moments) == ["neighbours_40"]


def test_a_filter_is_respected(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "SEARCHED", 1)
    keep_up(tables, LEAST, GROUP)
    vectors = drawn(LEAST, 1)
    query = drawn(1, 2)[0]
    inside = [number for number in nearest(vectors, query, LEAST) if number // VIDEO in (3, 70)]
    assert found(tables, query, "video IN ('3', '70')", 100) == inside
    assert len(inside) == 2 * VIDEO


def test_removed_moments_are_not_found(tables: Tables) -> None:
    keep_up(tables, LEAST, GROUP)
    vectors = drawn(LEAST, 1)
    query = vectors[VIDEO]
    tables.moments.delete("video = '1'")
    left = [number for number in nearest(vectors, query, LEAST) if number // VIDEO != 1]
    assert found(tables, query) == left[:10]


def test_one_process_at_a_time_builds_it(tables: Tables) -> None:
    claim = Claim.take(Path(tables.where) / LOCKS / "neighbours")
    assert claim is not None
    assert not keep_up(tables, LEAST, GROUP)
    assert index_names(tables.moments) == []
    claim.release()
    assert keep_up(tables, LEAST, GROUP)


def test_another_machine_builds_it_at_the_same_time(tables: Tables) -> None:
    other = Tables.open(tables.where)
    assert build(other.moments, GROUP)
    build(tables.moments, GROUP)  # It still sees the table without an index.
    tables.refresh()
    assert index_names(tables.moments) == ["neighbours_40"]
    query = drawn(1, 2)[0]
    assert found(tables, query) == nearest(drawn(LEAST, 1), query)


BUILD = f"""
import sys
from videoprism_mlx.library.neighbours import keep_up
from videoprism_mlx.library.table import Tables

tables = Tables.open(sys.argv[1])
print("begins", flush=True)
keep_up(tables, {LEAST}, {GROUP})
"""


@pytest.mark.parametrize("seconds", thinned([0.03, 0.0, 0.06], keep=3))
def test_killed_while_it_builds(tables: Tables, seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, tables.where], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    tables.refresh()
    query = drawn(1, 2)[0]
    right = nearest(drawn(LEAST, 1), query)
    assert found(tables, query) == right
    keep_up(tables, LEAST, GROUP)
    assert index_names(tables.moments) == ["neighbours_40"]
    assert found(tables, query) == right


def test_adding_videos_keeps_the_index_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(
        adding, "keep_up", lambda tables: counts.append(tables.moments.count_rows())
    )
    drawn_clips.add(tmp_path / "library", drawn_clips.copy_clips(tmp_path / "clips", 2))
    assert counts == [2]
