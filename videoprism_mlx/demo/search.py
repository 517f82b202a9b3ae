"""The demo: draws clips, finds them by words with the small model that ships, and shows the result.

Shapes: V clips, D width of an embedding.
"""

import importlib.util
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten
from PIL import Image

from videoprism_mlx import progress
from videoprism_mlx.demo import page as demopage
from videoprism_mlx.demo.animation import draw_clip
from videoprism_mlx.demo.captions import sentence
from videoprism_mlx.demo.picture import draw_picture
from videoprism_mlx.demo.queries import QUERIES, TURNED, Query, choose_scenes, reverse_of
from videoprism_mlx.demo.results import PAGE, PICTURE, Clip, Demo, Turn, rank
from videoprism_mlx.demo.scenes import Scene
from videoprism_mlx.demo.world import clip_random, write_clip
from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError, OutputError
from videoprism_mlx.features.encode import encode
from videoprism_mlx.features.processor import Processor, load
from videoprism_mlx.features.text import embed_texts
from videoprism_mlx.files.atomic import new_directory, new_file
from videoprism_mlx.files.lock import locked
from videoprism_mlx.files.output import require_own, visible
from videoprism_mlx.files.record import as_json, made_with
from videoprism_mlx.library.table import require_place
from videoprism_mlx.models import DEMO_MODEL

# What the demo writes into its folder, besides the page and the picture.
RECORD, CLIPS, BACKWARDS, LIBRARY = "videoprism-demo.json", "clips", "backwards", "library"

BATCH = 8  # Clips encoded at once.

Embeddings = npt.NDArray[np.float32]


def run_demo(
    output: str | Path, queries: Sequence[str] | None = None, count: int = 40, seed: int = 0
) -> Demo:
    """Draws clips into a folder, encodes and searches them, and writes a page that shows it.

    `queries` replace QUERIES. An earlier demo in the folder is replaced. Where LanceDB is
    installed, the clips become a library of videos, which is searched.
    """
    output = Path(output)
    asked = QUERIES if queries is None else tuple(map(Query, queries))
    if not asked or not all(query.text.strip() for query in asked):
        raise InputError("one of the queries is empty; expected some words")
    scenes = choose_scenes(count, seed)
    require_demo_folder(output)
    searcher = Searcher()

    seconds: dict[str, float] = {}
    with locked(output, output):
        write_record(output, clips=count, seed=seed, model=DEMO_MODEL)
        clear(output)
        with timed(seconds, "draw"):
            clips = draw_clips(output / CLIPS, dict(enumerate(scenes)), seed)
        texts = [query.text for query in asked]
        if has_library():
            cosines = in_library(output, texts, clips, seconds)
        else:
            cosines = in_memory(searcher, texts, clips, seconds)
        rankings = [rank(*each, clips) for each in zip(asked, cosines, strict=True)]
        turns = turn_clips(output, scenes, seed, clips, searcher)
        demo = Demo(output, clips, rankings, turns, searcher.parameters, seconds)
        with new_file(demo.picture, replace=True) as partial:
            Image.fromarray(draw_picture(demo)).save(partial, "png")
        with new_file(demo.page, replace=True) as partial:
            partial.write_text(demopage.page(demo), encoding="utf-8")
    return demo


class Searcher:
    """The small model that ships, which makes embeddings of clips and texts."""

    def __init__(self) -> None:
        model, processor = load(DEMO_MODEL, dtype="float32")
        self.model: VideoPrismModel = model
        self.processor: Processor = processor

    @property
    def parameters(self) -> int:
        """The number of the model's parameters."""
        arrays: Any = tree_flatten(self.model.parameters())
        return sum(array.size for _, array in arrays)

    def embed_clips(self, clips: Sequence[Clip]) -> Embeddings:
        """The embeddings (V, D) of clips."""
        paths = [clip.path for clip in clips]
        encoded = encode(self.model, self.processor, paths, BATCH, ["embedding"])
        bar = progress.bar(encoded, "encoding", "clip", total=len(clips))
        return np.stack([each.features["embedding"] for each in bar])

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """The embeddings of texts, (number of texts, D)."""
        return embed_texts(self.model, self.processor, texts)


