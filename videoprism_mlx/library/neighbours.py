"""The indices of a library, the one by neighbours above all: a search reads a part of the library.

The index by neighbours divides the moments into groups of similar ones, and holds two bits for each
number of an embedding (IVF_RQ), whose error does not depend on what the library holds. A search
looks through the groups nearest to the query, and compares the best candidates again by the
embeddings themselves. Moments that are not in the index yet are all compared: a small library needs
no index. The other index finds the moments of a video.

An index appears whole, in a new version of the table. If the process that builds it is killed, or
another one is faster, the table is as before.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from videoprism_mlx.files.lock import Claim
from videoprism_mlx.library.storage import LOCKS, is_conflict, is_remote, storage_errors
from videoprism_mlx.library.table import Tables
from videoprism_mlx.library.upkeep.compact import compact

COLUMN: Final = "embedding"

# The name of an index by neighbours says how many groups it has.
NAME = "neighbours_"
BY_VIDEO = "by_video"

# The number of moments from which on a library has an index by neighbours.
LEAST = 100_000

# How many moments a group has when the index is built, and the most that it has later, on average.
GROUP, MOST = 500, 2_000

# Indices that lack a tenth of LEAST get the moments that they lack, in a larger library if they
# lack this share of all.
LACKED = 0.05

# How many moments are used to find the middle of each group, and in how many rounds. How many bits
# the index holds of each number of an embedding.
SAMPLES, ROUNDS, BITS = 64, 10, 2

# How many groups a search looks through. How many candidates it compares again: the larger of a
# number and a multiple of the moments that are wanted.
SEARCHED, CANDIDATES, CANDIDATES_EACH = 128, 400, 4


def keep_up(tables: Tables, least: int = LEAST, group: int = GROUP) -> bool:
    """Builds the indices of a library that has enough moments, or brings them up to date.

    From `least` moments on there is the index by neighbours, from a tenth of them on one that finds
    the moments of a video. Whether there was something to do, and no other process does it.
    """
    with storage_errors(tables.where):
        tables.refresh()
        if wanted(tables.moments, least, group) is None:
            return False
        with alone(tables.where) as is_alone:
            done = is_alone
            while done:
                tables.refresh()
                step = wanted(tables.moments, least, group)
                if step is None:
                    return True
                done = take_step(tables, step, group)
    return False


def wanted(table: Any, least: int = LEAST, group: int = GROUP) -> str | None:
    """What is to be done for the indices.

    "by video" or "by neighbours" to build one, "add" to add to them what they lack.
    """
    count, names = table.count_rows(), index_names(table)
    if count < least // 10:
        return None
    stats = [table.index_stats(name) for name in (BY_VIDEO, *names)]
    if stats[0] is None:
        return "by video"
    if count >= least and (not names or count > MOST / GROUP * group * groups_of(names[-1])):
        return "by neighbours"
    lacked = max(each.num_unindexed_rows for each in stats)
    return "add" if lacked >= max(least // 10, LACKED * count) else None


def take_step(tables: Tables, step: str, group: int) -> bool:
    """Does what `wanted` says. Whether no other process was faster."""
    from lancedb.index import BTree

    if step == "add":
        return compact(tables.moments, tables.where)
    if step == "by neighbours":
        return build(tables.moments, group)
    try:
        tables.moments.create_index("video", config=BTree(), name=BY_VIDEO)
    except (RuntimeError, OSError) as error:
        if not is_conflict(error):
            raise
        return False
    return True


def build(table: Any, group: int = GROUP) -> bool:
    """Builds the index in place of an earlier one. Whether no other process was faster."""
    from lancedb.index import IvfRq

    groups = max(1, table.count_rows() // group)
    earlier = index_names(table)
    config = IvfRq(
        distance_type="cosine",
        num_partitions=groups,
        num_bits=BITS,
        sample_rate=SAMPLES,
        max_iterations=ROUNDS,
    )
    try:
        table.create_index(COLUMN, config=config, name=f"{NAME}{groups}", replace=True)
        for name in earlier:
            if name != f"{NAME}{groups}":
                table.drop_index(name)
    except (RuntimeError, OSError) as error:
        if not is_conflict(error):
            raise
        return False
    return True


def with_neighbours(query: Any, count: int, is_filtered: bool = False) -> Any:
    """A query for the `count` moments nearest to a vector, which uses the index if there is one.

    Without an index, or with `bypass_vector_index()`, all moments are compared. A query with a
    condition goes on to further groups where these hold too few moments that fit it.
    """
    # Without a limit, LanceDB reads the entire index.
    query = query.minimum_nprobes(SEARCHED).maximum_nprobes(0 if is_filtered else SEARCHED)
    factor = max(CANDIDATES_EACH, -(-CANDIDATES // count))
    return query.distance_type("cosine").refine_factor(factor).limit(count)


def index_names(table: Any) -> list[str]:
    """The names of the indices by neighbours, the one with the most groups last.

    There are two if the process that replaced one was killed.
    """
    names = [index.name for index in table.list_indices() if index.name.startswith(NAME)]
    return sorted(names, key=groups_of)


def groups_of(name: str) -> int:
    """How many groups the index of that name has."""
    return int(name.removeprefix(NAME))


@contextlib.contextmanager
def alone(where: str) -> Iterator[bool]:
    """Whether this process alone works on the index. In a bucket nobody can know."""
    claim = None if is_remote(where) else Claim.take(Path(where) / LOCKS / "neighbours")
    try:
        yield claim is not None or is_remote(where)
    finally:
        if claim is not None:
            claim.release()
