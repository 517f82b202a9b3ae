"""Videos of a library that are copies of one another: re-encoded, resized or trimmed.

Moments whose embeddings are close say which videos may be copies. Whether they are is decided by
their pictures, frame by frame, at the time where they fit best.

Shapes: P probes, M moments of a batch, D width of an embedding, T frames, S size of a thumbnail.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import EXPECTED
from videoprism_mlx.library.filters import Where
from videoprism_mlx.library.search.alike import Stretch, how_sure
from videoprism_mlx.library.search.nearest import Row, moments_of
from videoprism_mlx.library.table import Tables
from videoprism_mlx.progress import bar

# Moments of copies have at least this cosine. Those of other videos may, too.
CLOSE = 0.9

# How many moments of a video are compared with all others, and with how many other videos it is
# compared picture by picture.
PROBES, RIVALS = 3, 8

# How many videos are in memory at once.
VIDEOS_AT_ONCE = 1000

# What is read of each moment.
COLUMNS = ("video", "take", "number", "start", "end", "embedding")

# Two videos are copies if they are as sure as this.
SURE = 0.5

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Copy:
    """A video that has copies, with what helps to choose the one to keep."""

    path: str
    duration: float
    width: int
    height: int
    size: int


@dataclasses.dataclass(frozen=True)
class Group:
    """Videos that are copies of one another, the largest picture and longest first.

    `sure` is from 0.5 to 1: how sure the least sure of the comparisons is that joins them.
    """

    videos: tuple[Copy, ...]
    sure: float

    def as_json(self) -> dict[str, Any]:
        """What `library duplicates --json` prints."""
        return {"sure": self.sure, "videos": [dataclasses.asdict(one) for one in self.videos]}


class Match(NamedTuple):
    """A moment of one video that is close to a moment of another."""

    cosine: float
    own: Stretch
    other: Stretch


def duplicates(tables: Tables, where: Where | None = None, progress: bool = True) -> list[Group]:
    """The groups of copies among the videos that fit, the surest first.

    It reads parts of the files. Those that cannot be read have no copies.
    """
    columns = ["id", "take", "path", "duration", "width", "height", "size", "moments"]
    found = tables.current((where or Where()).condition(), columns)
    rows = {row["id"]: row for row in found if row["moments"]}
    links: dict[tuple[str, str], float] = {}
    ids = sorted(rows)
    with bar(what="comparing", unit="video", total=len(ids), show=progress) as shown:
        for first in range(0, len(ids), VIDEOS_AT_ONCE):
            some = [rows[id] for id in ids[first : first + VIDEOS_AT_ONCE]]
            matches = close_moments(tables, some, rows)
            for row in some:
                for other, match in matches.get(row["id"], {}).items():
                    pair = min(row["id"], other), max(row["id"], other)
                    if links.get(pair, 0) < SURE:
                        links[pair] = max(links.get(pair, 0.0), sureness(match))
                shown.update()
    return groups(rows, links)


def sureness(match: Match) -> float:
    """How sure it is that two videos are copies; 0 if one of them cannot be read."""
    try:
        return how_sure(match.own, match.other)
    except EXPECTED:
        return 0.0


def close_moments(
    tables: Tables, some: Sequence[Row], rows: Mapping[str, Row]
) -> dict[str, dict[str, Match]]:
    """For each of some videos, the other videos with a close moment, and the closest ones."""
    probes, vectors = read_probes(tables, some)
    owners = np.array([probe.id for probe in probes], object)
    found: dict[str, dict[str, Match]] = {}
    for batch in tables.batches(COLUMNS):
        moments = stretches(batch, rows)
        ids = np.array([moment and moment.id for moment in moments], object)
        cosines = embeddings(batch) @ vectors.T  # (M, P)
        cosines[(ids[:, None] == owners) | (ids == None)[:, None]] = -1  # noqa: E711
        most = min(len(ids) - 1, 2 * RIVALS)
        for place in np.argpartition(-cosines, most, axis=0)[: most + 1]:
            for probe in np.flatnonzero(cosines[place, np.arange(len(probes))] >= CLOSE).tolist():
                moment = moments[place[probe]]
                assert moment is not None  # Its cosine would be -1.
                match = Match(float(cosines[place[probe], probe]), probes[probe], moment)
                keep(found.setdefault(match.own.id, {}), match)
    return found


def keep(rivals: dict[str, Match], match: Match) -> None:
    """Adds a match to those of a video, if it is among the closest."""
    known = rivals.get(match.other.id)
    if known is None or match.cosine > known.cosine:
        rivals[match.other.id] = match
    if len(rivals) > RIVALS:
        del rivals[min(rivals, key=lambda id: rivals[id].cosine)]


def read_probes(tables: Tables, some: Sequence[Row]) -> tuple[list[Stretch], Array]:
    """Moments that stand for each of some videos, and their embeddings (P, D)."""
    wanted = {
        row["id"]: {row["moments"] * (2 * i + 1) // (2 * PROBES) for i in range(PROBES)}
        for row in some
    }
    probes, vectors = list[Stretch](), []
    for batch in tables.batches(COLUMNS, moments_of(some)):
        numbers, all_embeddings = batch["number"].to_pylist(), embeddings(batch)
        moments = stretches(batch, {row["id"]: row for row in some})
        for moment, number, vector in zip(moments, numbers, all_embeddings, strict=True):
            if moment is not None and number in wanted[moment.id]:
                probes.append(moment)
                vectors.append(vector.copy())
    width = tables.dimension
    return probes, np.array(vectors, np.float32).reshape(-1, width)


def stretches(batch: Any, rows: Mapping[str, Row]) -> list[Stretch | None]:
    """The moments of a batch; None for those that no video has."""
    columns = (batch[name].to_pylist() for name in ("video", "take", "start", "end"))
    return [
        Stretch(id, row["path"], start, end, row["duration"])
        if (row := rows.get(id)) is not None and row["take"] == take
        else None
        for id, take, start, end in zip(*columns, strict=True)
    ]


def embeddings(batch: Any) -> Array:
    """The embeddings (M, D) of a batch."""
    array: Array = batch["embedding"].flatten().to_numpy().reshape(batch.num_rows, -1)
    return array


def groups(rows: Mapping[str, Row], links: Mapping[tuple[str, str], float]) -> list[Group]:
    """Videos that links join, directly or by others, the surest link first."""
    member: dict[str, str] = {}  # The first of its group.
    sure: dict[str, float] = {}

    def first(id: str) -> str:
        while member.setdefault(id, id) != id:
            id = member[id]
        return id

    for (one, other), value in sorted(links.items(), key=lambda each: (-each[1], each[0])):
        if value >= SURE and (a := first(one)) != (b := first(other)):
            member[max(a, b)] = min(a, b)
            sure[min(a, b)] = value  # The least so far.
    joined: dict[str, list[Row]] = {}
    for id in member:
        joined.setdefault(first(id), []).append(rows[id])
    made = [
        Group(tuple(map(copy_of, sorted(videos, key=best_first))), round(sure[id], 3))
        for id, videos in joined.items()
        if len(videos) > 1
    ]
    return sorted(made, key=lambda group: (-group.sure, group.videos[0].path))


def best_first(row: Row) -> tuple[Any, ...]:
    """A sort key: the largest picture first, then the longest and the largest file."""
    return -row["width"] * row["height"], -round(row["duration"], 1), -row["size"], row["path"]


def copy_of(row: Row) -> Copy:
    """A row as a member of a group."""
    return Copy(row["path"], row["duration"], row["width"], row["height"], row["size"])
