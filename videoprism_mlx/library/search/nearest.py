"""Asking the tables: which videos have the nearest windows, and how near all of theirs are.

No table is read whole. The nearest windows are fetched, and the rows of their videos, which tell
what may be shown; more are fetched until enough videos are found, or all windows are seen.

Shapes: N windows of a video, D width of an embedding.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from videoprism_mlx.library.filters import Where
from videoprism_mlx.library.neighbours import COLUMN, with_neighbours
from videoprism_mlx.library.storage import storage_errors
from videoprism_mlx.library.table import Tables, quoted

# How many windows are fetched at first, for each video that is wanted and at least; and how many
# times as many each time after that.
FETCHED_EACH, FETCHED_LEAST, FETCHED_MORE = 16, 256, 8

# If a filter fits no more videos than this, only their windows are searched.
FEW_VIDEOS = 500

# How many videos one condition names.
NAMED_AT_ONCE = 100

# Scores that differ by less are equal: rounding differs with where a row lies.
ROUNDING = 1e-6

Vector = npt.NDArray[np.float32]
Row = Mapping[str, Any]


class Hit(NamedTuple):
    """A window that is near to a query."""

    video: str
    take: int
    score: float


@dataclasses.dataclass(frozen=True)
class Scores:
    """The windows of a video in the order of time, each (N,), and their cosines with a query."""

    numbers: npt.NDArray[np.int32]
    starts: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]
    cosines: npt.NDArray[np.float64]


def best_videos(tables: Tables, vector: Vector, k: int, where: Where) -> list[dict[str, Any]]:
    """The rows of the `k` videos with the nearest windows, the nearest first.

    Equal scores are in the order of the paths. There are fewer if the library has fewer.
    """
    condition, within = where.condition(), None
    if not where.fits_all:
        with storage_errors(tables.where):
            count = tables.videos.count_rows(condition)
        if count <= FEW_VIDEOS:
            rows = tables.current(condition, ["id", "take"])
            if not rows:
                return []
            within = moments_of(rows)
    known: dict[str, dict[str, Any] | None] = {}
    wanted = max(FETCHED_EACH * k, FETCHED_LEAST)
    exact = within is not None
    while True:
        hits = nearest(tables, vector, wanted, within, exact)
        # An index by neighbours may give fewer than there are.
        is_all, exact = exact and len(hits) < wanted, exact or len(hits) < wanted
        look_up(tables, {hit.video for hit in hits} - known.keys(), condition, known)
        best: dict[str, float] = {}
        for hit in hits:
            row = known[hit.video]
            if row is not None and row["take"] == hit.take:
                best[hit.video] = max(hit.score, best.get(hit.video, -np.inf))
        # Others may have the same score as the last hit, and come before it.
        sure = -np.inf if is_all or not hits else hits[-1].score + ROUNDING
        if is_all or sum(score > sure for score in best.values()) >= k:
            rows = [row for name in best if (row := known[name]) is not None]
            return sorted(rows, key=lambda row: (-rounded(best[row["id"]]), row["path"]))[:k]
        wanted = wanted * FETCHED_MORE if len(hits) == wanted else wanted


def rounded(score: float) -> float:
    """A score without the digits in which equal windows may differ."""
    return round(float(score), 6)


def nearest(
    tables: Tables, vector: Vector, count: int, within: str | None = None, exact: bool = False
) -> list[Hit]:
    """The windows nearest to a vector (D,), the nearest first. `within` is an SQL condition."""
    found = query(tables, vector, count, within, ["video", "take"], exact)
    columns = (found[name].to_pylist() for name in ("video", "take", "_distance"))
    return [Hit(video, take, 1 - distance) for video, take, distance in zip(*columns, strict=True)]


def look_up(
    tables: Tables, ids: set[str], condition: str, known: dict[str, dict[str, Any] | None]
) -> None:
    """Puts the rows of videos that fit a condition into `known`, and None for the others."""
    columns = ["id", "take", "path", "moments"]
    for group in groups(sorted(ids)):
        named = ", ".join(map(quoted, group))
        known |= dict.fromkeys(group)
        rows = tables.current(f"id IN ({named}) AND {condition}", columns)
        known |= {row["id"]: row for row in rows}


def window_scores(tables: Tables, rows: Sequence[Row], vector: Vector) -> dict[str, Scores]:
    """The scores of all windows of videos, by id. Videos without windows are left out."""
    scored: dict[str, Scores] = {}
    columns = ["video", "number", "start", "end"]
    for group in groups([row for row in rows if row["moments"] > 0]):
        count = sum(row["moments"] for row in group)
        found = query(tables, vector, count, moments_of(group), columns, exact=True)
        videos = np.array(found["video"].to_pylist(), object)
        arrays = {name: found[name].to_numpy() for name in (*columns[1:], "_distance")}
        for name in dict.fromkeys(videos):
            places = np.flatnonzero(videos == name)
            places = places[np.argsort(arrays["number"][places], kind="stable")]
            numbers, starts, ends, distances = (array[places] for array in arrays.values())
            scored[name] = Scores(numbers, starts, ends, 1 - distances.astype(np.float64))
    return scored


def query(
    tables: Tables,
    vector: Vector,
    count: int,
    condition: str | None,
    columns: Sequence[str],
    exact: bool,
) -> Any:
    """The windows nearest to a vector, a pyarrow Table. `exact` passes an index by."""
    with storage_errors(tables.where):
        asked = tables.moments.search(vector, COLUMN, "vector")
        asked = with_neighbours(asked, count, is_filtered=condition is not None)
        if condition is not None:
            asked = asked.where(condition, prefilter=True)
        if exact:
            asked = asked.bypass_vector_index()
        return asked.select([*columns, "_distance"]).to_arrow()


def moments_of(rows: Sequence[Row]) -> str:
    """The SQL condition of the moments of videos: those of the take that each row names.

    It names the videos first: LanceDB does not use an index for conditions joined by OR.
    """
    takes: dict[int, list[str]] = {}
    for row in rows:
        takes.setdefault(int(row["take"]), []).append(quoted(row["id"]))
    each = [f"(take = {take} AND video IN ({', '.join(ids)}))" for take, ids in takes.items()]
    named = ", ".join(quoted(row["id"]) for row in rows)
    return f"(video IN ({named}) AND ({' OR '.join(each)}))"


def groups(items: Sequence[Any]) -> list[Sequence[Any]]:
    """The items, in parts that one condition can name."""
    return [items[i : i + NAMED_AT_ONCE] for i in range(0, len(items), NAMED_AT_ONCE)]
