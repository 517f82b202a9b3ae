"""How well the small model that ships finds drawn clips of a kind that it was not trained on.

python -m benchmarks.demo_model [--model DIR] [--seed N] [--save]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import videoprism_mlx as vp
from benchmarks.timing import save
from videoprism_mlx.demo.animation import draw_clip
from videoprism_mlx.demo.captions import describe, name_one
from videoprism_mlx.demo.scenes import (
    ATTRIBUTES,
    MOTIONS,
    OPPOSITE,
    Scene,
    draw_scenes,
    motion_sets,
)
from videoprism_mlx.demo.world import clip_random, write_clip
from videoprism_mlx.evaluation.metrics import recalls

MODEL = "videoprism_lvt_demo_tiny"
HELD_OUT, SETS = 200, 25


class Searcher:
    """A model that embeds scenes: their clips, read from files, and their captions."""

    def __init__(self, model: str | Path):
        self.model, self.processor = vp.load(model, dtype="float32")

    def videos(self, scenes: list[Scene], seed: int, backwards: bool = False) -> np.ndarray:
        """The embeddings (V, D) of a clip of each scene."""
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for number, scene in enumerate(scenes):
                frames = draw_clip(scene, clip_random(seed, number))
                paths.append(Path(folder) / f"{number}.mp4")
                write_clip(paths[-1], frames[::-1] if backwards else frames)
            encoded = vp.encode(self.model, self.processor, paths, batch_size=32)
            return np.stack([each.features["embedding"] for each in encoded])

    def texts(self, scenes: list[Scene], seed: int) -> np.ndarray:
        """The embeddings (V, D) of a caption of each scene."""
        random = np.random.default_rng([seed, 4])
        captions = [describe(scene, random) for scene in scenes]
        return vp.embed_texts(self.model, self.processor, captions)


def measure(
    model: str | Path = MODEL, seed: int = 0, clips: int = HELD_OUT, sets: int = SETS
) -> dict[str, Any]:
    """All figures, each from 0 to 1, with `clips` of each kind and `sets` of motions."""
    searcher = Searcher(model)
    scenes = draw_scenes(clips, seed, held_out=True, distinct=True)
    similarity = searcher.videos(scenes, seed) @ searcher.texts(scenes, seed).T
    found = recalls(similarity, np.arange(len(scenes)))

    flat = [scene for each in motion_sets(sets, seed) for scene in each]
    shape = (sets, len(MOTIONS), -1)
    texts = searcher.texts(flat, seed).reshape(shape)
    forwards = np.einsum("svd,std->svt", searcher.videos(flat, seed).reshape(shape), texts)
    backwards = np.einsum(
        "svd,std->svt", searcher.videos(flat, seed, backwards=True).reshape(shape), texts
    )
    best = forwards.argmax(axis=1)  # The video that each text finds: (sets, motions).
    right = best == np.arange(len(MOTIONS))
    swapped = {}
    for motion, other in OPPOSITE.items():
        here, there = MOTIONS.index(motion), MOTIONS.index(other)
        leads = forwards[:, here, here] > forwards[:, here, there]
        follows = backwards[:, here, there] > backwards[:, here, here]
        swapped[motion] = float((leads & follows).mean())
    told = {
        f"{kind}, by one word/{name}": share
        for kind, held_out in (("held out", True), ("as trained", False))
        for name, share in told_by_one_word(searcher, seed, clips, held_out).items()
    }
    return {
        **found,
        "motion/recall@1": float(right.mean()),
        **{f"motion/{name}": float(right[:, i].mean()) for i, name in enumerate(MOTIONS)},
        **{f"backwards/{motion}": share for motion, share in swapped.items()},
        **told,
    }


def told_by_one_word(searcher: Searcher, seed: int, clips: int, held_out: bool) -> dict[str, float]:
    """For each attribute: the share of clips of one thing whose own word has the highest cosine."""
    scenes = draw_scenes(clips, seed + 1, held_out, two=0.0)
    videos = searcher.videos(scenes, seed + 1)
    shares = {}
    for name, words in ATTRIBUTES.items():
        said = [name_one(name, word) for word in words]
        texts = vp.embed_texts(searcher.model, searcher.processor, said)
        best = (videos @ texts.T).argmax(axis=1)
        shares[name] = float(
            np.mean([words[i] == each.shown(name) for i, each in zip(best, scenes, strict=True)])
        )
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="keep the figures")
    options = parser.parse_args()
    figures = measure(options.model, options.seed)
    for name, value in figures.items():
        print(f"{name:36} {value:.3f}")
    if options.save:
        save("demo_model", "python -m benchmarks.demo_model", {"seed": options.seed, **figures})


if __name__ == "__main__":
    main()
