"""Folders of drawn clips with captions, to train and test the small model on.

Shapes: T frames, S size of a frame.
"""

import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videoprism_mlx.demo.animation import FPS, draw_clip
from videoprism_mlx.demo.captions import describe
from videoprism_mlx.demo.scenes import Scene, draw_scenes
from videoprism_mlx.files.atomic import new_directory
from videoprism_mlx.video.ffmpeg.write import write_video


def write_clip(path: Path, frames: npt.NDArray[np.uint8]) -> None:
    """Writes frames (T, S, S, 3), RGB, 0-255, to an .mp4 file."""
    write_video(path, frames, FPS)


def clip_random(seed: int, number: int) -> np.random.Generator:
    """The random generator for the places of things in clip `number`, and for its captions."""
    return np.random.default_rng([seed, 3, number])


def clip_name(number: int) -> str:
    """The name of the file of clip `number` in a folder of a world."""
    return f"clip{number:05d}.mp4"


def write_world(
    folder: Path, scenes: Sequence[Scene], seed: int, captions: int = 1, partial: int = 0
) -> Path:
    """Writes a clip of each scene, and captions.csv, into a new folder. Returns the csv's path.

    Each clip gets `captions` complete captions, and `partial` captions that leave out some details.
    """

    def drawn(made: Path, number: int) -> list[tuple[str, str]]:
        random = clip_random(seed, number)
        name = clip_name(number)
        write_clip(made / name, draw_clip(scenes[number], random))
        details = (*[1.0] * captions, *random.uniform(size=partial))
        return [(name, describe(scenes[number], random, detail)) for detail in details]

    with new_directory(folder) as made, ThreadPoolExecutor() as pool:
        rows = [("video", "caption")]
        rows += chain.from_iterable(
            pool.map(lambda number: drawn(made, number), range(len(scenes)))
        )
        with open(made / "captions.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return folder / "captions.csv"


def sentences(count: int, seed: int) -> Iterator[str]:
    """Captions to train a tokenizer on."""
    for number, scene in enumerate(draw_scenes(count, seed)):
        random = clip_random(seed, number)
        yield describe(scene, random, random.uniform())
