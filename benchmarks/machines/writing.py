"""What the process that writes can take: videos and moments a second, rows, and the search index.

Each step runs in a process of its own: python -m benchmarks.machines.writing STEP NUMBER...
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.library import PICTURE, draw_videos, peak_bytes
from videoprism_mlx.library.indexing.view import View, new_take, path_id
from videoprism_mlx.library.neighbours import build
from videoprism_mlx.library.table import OK, Tables, moments_schema
from videoprism_mlx.library.upkeep.compact import Tidying

WIDTH = 768


def row(number: int, moments: int) -> dict[str, Any]:
    """The row of a drawn video."""
    path = f"/Volumes/nas/videos/{number // 1000:05d}/video-{number:08d}.mp4"
    values: dict[str, Any] = dict(size=number, modified=number, checksum=path_id(path), date=0.0)
    values |= dict(duration=4.0 * moments, width=1920, height=1080, rate=25.0, codec="h264")
    values |= dict(moments=moments, status=OK, error="", take=new_take())
    return values | {"id": path_id(path), "path": path}


def moments_of(video: str, take: int, count: int) -> Any:
    """The moments of a drawn video, with pictures of the usual size."""
    import pyarrow as pa

    random = np.random.default_rng(count)
    flat = pa.array(random.standard_normal(count * WIDTH, np.float32))
    columns = {
        "video": [video] * count,
        "take": [take] * count,
        "number": list(range(count)),
        "start": [4.0 * number for number in range(count)],
        "end": [4.0 * number + 4 for number in range(count)],
        "embedding": pa.FixedSizeListArray.from_arrays(flat, WIDTH),
        "picture": [random.bytes(PICTURE) for _ in range(count)],
    }
    return pa.table(columns, schema=moments_schema(WIDTH))


def write(videos: int, moments: int) -> dict[str, Any]:
    """Writes videos one by one, as they come from workers."""
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables.create(f"{folder}/library", {}, WIDTH)
        view, tidy = View(tables), Tidying(tables)
        worked, seconds = 0.0, []
        for number in range(videos):
            one = row(number, moments)
            table = moments_of(one["id"], one["take"], moments)
            started, before = time.perf_counter(), time.process_time()
            view.add(table, one, None)
            tidy()
            seconds.append(time.perf_counter() - started)
            worked += time.process_time() - before
    return {
        "videos": videos,
        "moments_each": moments,
        "seconds_a_video": sum(seconds) / videos,
        "core_seconds_a_video": worked / videos,
        "slowest": max(seconds),
        "moments_a_second": videos * moments / sum(seconds),
    }


def rows(videos: int) -> dict[str, Any]:
    """Memory of the rows that the writer keeps of all videos, and the seconds to read them."""
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables.create(f"{folder}/library", {}, WIDTH)
        for first in range(0, videos, 20_000):
            last = min(videos, first + 20_000)
            tables.add_videos([row(number, 900) for number in range(first, last)])
        before, started = memory(), time.perf_counter()
        view = View(tables)
        assert len(view.by_id) == videos
        return {
            "videos": videos,
            "bytes_a_video": (memory() - before) / videos,
            "read_seconds": time.perf_counter() - started,
        }


def memory() -> int:
    """The memory of this process now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def index(moments: int) -> dict[str, Any]:
    """Builds the search index over so many moments."""
    import lancedb
    import pyarrow as pa

    schema = pa.schema([("embedding", pa.list_(pa.float32(), WIDTH))])
    with tempfile.TemporaryDirectory() as folder:
        table = lancedb.connect(folder).create_table("moments", schema=schema)
        for first in range(0, moments // 40, 2500):
            vectors = draw_videos(first, min(2500, moments // 40 - first), WIDTH)
            flat = pa.array(vectors.reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(flat, WIDTH)
            table.add(pa.table({"embedding": column}, schema=schema))
        del vectors, flat, column
        before, started, worked = memory(), time.perf_counter(), time.process_time()
        build(table)
        return {
            "moments": moments,
            "seconds": time.perf_counter() - started,
            "core_seconds": time.process_time() - worked,
            "memory": peak_bytes() - before,
        }


STEPS: dict[str, Callable[..., dict[str, Any]]] = {"write": write, "rows": rows, "index": index}


def step(name: str, *numbers: int) -> dict[str, Any]:
    """Does a step in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.machines.writing", name, *map(str, numbers)]
    environment = os.environ | {"LANCE_LOG": "error"}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](*map(int, sys.argv[2:]))))
