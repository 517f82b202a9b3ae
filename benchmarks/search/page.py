"""How long the page waits for the first results, with the model that comes with the package.

python -m benchmarks.search.page [--moments 10000] [--save]

The server is a process of its own. Its library has a drawn clip, and moments that no video has.
Each request is another query.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import videoprism_mlx as vp
from benchmarks.search.latency import add_moments
from benchmarks.timing import save
from videoprism_mlx.demo.captions import describe
from videoprism_mlx.demo.scenes import draw_scenes
from videoprism_mlx.demo.world import clip_random, write_world
from videoprism_mlx.models import DEMO_MODEL

QUERIES, SHOWN = 30, 24


def draw_library(folder: Path, count: int) -> Path:
    """A library of a drawn clip and of `count` drawn moments."""
    write_world(folder / "clips", draw_scenes(1, seed=0), seed=0)
    library = vp.Library(folder / "library")
    library.add(folder / "clips", DEMO_MODEL, progress=False)
    add_moments(library.tables(), count)
    return folder / "library"


def measure(library: Path) -> list[float]:
    """The seconds of each query. The first, which loads the model, is not measured."""
    command = [sys.executable, "-m", "videoprism_mlx", "serve", "--library", str(library)]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[0]
            scenes = draw_scenes(QUERIES + 1, seed=1)
            queries = [describe(scene, clip_random(1, n)) for n, scene in enumerate(scenes)]
            return [seconds(address, query) for query in queries][1:]
        finally:
            server.terminate()


def seconds(address: str, query: str) -> float:
    """How long the results of a query take."""
    asked = urllib.parse.urlencode({"q": query, "k": SHOWN})
    started = time.perf_counter()
    with urllib.request.urlopen(f"{address}api/search?{asked}", timeout=60) as answer:
        found: Any = json.load(answer)["moments"]
    took = time.perf_counter() - started
    assert len(found) == SHOWN, len(found)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=10_000)
    parser.add_argument("--save", action="store_true", help="keep the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="videoprism_mlx-") as folder:
        taken = measure(draw_library(Path(folder), options.moments))
    figures = {
        "moments": options.moments,
        "queries": len(taken),
        "median": statistics.median(taken),
        "most": max(taken),
    }
    print(json.dumps(figures, indent=2))
    if options.save:
        save("search_page", "python -m benchmarks.search.page", figures)


if __name__ == "__main__":
    main()
