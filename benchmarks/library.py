"""What a library costs as it grows: to add to, to keep, and to search.

    python -m benchmarks.library [--moments 10000 100000 1000000] [--folder DIR] [--save]

The embeddings are drawn in clusters: topics, the videos of a topic, and the moments of a video. One
half of the queries are unseen moments, the other half lie as far from all moments as texts do. A
library that `--folder` holds already is searched only. Each step is measured in its own process,
with its peak memory.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.timing import save
from videoprism_mlx.library.neighbours import keep_up, with_neighbours
from videoprism_mlx.library.search import search as best_moments
from videoprism_mlx.library.table import OK, Tables
from videoprism_mlx.library.upkeep.compact import Tidying, compact

Vectors = npt.NDArray[np.float32]

TOPICS, EACH = 500, 40  # Topics of all videos, and moments of a video.
PICTURE = 2_500  # Bytes of a moment's picture.
AT_ONCE = 500  # Videos that are written at once. Encoded ones are written one by one.
ONE_BY_ONE = 60  # More videos, each written by itself.
QUERIES, K = 200, 10

# What is aimed at: recall, seconds of the slowest twentieth of queries, and of one more video.
RECALL, SLOW, ONE_MORE = 0.99, 0.1, 1.0


def unit(vectors: npt.NDArray[Any]) -> Vectors:
    """The vectors (..., D) at length one."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def around(vectors: Vectors, noise: float, random: np.random.Generator) -> Vectors:
    """Vectors (N, D) of length one, about as far from these as `noise`."""
    drawn = random.standard_normal(vectors.shape, np.float32)
    return unit(vectors + np.float32(noise) * unit(drawn))


def topics(width: int) -> Vectors:
    """The middle of each topic (TOPICS, D)."""
    return unit(np.random.default_rng(1).standard_normal((TOPICS, width), np.float32))


def draw_videos(first: int, count: int, width: int) -> Vectors:
    """The moments (count * EACH, D) of some videos."""
    random = np.random.default_rng([2, first])
    middles = topics(width)[random.integers(TOPICS, size=count)]
    return around(np.repeat(around(middles, 0.7, random), EACH, axis=0), 0.5, random)


def draw_queries(width: int) -> Vectors:
    """Queries (QUERIES, D): unseen moments and, from the middle on, what is far from all."""
    random = np.random.default_rng(3)
    middles = topics(width)[random.integers(TOPICS, size=QUERIES)]
    near, far = np.split(middles, 2)
    return np.concatenate([around(near, 0.7, random), around(far, 3.0, random)])


