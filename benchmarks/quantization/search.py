"""How well the small model that ships finds held-out drawn clips, stored in different ways."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

import videoprism_mlx as vp
from benchmarks.demo_model import HELD_OUT, MODEL, SETS
from benchmarks.quantization.ways import WAYS, stored
from videoprism_mlx.demo.animation import draw_clip
from videoprism_mlx.demo.captions import describe
from videoprism_mlx.demo.scenes import MOTIONS, Scene, draw_scenes, motion_sets
from videoprism_mlx.demo.world import clip_random, write_clip
from videoprism_mlx.evaluation.metrics import recalls

Array = npt.NDArray[Any]

# Clips of the kind that the model was trained on, on which a budget is spent.
CALIBRATION = 8

BATCH = 50


def read_clips(processor: vp.Processor, scenes: Sequence[Scene], seed: int) -> Array:
    """A clip (T, S, S, 3) of each scene, written to a file and read again."""
    clips = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for number, scene in enumerate(scenes):
            write_clip(path, draw_clip(scene, clip_random(seed, number)))
            clips.append(processor.read(path))
            path.unlink()
    return np.stack(clips)


def captions_of(scenes: Sequence[Scene], seed: int) -> list[str]:
    """A caption of each scene."""
    random = np.random.default_rng([seed, 4])
    return [describe(scene, random) for scene in scenes]


def tests_of(processor: vp.Processor, seed: int) -> list[tuple[Array, list[str]]]:
    """Clips and captions: of held-out scenes, and of sets that differ only in motion."""
    scenes = draw_scenes(HELD_OUT, seed, held_out=True, distinct=True)
    flat = [scene for each in motion_sets(SETS, seed) for scene in each]
    return [(read_clips(processor, each, seed), captions_of(each, seed)) for each in (scenes, flat)]


def embedded(model: Any, clips: Array) -> Array:
    """The embeddings (V, D) of clips (V, T, S, S, 3)."""
    parts = [model(mx.array(clips[i : i + BATCH]))[0] for i in range(0, len(clips), BATCH)]
    return np.array(mx.concatenate(parts).astype(mx.float32))


def measure(model: Any, processor: vp.Processor, tests: Any) -> dict[str, float]:
    """Recall@1 both ways over all held-out scenes, and within the sets of motions."""
    (clips, captions), (moving, said) = tests
    similarity = embedded(model, clips) @ vp.embed_texts(model, processor, captions).T
    found = recalls(similarity, np.arange(len(clips)))
    shape = (SETS, len(MOTIONS), -1)
    videos = embedded(model, moving).reshape(shape)
    texts = vp.embed_texts(model, processor, said).reshape(shape)
    best = np.einsum("svd,std->svt", videos, texts).argmax(axis=1)
    return {
        "text to video": found["text_to_video/recall@1"],
        "video to text": found["video_to_text/recall@1"],
        "motion": float((best == np.arange(len(MOTIONS))).mean()),
    }


def compare(ways: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[str, float]]:
    """The measures of each way to store the model, averaged over drawn worlds."""
    _, processor = vp.load(MODEL, dtype="float32")
    tests = [tests_of(processor, seed) for seed in seeds]
    calibration = read_clips(processor, draw_scenes(CALIBRATION, 1000), 1000)
    costs: dict[Any, dict[str, float]] = {}
    found = {}
    for name in ways:
        model = stored(lambda: vp.load_model(MODEL, "float32"), WAYS[name], calibration, costs)
        each = [measure(model, processor, test) for test in tests]
        found[name] = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
        listed = ", ".join(f"{key} {value:.4f}" for key, value in found[name].items())
        print(f"{name:24}{listed}", flush=True)
    return found
