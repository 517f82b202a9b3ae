"""How well drawn clips are found with the small model: clips, moments of a long video, and copies.

python -m benchmarks.search.drawn [--seed N] [--save]
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

import videoprism_mlx as vp
from benchmarks.timing import save
from videoprism_mlx.demo.animation import FRAMES, draw_clip
from videoprism_mlx.demo.captions import name_one, summary
from videoprism_mlx.demo.scenes import Scene, draw_scenes, motion_sets
from videoprism_mlx.demo.world import clip_name, clip_random, write_clip
from videoprism_mlx.library.filters import Where
from videoprism_mlx.library.library import Library
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.video.ffmpeg.write import write_video

SETS, ROW, SECONDS, COPIED = 25, 100, 6, 40

# How each kind of copy is made of a clip of 16 frames: which frames, what size, and CRF.
KINDS: dict[str, tuple[slice, int, int]] = {
    "encoded again": (slice(None), 192, 38),
    "resized": (slice(None), 96, 28),
    "trimmed": (slice(4, 14), 192, 23),
    "all three": (slice(2, 14), 128, 30),
}


def draw(folder: Path, scenes: Sequence[Scene], seed: int) -> list[Path]:
    """A clip of each scene."""
    folder.mkdir(parents=True)
    paths = [folder / clip_name(number) for number in range(len(scenes))]
    for number, path in enumerate(paths):
        write_clip(path, draw_clip(scenes[number], clip_random(seed, number)))
    return paths


def motions(folder: Path, seed: int) -> dict[str, float]:
    """Sets of held-out scenes that differ only in motion, and a query for each motion."""
    sets = motion_sets(SETS, seed)
    for number, scenes in enumerate(sets):
        draw(folder / "motions" / f"{number:02}", scenes, seed + number)
    library = Library(folder / "motions.library")
    library.add(folder / "motions", DEMO_MODEL, dtype="float32")
    right = []
    for number, scenes in enumerate(sets):
        where = Where(folder / "motions" / f"{number:02}")
        for place, scene in enumerate(scenes):
            query = name_one("motion", scene.things[0].motion)
            [found] = library.search(query, k=1, where=where)
            right.append(found.video == clip_name(place))
    return {"queries": len(right), "right clip first": float(np.mean(right))}


def moments(folder: Path, seed: int, stride: int | None) -> dict[str, float]:
    """A long video of drawn clips in a row, searched for the caption of each."""
    scenes = draw_scenes(ROW, seed, held_out=True, distinct=True)
    path = folder / f"row{seed}.mp4"
    if not path.exists():
        frames = (
            frame
            for number, scene in enumerate(scenes)
            for frame in draw_clip(scene, clip_random(seed, number))
        )
        write_video(path, frames, FRAMES / SECONDS)
    library = Library(folder / f"row{seed}-{stride}.library")
    library.add(path, DEMO_MODEL, stride=stride, dtype="float32")
    overlaps, lengths = [], []
    for number, scene in enumerate(scenes):
        [found] = library.search(summary(scene), k=1)
        begin = SECONDS * number
        overlaps.append(min(found.end, begin + SECONDS) - max(found.start, begin))
        lengths.append(found.end - found.start)
    return {
        "captions": ROW,
        "overlaps the right clip": float(np.mean(np.array(overlaps) > 0)),
        "by 2 s or more": float(np.mean(np.array(overlaps) >= 2)),
        "mean length, s": float(np.mean(lengths)),
    }


def copies(folder: Path, seed: int) -> dict[str, Any]:
    """Copies among clips that show the same things elsewhere, or in other motions."""
    scenes = draw_scenes(COPIED, seed, held_out=True, distinct=True)
    clips = draw(folder / "copies" / "clips", [*scenes, *scenes], seed)
    draw(folder / "copies" / "others", [each for some in motion_sets(5, seed) for each in some], 1)
    made = folder / "copies" / "made"
    made.mkdir()
    kinds = {}
    for number, clip in enumerate(clips[:COPIED]):
        kind = list(KINDS)[number % len(KINDS)]
        kinds[clip.name] = kind
        frames, size, crf = KINDS[kind]
        copy(clip, made / clip.name, frames, size, crf)
    library = Library(folder / "copies.library")
    library.add(folder / "copies", DEMO_MODEL, dtype="float32")
    found = {
        frozenset(one.path for one in group.videos): group.sure for group in library.duplicates()
    }
    right = dict.fromkeys(KINDS, 0)
    for clip in clips[:COPIED]:
        pair = frozenset(str(path.resolve()) for path in (clip, made / clip.name))
        right[kinds[clip.name]] += pair in found
    total = sum(right.values())
    each = COPIED // len(KINDS)
    return {
        "videos": library.info()["videos"],
        "groups found": len(found),
        "precision": total / len(found),
        "recall": total / COPIED,
        **{f"recall/{kind}": count / each for kind, count in right.items()},
        "least sure": min(found.values()),
    }


def copy(source: Path, target: Path, frames: slice, size: int, crf: int) -> None:
    """Some frames of a clip in another size and quality."""
    images = vp.read_video(source, None, size=size)[frames]
    with av.open(str(target), "w") as output:
        stream: Any = output.add_stream("libx264", rate=8, options={"crf": str(crf)})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.round(255 * image).astype(np.uint8), "rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--save", action="store_true", help="keep the figures")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="videoprism_mlx-"))
    try:
        figures: dict[str, Any] = {"motions": motions(folder, options.seed)}
        for seed in range(options.seed, options.seed + 3):
            for stride in (None, 2):
                name = f"moments/seed {seed}, stride {stride or 'window'}"
                figures[name] = moments(folder, seed, stride)
        figures["copies"] = copies(folder, options.seed)
    finally:
        shutil.rmtree(folder)
    for name, values in figures.items():
        print(name)
        for key, value in values.items():
            print(f"  {key:32} {value:.3f}")
    if options.save:
        save("search_drawn", "python -m benchmarks.search.drawn", figures)


if __name__ == "__main__":
    main()