def has_library() -> bool:
    """Whether a library of videos can be made here."""
    return importlib.util.find_spec("lancedb") is not None


def in_memory(
    searcher: Searcher, texts: Sequence[str], clips: Sequence[Clip], seconds: dict[str, float]
) -> Embeddings:
    """The cosines (number of texts, V) of texts and clips."""
    with timed(seconds, "encode"):
        videos = searcher.embed_clips(clips)
    with timed(seconds, "search"):
        return searcher.embed_texts(texts) @ videos.T


def in_library(
    output: Path, texts: Sequence[str], clips: Sequence[Clip], seconds: dict[str, float]
) -> Embeddings:
    """As `in_memory`, from a library of the clips, which stays in the demo's folder."""
    from videoprism_mlx.library.library import Library

    library = Library(output / LIBRARY)
    with timed(seconds, "encode"):
        library.add(output / CLIPS, DEMO_MODEL, dtype="float32")
    with timed(seconds, "search"):
        found = [library.search(text, k=len(clips)) for text in texts]
    places = {os.path.realpath(clip.path): place for place, clip in enumerate(clips)}
    cosines = np.empty((len(texts), len(clips)), np.float32)
    for row, moments in zip(cosines, found, strict=True):
        row[[places[moment.path] for moment in moments]] = [moment.score for moment in moments]
    return cosines


def turn_clips(
    output: Path, scenes: Sequence[Scene], seed: int, clips: Sequence[Clip], searcher: Searcher
) -> list[Turn]:
    """Draws the TURNED clips backwards, and compares both directions with both sentences."""
    places = {scenes.index(scene): scene for scene in TURNED}
    forwards = [clips[place] for place in places]
    backwards = draw_clips(output / BACKWARDS, places, seed, backwards=True)
    turns = []
    videos = searcher.embed_clips([*forwards, *backwards])
    for number, (clip, turned) in enumerate(zip(forwards, backwards, strict=True)):
        text, opposite = (sentence(each.scene.things[0]) for each in (clip, turned))
        cosines = videos[[number, len(places) + number]] @ searcher.embed_texts([text, opposite]).T
        turns.append(Turn(clip, turned, text, opposite, cosines))
    return turns


@contextmanager
def timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Writes into `seconds` how long the block takes."""
    started = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - started


# The folder.


def draw_clips(
    folder: Path, scenes: Mapping[int, Scene], seed: int, backwards: bool = False
) -> list[Clip]:
    """Writes clips of numbered scenes into a new folder, forwards or backwards."""
    clips = []
    with new_directory(folder) as made:
        for number, scene in progress.bar(list(scenes.items()), "drawing", "clip"):
            name = f"clip{number + 1:02}.mp4"
            frames = draw_clip(scene, clip_random(seed, number))
            write_clip(made / name, frames[::-1] if backwards else frames)
            clips.append(Clip(folder / name, reverse_of(scene) if backwards else scene))
    return clips


def require_demo_folder(output: Path) -> None:
    """Raises OutputError unless a folder is new, empty, or made by an earlier demo.

    The folders of clips are replaced as a whole, so they must hold nothing but the demo's clips.
    """
    require_own(output, "a demo", [RECORD])
    require_place(str(output / LIBRARY))
    for folder in (output / CLIPS, output / BACKWARDS):
        for name in visible(folder):
            if not re.fullmatch(r"clip\d+\.mp4", name):
                raise OutputError(
                    f"{folder / name} does not belong to the demo, and would be removed with its "
                    "earlier clips; move it away, or name another output"
                )


def clear(output: Path) -> None:
    """Removes an earlier demo. The page goes first: it would be broken without its clips."""
    for name in (PAGE, PICTURE):
        (output / name).unlink(missing_ok=True)
    for name in (CLIPS, BACKWARDS, LIBRARY):
        if (output / name).exists():
            shutil.rmtree(output / name)


def write_record(output: Path, **settings: object) -> None:
    """Marks a folder as the demo's."""
    record = {"made_by": "videoprism-mlx demo", **made_with(**settings)}
    with new_file(output / RECORD, replace=True) as partial:
        partial.write_text(as_json(record) + "\n", encoding="utf-8")
