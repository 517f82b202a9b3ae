"""Search against cosines of all windows, computed with NumPy."""

from pathlib import Path

import numpy as np
import pytest
from library_media import given, video_row

from videoprism_mlx.errors import InputError, LibraryError
from videoprism_mlx.library.filters import Where, parse_date
from videoprism_mlx.library.search import nearest, scores, search
from videoprism_mlx.library.table import Tables

WIDTH = 8


def units(random: np.random.Generator, count: int) -> np.ndarray:
    """Vectors (count, WIDTH) of length one."""
    rows = random.normal(size=(count, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_hand(
    embeddings: dict[str, np.ndarray], query: np.ndarray, fits: set[str], k: int
) -> list[tuple[str, float]]:
    """The best videos and their scores."""
    best = {path: float((rows @ query).max()) for path, rows in embeddings.items() if path in fits}
    return sorted(best.items(), key=lambda each: (-round(each[1], 5), each[0]))[:k]


@pytest.fixture(scope="module")
def embeddings() -> dict[str, np.ndarray]:
    """300 videos of 1 to 12 windows, half of them in a folder of their own."""
    random = np.random.default_rng(1)
    return {
        f"/{'a' if number % 2 else 'b'}/{number:03}.mp4": units(random, 1 + number % 12)
        for number in range(300)
    }


@pytest.fixture(scope="module")
def tables(embeddings: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """A library of them, in two takes, of which the first is invisible."""
    folder = tmp_path_factory.mktemp("library")
    random = np.random.default_rng(2)
    given(folder, {path: units(random, 3) for path in embeddings}, take=1)
    return given(folder, embeddings, take=2)


@pytest.mark.parametrize("k", [1, 7, 1000])
def test_the_best_videos_are_those_of_all_cosines(
    tables: Tables, embeddings: dict[str, np.ndarray], k: int
) -> None:
    for query in units(np.random.default_rng(3), 5):
        found = search(tables, query, k)
        expected = by_hand(embeddings, query, set(embeddings), k)
        assert [each.path for each in found] == [path for path, _ in expected]
        np.testing.assert_allclose(
            [each.score for each in found], [s for _, s in expected], atol=2e-6
        )
        for each in found:
            best = int(np.argmax(embeddings[each.path] @ query))
            assert (each.number, each.id, each.video) == (
                best, f"id of {each.path}", Path(each.path).name,
            )  # fmt: skip
            assert each.start <= 4 * best and each.end >= 4 * best + 4


@pytest.mark.parametrize("few", [0, 500])
def test_filters(
    tables: Tables,
    embeddings: dict[str, np.ndarray],
    few: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nearest, "FEW_VIDEOS", few)
    monkeypatch.setattr(nearest, "FETCHED_LEAST", 20)
    monkeypatch.setattr(nearest, "FETCHED_EACH", 2)
    [query] = units(np.random.default_rng(4), 1)
    lengths = {path: 4.0 * len(rows) for path, rows in embeddings.items()}
    for where, fits in (
        (Where("/a"), {path for path in embeddings if path.startswith("/a/")}),
        (Where("/a/003.mp4"), {"/a/003.mp4"}),
        (Where("/nowhere"), set()),
        (Where(longer=44.0), {path for path, length in lengths.items() if length >= 44}),
        (Where("/b", shorter=8), {p for p, n in lengths.items() if n <= 8 and p[1] == "b"}),
        (Where(after=0.0, before=1.0), set(embeddings)),
        (Where(after=0.5), set()),
    ):
        found = search(tables, query, 10, where)
        assert [each.path for each in found] == [
            path for path, _ in by_hand(embeddings, query, fits, 10)
        ]


def test_a_folder_is_no_beginning_of_a_name(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    paths = ["/it's_50%/a.mp4", "/it's_50%er/a.mp4", "/its_50%/a.mp4"]
    tables = given(tmp_path, {path: units(random, 1) for path in paths})
    found = search(tables, units(random, 1)[0], 10, Where("/it's_50%"))
    assert [each.path for each in found] == paths[:1]


def test_only_what_a_good_row_names_is_found(tmp_path: Path) -> None:
    """Moments of missing and bad videos, of other takes and of no video are not results."""
    random = np.random.default_rng(5)
    names = ["good", "missing", "error", "retaken", "in flight"]
    tables = given(tmp_path, {name: units(random, 2) for name in names})
    changed = {"missing": {"status": "missing"}, "error": {"status": "error"}}
    changed["retaken"] = {"take": 2}
    for name, more in changed.items():
        tables.put_videos([video_row(f"id of {name}", name, 2, **more)])
    tables.videos.delete("path = 'in flight'")
    for moments in (False, True):
        found = search(tables, units(random, 1)[0], 10, moments=moments)
        assert {each.path for each in found} == {"good"}


def test_equal_videos_come_in_the_order_of_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if there are more of them than are fetched at first."""
    monkeypatch.setattr(nearest, "FETCHED_LEAST", 4)
    monkeypatch.setattr(nearest, "FETCHED_EACH", 1)
    [query] = units(np.random.default_rng(6), 1)
    names = [f"/{number:02}.mp4" for number in np.random.default_rng(7).permutation(60)]
    tables = given(tmp_path, {name: query[None].repeat(2, axis=0) for name in names})
    found = search(tables, query, 5)
    assert [each.path for each in found] == sorted(names)[:5]
    assert [(each.number, each.start, each.end) for each in found] == [(0, 0.0, 8.0)] * 5


def test_one_long_video_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "FETCHED_LEAST", 4)
    monkeypatch.setattr(nearest, "FETCHED_EACH", 1)
    query, other = np.eye(WIDTH, dtype=np.float32)[:2]
    near = query + 0.1 * units(np.random.default_rng(8), 200)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    tables = given(tmp_path, {"/long.mp4": near, "/other.mp4": other[None]})
    assert [each.path for each in search(tables, query, 2)] == ["/long.mp4", "/other.mp4"]


def test_all_moments_of_the_best_videos(tmp_path: Path) -> None:
    query = np.eye(WIDTH, dtype=np.float32)[0]

    def windows(*cosines: float) -> np.ndarray:
        rows = np.zeros((len(cosines), WIDTH), np.float32)
        rows[:, 0] = cosines
        rows[:, 1] = np.sqrt(1 - np.square(cosines))
        return rows

    tables = given(
        tmp_path,
        {"/a.mp4": windows(0.1, 0.9, 0.85, 0.1, 0.1, 0.7, 0.1), "/b.mp4": windows(0.1, 0.8, 0.0)},
    )
    found = search(tables, query, 3, moments=True)
    assert [(each.path, each.start, each.end, each.score) for each in found] == [
        ("/a.mp4", 4.0, 12.0, 0.9), ("/b.mp4", 4.0, 8.0, 0.8), ("/a.mp4", 20.0, 24.0, 0.7),
    ]  # fmt: skip
    timeline = scores(tables, "id of /a.mp4", query)
    assert timeline.numbers.tolist() == list(range(7))
    assert timeline.starts.tolist() == [4.0 * number for number in range(7)]
    np.testing.assert_allclose(timeline.cosines, [0.1, 0.9, 0.85, 0.1, 0.1, 0.7, 0.1], atol=1e-6)


@pytest.mark.parametrize("k", [10**9, 2**70])
def test_more_results_than_there_are(k: int, tables: Tables) -> None:
    vector = np.ones(WIDTH, np.float32)
    for moments in (False, True):
        assert search(tables, vector, k, moments=moments) == search(
            tables, vector, 1000, moments=moments
        )


def test_wrong_queries(tables: Tables) -> None:
    with pytest.raises(LibraryError, match=r"shape \(3,\), .* have \(8,\): .* another model"):
        search(tables, np.ones(3, np.float32))
    with pytest.raises(LibraryError, match=r"a vector of length 0\.0"):
        search(tables, np.zeros(WIDTH, np.float32))
    with pytest.raises(InputError, match="k is 0; expected 1 or more"):
        search(tables, np.ones(WIDTH, np.float32), 0)
    with pytest.raises(LibraryError, match="no video with the id 'x'"):
        scores(tables, "x", np.ones(WIDTH, np.float32))


def test_an_empty_library(tmp_path: Path) -> None:
    tables = Tables.create(tmp_path, {}, WIDTH)
    assert search(tables, np.ones(WIDTH, np.float32)) == []
    assert search(tables, np.ones(WIDTH, np.float32), where=Where("/a")) == []


def test_wrong_filters() -> None:
    with pytest.raises(InputError, match="after is 2 and before is 1: no video fits both"):
        Where(after=2.0, before=1.0)
    with pytest.raises(TypeError, match="longer is '3', a str; expected seconds"):
        Where(longer="3")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shorter is nan"):
        Where(shorter=float("nan"))
    with pytest.raises(InputError, match="'yesterday' is not a date; expected one such as 2024"):
        parse_date("yesterday")


def test_dates_are_local() -> None:
    from datetime import datetime

    assert parse_date("2024-05") == datetime(2024, 5, 1).timestamp()
    assert parse_date("2024-05-31T18:30") == datetime(2024, 5, 31, 18, 30).timestamp()
