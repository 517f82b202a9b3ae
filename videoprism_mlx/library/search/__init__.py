"""Finding the moments of a library that are nearest to a query.

Shapes: D width of an embedding.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import LibraryError
from videoprism_mlx.features.processor import require_count
from videoprism_mlx.library.filters import Where
from videoprism_mlx.library.moment import Moment
from videoprism_mlx.library.search.merging import merged
from videoprism_mlx.library.search.nearest import (
    Scores,
    Vector,
    best_videos,
    rounded,
    window_scores,
)
from videoprism_mlx.library.table import OK, Tables, quoted

# How often a search begins again while the tables change.
ATTEMPTS = 5

__all__ = ["Moment", "Scores", "Where", "scores", "search"]


def search(
    tables: Tables,
    vector: Vector,
    k: int = 10,
    where: Where | None = None,
    moments: bool = False,
) -> list[Moment]:
    """The `k` videos nearest to a vector (D,), each with its best moment; the best first.

    With `moments`, the `k` best moments, of which several may be of one video. Neighbouring windows
    that show the same are one moment: see `merged`. Equal scores are in the order of the paths.
    """
    require_count("k", k)
    vector = checked_vector(vector, tables.dimension)
    for _ in range(ATTEMPTS):
        before = tables.version()
        most = max(1, min(k, tables.moments.count_rows()))
        rows = best_videos(tables, vector, most, where or Where())
        scored = window_scores(tables, rows, vector)
        if tables.version() == before:  # Else another thread has seen newer tables meanwhile.
            break
    found = [
        each
        for row in rows
        if row["id"] in scored
        for each in video_moments(row, scored[row["id"]], most=most if moments else 1)
    ]
    return sorted(found, key=lambda each: (-each.score, each.path, each.start))[:k]


def video_moments(row: Mapping[str, Any], scores: Scores, most: int) -> list[Moment]:
    """The moments of a video, the best first: `most` of them."""
    path = str(row["path"])
    return [
        Moment(
            video=Path(path).name,
            path=path,
            start=float(scores.starts[run.first]),
            end=float(scores.ends[run.first : run.last + 1].max()),
            score=rounded(scores.cosines[run.best]),
            id=str(row["id"]),
            number=int(scores.numbers[run.best]),
        )
        for run in merged(scores.starts, scores.ends, scores.cosines, most)
    ]


def scores(tables: Tables, video_id: str, vector: Vector) -> Scores:
    """The cosine of each window of a video with a vector (D,), for a timeline.

    Raises LibraryError if the library has no such video.
    """
    vector = checked_vector(vector, tables.dimension)
    condition = f"id = {quoted(video_id)} AND status = {quoted(OK)}"
    found = window_scores(tables, tables.current(condition, ["id", "take", "moments"]), vector)
    if video_id not in found:
        raise LibraryError(f"the library {tables.where} has no video with the id {video_id!r}")
    return found[video_id]


def checked_vector(vector: Vector, dimension: int) -> Vector:
    """The vector (D,) at length one. Raises LibraryError unless it fits the library."""
    array = np.asarray(vector, np.float32)
    if array.shape != (dimension,):
        raise LibraryError(
            f"the query has shape {array.shape}, and the library's embeddings have ({dimension},): "
            "it was made with another model"
        )
    length = float(np.linalg.norm(array))
    if not 0 < length < np.inf:
        raise LibraryError(f"the query is a vector of length {length}; expected one of length 1")
    scaled: npt.NDArray[np.float32] = array / np.float32(length)
    return scaled
