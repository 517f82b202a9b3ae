"""Whether a library is whole.

Shapes: N moments of a batch, D width of an embedding.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import printable
from videoprism_mlx.library.indexing.claims import Claims
from videoprism_mlx.library.indexing.scan import is_gone
from videoprism_mlx.library.table import ERROR, MISSING, OK, Tables, quoted, replaced

# How far from one the length of a vector may be.
TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Verified:
    """What `verify` found. `problems` are one line each; `missing` are files that are not there.

    `unusable` counts those of the `videos` that cannot be read, and have no moments.
    """

    library: str
    videos: int
    moments: int
    problems: tuple[str, ...]
    missing: tuple[str, ...]
    unusable: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong with the library itself and no file has vanished unnoticed."""
        return not self.problems


@dataclasses.dataclass
class Take:
    """What was seen of the moments of a take: sums that gaps and repetitions change."""

    count: int = 0
    sum: int = 0
    squares: int = 0
    bad: int = 0

    def is_complete(self, expected: int) -> bool:
        """Whether the numbers from 0 on were there, each once."""
        numbers = range(expected)
        return (self.count, self.sum, self.squares) == (
            expected,
            sum(numbers),
            sum(number * number for number in numbers),
        )


def verify(tables: Tables) -> Verified:
    """Compares the rows of videos with the moments and with the files."""
    tables.refresh()
    rows = tables.rows()
    tables.refresh()  # Moments come before their rows: those of all these rows are there.
    takes = read_takes(tables)
    problems = [
        f"two rows are of one video: {identity} has an old take {take}"
        for identity, take in sorted(replaced(rows))
    ]
    missing = []
    for row in rows:
        key = row["id"], row["take"]
        if (said := problem_of(row, takes.pop(key, Take()))) and is_still(tables, row):
            problems.append(f"{row['path']}: {said}")
        if row["status"] != ERROR and is_gone(row["path"]):
            missing.append(row["path"])
            if row["status"] != MISSING:
                problems.append(f"{row['path']}: the file is not there; index its folder again")
    problems += problems_of_orphans(tables, takes)
    count = sum(row["moments"] for row in rows)
    lines = tuple(map(printable, problems))
    unusable = sum(row["status"] == ERROR for row in rows)
    return Verified(tables.where, len(rows), count, lines, tuple(missing), unusable)


def read_takes(tables: Tables) -> dict[tuple[str, int], Take]:
    """What the table of moments holds, by video and take."""
    import pyarrow as pa

    takes: dict[tuple[str, int], Take] = {}
    for batch in tables.batches(["video", "take", "number", "embedding"]):
        numbers = batch["number"].to_numpy(zero_copy_only=False).astype(np.int64)
        bad = is_bad(batch["embedding"], tables.dimension)
        table = pa.table(
            {
                "video": batch["video"],
                "take": batch["take"],
                "number": numbers,
                "square": numbers * numbers,
                "bad": bad.astype(np.int64),
            }
        )
        sums = [("number", "count"), *((name, "sum") for name in ("number", "square", "bad"))]
        for row in table.group_by(["video", "take"]).aggregate(sums).to_pylist():
            take = takes.setdefault((row["video"], row["take"]), Take())
            take.count += row["number_count"]
            take.sum += row["number_sum"]
            take.squares += row["square_sum"]
            take.bad += row["bad_sum"]
    return takes


def is_bad(embeddings: Any, dimension: int) -> npt.NDArray[np.bool_]:
    """Whether each of the vectors (N, D) is not of length one."""
    bad = np.ones(len(embeddings), bool)
    vectors = embeddings.flatten().to_numpy(zero_copy_only=False)
    if embeddings.null_count or len(vectors) != len(bad) * dimension:
        return bad
    lengths = np.linalg.norm(vectors.reshape(len(bad), dimension).astype(np.float64), axis=1)
    wrong: npt.NDArray[np.bool_] = ~(np.abs(lengths - 1) < TOLERANCE)
    return wrong


def problem_of(row: dict[str, Any], take: Take) -> str | None:
    """What is wrong with the moments of a video."""
    if row["status"] not in (OK, ERROR, MISSING):
        return f"its status is {row['status']!r}"
    if row["moments"] == 0 and row["status"] == OK:
        return "it has no moments"
    if not take.is_complete(row["moments"]):
        return f"{take.count} of its {row['moments']} moments are there, or some are there twice"
    if take.bad:
        return f"{take.bad} of its vectors are not of length one"
    return None


def is_still(tables: Tables, row: dict[str, Any]) -> bool:
    """Whether a video's row is as it was. Another process may have replaced it meanwhile."""
    tables.refresh()
    condition = f"id = {quoted(row['id'])} AND take = {row['take']}"
    return bool(tables.rows(condition, ["id", "take"]))


def problems_of_orphans(tables: Tables, takes: dict[tuple[str, int], Take]) -> list[str]:
    """A line for each take that no row names, unless a run is at work on its video."""
    claims, problems = Claims(tables), []
    tables.refresh()
    for (video, number), take in sorted(takes.items()):
        if claims.is_held(video):
            continue
        condition = f"id = {quoted(video)} AND take = {number}"
        if not tables.rows(condition, ["id", "take"]):
            problems.append(
                f"{take.count} moments belong to no video ({video}): a run was killed; "
                "`videoprism-mlx library compact` removes them"
            )
    return problems