def batches(moments: int) -> Iterator[tuple[int, int]]:
    """The first video, and how many, of each batch that is written at once."""
    videos = -(-moments // EACH)
    for first in range(0, videos, AT_ONCE):
        yield first, min(AT_ONCE, videos - first)


def nearest(moments: int, width: int) -> npt.NDArray[np.intp]:
    """The numbers (QUERIES, K) of the moments nearest to each query, by comparing all."""
    queries = draw_queries(width)
    scores = np.full((len(queries), 0), -np.inf, np.float32)
    numbers = np.zeros((len(queries), 0), np.intp)
    for first, count in batches(moments):
        found = queries @ draw_videos(first, count, width).T
        scores = np.concatenate([scores, found], axis=1)
        here = first * EACH + np.arange(found.shape[1])
        numbers = np.concatenate([numbers, np.tile(here, (len(queries), 1))], axis=1)
        best = np.argsort(-scores, axis=1)[:, :K]
        scores, numbers = (np.take_along_axis(array, best, axis=1) for array in (scores, numbers))
    return numbers


def add(tables: Tables, first: int, vectors: Vectors) -> None:
    """Writes the moments of some videos, and the videos."""
    import pyarrow as pa

    count, videos = len(vectors), len(vectors) // EACH
    random = np.random.default_rng(first)
    names = [f"{first + number // EACH:08d}" for number in range(count)]
    flat = pa.array(vectors.reshape(-1))
    columns = {
        "video": names,
        "take": np.ones(count, np.int64),
        "number": (np.arange(count) % EACH).astype(np.int32),
        "start": np.arange(count) % EACH * 4.0,
        "end": np.arange(count) % EACH * 4.0 + 4,
        "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        "picture": [random.bytes(PICTURE) for _ in range(count)],
    }
    tables.add_moments(pa.table(columns, schema=tables.moments.schema))
    row: dict[str, Any] = dict(take=1, size=1, modified=1, checksum="", date=0.0, duration=160.0)
    row |= dict(width=1, height=1, rate=25.0, codec="h264", moments=EACH, status=OK, error="")
    ids = [f"{first + number:08d}" for number in range(videos)]
    tables.put_videos([row | {"id": each, "path": f"/videos/{each}.mp4"} for each in ids])


def fill(where: str, moments: int, width: int) -> dict[str, Any]:
    """Adds the moments, many at a time, and builds the index."""
    tables = Tables.create(where, {}, width)
    adding = 0.0
    for first, count in batches(moments):
        vectors = draw_videos(first, count, width)
        started = time.perf_counter()
        add(tables, first, vectors)
        adding += time.perf_counter() - started
    started = time.perf_counter()
    for table in (tables.videos, tables.moments):
        compact(table, where)
    tidying = time.perf_counter() - started
    started, worked = time.perf_counter(), time.process_time()
    keep_up(tables)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    tables.refresh()
    return {
        "add_seconds": adding,
        "compact_seconds": tidying,
        "index_seconds": seconds,
        "index_cpu_seconds": worked,
        "bytes_a_moment": tables.moments.stats()["total_bytes"] / moments,
        "index_bytes_a_moment": index_bytes(tables) / moments,
    }


def index_bytes(tables: Tables) -> int:
    """The bytes of all indices."""
    return sum(index.size_bytes for index in tables.moments.list_indices())


def add_more(where: str, moments: int, width: int) -> dict[str, Any]:
    """Adds videos one by one, as they are when they have been encoded."""
    tables = Tables.open(where)
    tidy = Tidying(tables)
    seconds = []
    for number in range(ONE_BY_ONE):
        first = 10_000_000 + tables.videos.count_rows() + number
        vectors = draw_videos(first, 1, width)
        started = time.perf_counter()
        add(tables, first, vectors)
        tidy()
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    keep_up(tables)
    return {
        "one_more_seconds": statistics.median(seconds),
        "one_more_slowest": max(seconds),
        "keep_up_seconds": time.perf_counter() - started,
    }


def search(where: str, moments: int, width: int) -> dict[str, Any]:
    """Searches for the queries, one after the other, in a process that has just begun.

    Then for the best videos of some, as `Library.search` does, with the extent of their moments.
    """
    tables = Tables.open(where)
    found, seconds = [], []
    for query in draw_queries(width):
        started = time.perf_counter()
        asked = tables.moments.search(query, vector_column_name="embedding", query_type="vector")
        asked = with_neighbours(asked, K).select(["video", "number", "_distance"])
        rows = asked.to_arrow().to_pydict()
        seconds.append(time.perf_counter() - started)
        pairs = zip(rows["video"], rows["number"], strict=True)
        found.append([int(video) * EACH + number for video, number in pairs])
    whole = []
    for query in draw_queries(width)[::10]:
        started = time.perf_counter()
        best_moments(tables, query, K)
        whole.append(time.perf_counter() - started)
    return {
        "found": found,
        "first_seconds": seconds[0],
        "median_seconds": statistics.median(seconds[1:]),
        "slow_seconds": float(np.quantile(seconds[1:], 0.95)),
        "videos_median_seconds": statistics.median(whole[1:]),
        "videos_slow_seconds": float(np.quantile(whole[1:], 0.95)),
    }


STEPS: dict[str, Callable[[str, int, int], dict[str, Any]]] = {
    "fill": fill,
    "add_more": add_more,
    "search": search,
}


def peak_bytes() -> int:
    """The most memory that this process has had."""
    try:  # On Linux, getrusage counts what the parent had before this program was started.
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def step(name: str, where: str, moments: int, width: int) -> dict[str, Any]:
    """Does a step in a process of its own."""
    arguments = ["--step", name, where, str(moments), str(width)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.library", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(moments: int, width: int, where: str) -> dict[str, Any]:
    """All figures of a library of that size, which is made unless it is there."""
    figures: dict[str, Any] = {"moments": moments, "width": width, "load": os.getloadavg()[0]}
    if not Path(where).is_dir():
        figures |= prefixed("fill", step("fill", where, moments, width))
    answer = step("search", where, moments, width)
    right = nearest(moments, width)
    shares = [
        len(set(each) & set(best)) / K
        for each, best in zip(answer.pop("found"), right.tolist(), strict=True)
    ]
    near, far = np.split(np.array(shares), 2)
    figures |= {"recall_near": float(near.mean()), "recall_far": float(far.mean())}
    figures |= prefixed("search", answer)
    return figures | prefixed("more", step("add_more", where, moments, width))


def prefixed(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    """The figures of a step. Its memory is named after it."""
    return {f"{name}_peak_mb" if key == "peak" else key: value for key, value in figures.items()}


def is_within(figures: dict[str, Any]) -> bool:
    """Whether the figures are as aimed at."""
    recall = min(figures["recall_near"], figures["recall_far"])
    return bool(
        recall >= RECALL
        and figures["slow_seconds"] <= SLOW
        and figures["one_more_seconds"] <= ONE_MORE
    )


def main() -> int:
    if sys.argv[1:2] == ["--step"]:
        name, where, moments, width = sys.argv[2:]
        figures = STEPS[name](where, int(moments), int(width))
        print(json.dumps(figures | {"peak": peak_bytes() / 1e6}))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moments", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=768, help="of an embedding")
    parser.add_argument("--folder", type=Path, help="keep the libraries there")
    parser.add_argument("--save", action="store_true", help="keep the figures")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as given:
        for moments in options.moments:
            where = (options.folder or Path(given)) / f"{moments}"
            rows.append(measure(moments, options.width, str(where)))
            for key, value in rows[-1].items():
                print(f"{key}: {value:,.4g}")
            print(flush=True)
    if options.save:
        save("library", "python -m benchmarks.library", {"libraries": rows})
    return 0 if all(map(is_within, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
