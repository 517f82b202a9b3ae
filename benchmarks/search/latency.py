"""How long a search takes with the base model's size, phase by phase.

python -m benchmarks.search.latency [--moments N] [--rounds N] [--save]

The weights and the moments are drawn: the time is the same as with real ones. Each round is a new
process, with the files in the system's cache.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import videoprism_mlx as vp
from benchmarks.timing import save
from videoprism_mlx.library.table import Tables
from videoprism_mlx.video.ffmpeg.decoding import PLAIN

MODEL = "videoprism_lvt_public_v1_base"
QUERY = "a dog catches a frisbee"
TEN = 10  # Moments of a video.

# What a new process does, one phase after the other. It prints the seconds of each.
PHASES = """
import json, sys, time
def clocks():
    return time.perf_counter(), time.process_time()
started = clocks()
seconds = {}
def done(phase, times=1):
    global started
    seconds[phase] = [(now - before) / times for now, before in zip(clocks(), started)]
    started = clocks()
from videoprism_mlx.library.searcher import Searcher
done("import the package and MLX")
from videoprism_mlx.library.storage import connect
connect(sys.argv[1])
done("import LanceDB")
searcher = Searcher(sys.argv[1])
done("open the library")
searcher._worker.submit(searcher._load).result()
done("load the model")
vector = searcher.embed(sys.argv[2])
done("embed the text, which reads the text encoder")
searcher.search(vector)
done("first search")
for number in range(20):
    searcher.search(vector)
done("search again", 20)
for number in range(5):
    searcher.search(sys.argv[2] + " " * number + str(number))
done("search for another text", 5)
print(json.dumps(seconds))
"""


def draw_library(folder: Path, tokenizer: Path | None, count: int) -> Path:
    """A library of `count` moments, and its model with drawn weights."""
    vp.convert.draw_checkpoint(MODEL, folder / "drawn.npz", gain=1.0)
    model = folder / "model"
    vp.convert.flax_to_mlx(folder / "drawn.npz", model, MODEL, tokenizer=tokenizer)
    (folder / "drawn.npz").unlink()
    preprocessing = dict(window=16, stride=16, fps=4.0, size=288, resize="stretch")
    preprocessing |= dict(resample="area", partial=False, **PLAIN.record())
    record = {
        "model": {"name": str(model), "dtype": "float32"},
        "source": {"model": str(model), "dtype": None, "adapters": None},
        "preprocessing": preprocessing,
    }
    add_moments(Tables.create(folder / "library", record, 768), count)
    return folder / "library"


def add_moments(tables: Tables, count: int) -> None:
    """Adds `count` moments to a library, in videos that there are not."""
    random = np.random.default_rng(0)
    for first in range(0, count // TEN, 1000):
        add_videos(tables, random, range(first, min(first + 1000, count // TEN)))


def add_videos(tables: Tables, random: np.random.Generator, numbers: range) -> None:
    """Videos of TEN moments each, whose embeddings are in a cluster."""
    width = tables.dimension
    middles = random.normal(size=(len(numbers), 1, width))
    vectors = middles + random.normal(size=(len(numbers), TEN, width))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    count = vectors.shape[0] * TEN
    place = np.tile(np.arange(TEN), len(numbers))
    flat = pa.array(vectors.astype(np.float32).ravel())
    columns = dict(
        video=pa.array([f"{number:08}" for number in numbers for _ in range(TEN)]),
        take=pa.array(np.ones(count, np.int64)),
        number=pa.array(place.astype(np.int32)),
        start=pa.array(4.0 * place),
        end=pa.array(4.0 * place + 4),
        embedding=pa.FixedSizeListArray.from_arrays(flat, width),
        picture=pa.array([b"\0" * 4000] * count),
    )
    tables.add_moments(pa.table(columns, schema=tables.moments.schema))
    fixed = dict(take=1, size=1, modified=1, checksum="", date=0.0, duration=40.0, width=1)
    fixed |= dict(height=1, rate=1.0, codec="", moments=TEN, status="ok", error="")
    tables.put_videos(
        [dict(id=f"{number:08}", path=f"/videos/{number:08}.mp4", **fixed) for number in numbers]
    )


def measure(library: Path, rounds: int) -> dict[str, Any]:
    """The seconds of each phase, and of the command, in new processes in turns.

    The median and the least, and the median of the processor's seconds.
    """
    phases: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds + 1):  # The first is a warm-up.
        started, used = time.perf_counter(), processor_seconds()
        command = [sys.executable, "-m", "videoprism_mlx", "search", "--library", str(library)]
        subprocess.run([*command, QUERY], check=True, capture_output=True)
        took = time.perf_counter() - started, processor_seconds() - used
        phases.setdefault("the command, from the shell", []).append(took)
        run = [sys.executable, "-c", PHASES, str(library), QUERY]
        printed = subprocess.run(run, check=True, capture_output=True, text=True).stdout
        for phase, each in json.loads(printed).items():
            phases.setdefault(phase, []).append(tuple(each))
    return {
        phase: {
            "median": statistics.median(wall for wall, _ in seconds[1:]),
            "least": min(wall for wall, _ in seconds[1:]),
            "processor": statistics.median(used for _, used in seconds[1:]),
        }
        for phase, seconds in phases.items()
    }


def processor_seconds() -> float:
    """The processor's seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokenizer", type=Path, help="a SentencePiece file of 32,000 pieces; by "
                        "default that of the model, which is downloaded")  # fmt: skip
    parser.add_argument("--save", action="store_true", help="keep the figures")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="videoprism_mlx-"))
    try:
        library = draw_library(folder, options.tokenizer, options.moments)
        figures = measure(library, options.rounds)
    finally:
        shutil.rmtree(folder)
    for phase, seconds in figures.items():
        print(f"{phase:46}" + "".join(f"  {name} {one:.3f}" for name, one in seconds.items()))
    if options.save:
        command = "python -m benchmarks.search.latency"
        save("search_latency", command, {"moments": options.moments, **figures})


if __name__ == "__main__":
    main()
