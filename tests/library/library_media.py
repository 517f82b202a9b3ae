"""Libraries for the tests: of drawn clips with the small model, and of vectors that are given."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import media
import numpy as np
import pyarrow as pa

from videoprism_mlx.demo.animation import FRAMES, draw_clip
from videoprism_mlx.demo.scenes import MOTIONS, Scene, draw_scenes
from videoprism_mlx.demo.world import clip_name, clip_random
from videoprism_mlx.library.library import Library
from videoprism_mlx.library.moment import Moment
from videoprism_mlx.library.table import Tables
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.video.ffmpeg.decoding import PLAIN
from videoprism_mlx.video.ffmpeg.write import write_video

# The default windows of the small model: 4 frames, one a second.
WINDOW, FPS = 4, 1.0

RECORD = {
    "model": {"name": DEMO_MODEL, "dtype": "float32"},
    "source": {"model": DEMO_MODEL, "dtype": "float32", "adapters": None},
    "preprocessing": {
        "window": WINDOW,
        "stride": WINDOW,
        "fps": FPS,
        "size": 64,
        "resize": "stretch",
        "resample": "area",
        "partial": False,
        **PLAIN.record(),
    },
}


def video_row(id: str, path: Path | str, moments: int, **more: Any) -> dict[str, Any]:
    """A row of the table of videos."""
    made = dict(id=id, take=1, path=str(path), size=1, modified=1, checksum=id, date=0.0)
    made |= dict(duration=4.0 * moments, width=64, height=48, rate=8.0, codec="h264")
    return {**made, "moments": moments, "status": "ok", "error": "", **more}


def given(
    folder: Path, embeddings: Mapping[str, np.ndarray], take: int = 1, record: Any = RECORD
) -> Tables:
    """A library with the given embeddings (N, D) of each video, by path: a window every 4 s."""
    width = next(iter(embeddings.values())).shape[1]
    tables = Tables.create(folder, record, width)
    moments = [
        dict(video=f"id of {path}", take=take, number=number, start=4.0 * number,
             end=4.0 * number + 4, embedding=row, picture=b"")
        for path, rows in embeddings.items() for number, row in enumerate(rows)
    ]  # fmt: skip
    tables.add_moments(pa.Table.from_pylist(moments, schema=tables.moments.schema))
    tables.put_videos(
        [
            video_row(f"id of {path}", path, len(rows), take=take)
            for path, rows in embeddings.items()
        ]
    )
    return tables


def draw(folder: Path, scenes: Sequence[Scene], seed: int = 0) -> list[Path]:
    """A file of each scene in a new folder."""
    folder.mkdir()
    paths = [folder / clip_name(number) for number in range(len(scenes))]
    for number, path in enumerate(paths):
        write_video(path, draw_clip(scenes[number], clip_random(seed, number)), 8)
    return paths


def filled(folder: Path, clips: Sequence[Path], **settings: Any) -> Tables:
    """A library of videos, encoded with the small model in its default windows."""
    library = Library(folder)
    library.add(clips, DEMO_MODEL, dtype="float32", progress=False, **settings)
    return library.tables()


class World(NamedTuple):
    """Drawn clips in a library, and a video of ten other scenes in a row."""

    folder: Path
    scenes: list[Scene]
    clips: list[Path]
    row_scenes: list[Scene]
    row: Path

    @property
    def library(self) -> Path:
        """Where the library is."""
        return self.folder / "library"

    def scene_of(self, moment: Moment) -> Scene:
        """What the clip of a moment shows."""
        return self.scenes[self.clips.index(Path(moment.path))]


@functools.cache
def world() -> World:
    """A clip of each motion, of held-out things, made once."""
    folder = media.folder() / "world"
    folder.mkdir()
    drawn = draw_scenes(300, 5, held_out=True, distinct=True, two=0)
    scenes = [
        scene
        for motion in MOTIONS
        for scene in [one for one in drawn if one.things[0].motion == motion][:1]
    ]
    clips = draw(folder / "clips", scenes)
    row_scenes = draw_scenes(10, 21, held_out=True, distinct=True)
    row = draw_row(folder / "row.mp4", row_scenes)
    filled(folder / "library", [folder / "clips", row])
    return World(folder, scenes, [clip.resolve() for clip in clips], row_scenes, row)


def draw_row(path: Path, scenes: Sequence[Scene], seconds: float = 6.0, seed: int = 0) -> Path:
    """A video of scenes one after the other, each so many seconds long."""
    frames = (
        frame
        for number, scene in enumerate(scenes)
        for frame in draw_clip(scene, clip_random(seed, number))
    )
    write_video(path, frames, FRAMES / seconds)
    return path
