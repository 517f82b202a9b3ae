"""Drawn clips, the small model that ships, and what a library of them holds."""

import functools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import videoprism_mlx as vp
from videoprism_mlx.demo.scenes import draw_scenes
from videoprism_mlx.demo.world import write_world
from videoprism_mlx.library.table import MISSING, OK, Tables
from videoprism_mlx.models import DEMO_MODEL

MOST = 12

Shown = dict[str, list[tuple[float, float, bytes, bytes]]]


@functools.cache
def world(count: int = MOST) -> Path:
    """A folder of drawn clips of two seconds."""
    folder = Path(tempfile.mkdtemp(prefix="videoprism-drawn-")) / "clips"
    write_world(folder, list(draw_scenes(count, 0)), 0)
    (folder / "captions.csv").unlink()
    return folder


def copy_clips(folder: Path, count: int, first: int = 0) -> Path:
    """Some of the drawn clips in a new folder: clip 0 is 0.mp4."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = sorted(world().iterdir())
    for number in range(first, first + count):
        shutil.copy(clips[number], folder / f"{number}.mp4")
    return folder


@functools.cache
def model() -> tuple[Any, vp.Processor]:
    """The small model, in float32."""
    return vp.load(DEMO_MODEL, dtype="float32")


def add(where: Path, paths: Path | Sequence[Path], **options: Any) -> Any:
    """Indexes videos with that model."""
    return vp.Library(where).add(paths, model(), progress=False, **options)


def contents(where: Path | str) -> Shown:
    """The moments of each video of a library whose file is there, by its path."""
    tables = Tables.open(where)
    rows = tables.rows(f"status = '{OK}'")
    found: Shown = {row["path"]: [] for row in rows}
    paths = {(row["id"], row["take"]): row["path"] for row in rows}
    moments = tables.moments.to_arrow().sort_by("number").to_pylist()
    for one in moments:
        if (path := paths.get((one["video"], one["take"]))) is not None:
            vector = np.float32(one["embedding"]).tobytes()
            found[path].append((one["start"], one["end"], vector, one["picture"]))
    assert len(found) == len(rows)
    return found


def statuses(where: Path) -> dict[str, str]:
    """The status of each video of a library, by the name of its file."""
    return {Path(row["path"]).name: row["status"] for row in Tables.open(where).rows()}


__all__ = ["MISSING", "MOST", "OK", "add", "contents", "copy_clips", "model", "statuses", "world"]
