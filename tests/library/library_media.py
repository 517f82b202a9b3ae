"""Libraries for the tests: of drawn clips with the small model, and of vectors that are given."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

import videoprism_mlx as vp
from videoprism_mlx.demo.animation import draw_clip
from videoprism_mlx.demo.scenes import Scene
from videoprism_mlx.demo.world import clip_name, clip_random
from videoprism_mlx.library.table import Tables
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.video.ffmpeg.write import write_video
from videoprism_mlx.video.source import open_source

# The default windows of the small model: 4 frames, one a second.
WINDOW, FPS = 4, 1.0

RECORD = {
    "model": {"name": DEMO_MODEL, "dtype": "float32"},
    "preprocessing": {"window": WINDOW, "stride": WINDOW, "fps": FPS},
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


def filled(folder: Path, clips: Sequence[Path]) -> Tables:
    """A library of videos, encoded with the small model in its default windows."""
    model, processor = vp.load(DEMO_MODEL, dtype="float32")
    tables = Tables.create(folder, RECORD, model.vision_encoder.spatial_ln.weight.size)
    moments: list[dict[str, Any]] = []
    rows = []
    for number, clip in enumerate(clips):
        with closing(open_source(clip)) as opened:
            duration = float(opened.times[-1] + opened.interval)
        found = windows_of(model, processor, clip, duration)
        moments += [
            dict(video=f"{number}", take=1, number=place, start=start, end=end,
                 embedding=embedding, picture=picture(clip, (start + end) / 2))
            for place, (start, end, embedding) in enumerate(found)
        ]  # fmt: skip
        stat = clip.stat()
        own = dict(size=stat.st_size, modified=stat.st_mtime_ns, date=time.time())
        rows.append(
            video_row(f"{number}", clip.resolve(), len(found), duration=duration) | own
        )
    tables.add_moments(pa.Table.from_pylist(moments, schema=tables.moments.schema))
    tables.put_videos(rows)
    return tables


def windows_of(model: Any, processor: Any, clip: Path, duration: float) -> list[Any]:
    """The start, end and embedding of each window of a video."""
    if duration <= WINDOW / FPS:
        [encoded] = vp.encode(model, processor, [clip], features=["embedding"])
        return [(0.0, duration, encoded.features["embedding"])]
    options: Any = dict(processor=processor, features=["embedding"])
    return [
        (each.start, each.end, each.features["embedding"])
        for each in vp.encode_windows(model, clip, WINDOW, None, FPS, **options)
    ]


def picture(clip: Path, seconds: float) -> bytes:
    """The frame at a time as a small JPEG."""
    import io

    frame = vp.read_video(clip, 1, start=seconds, fps=1, size=96)[0]
    written = io.BytesIO()
    Image.fromarray(np.round(255 * frame).astype(np.uint8)).save(written, "jpeg")
    return written.getvalue()
