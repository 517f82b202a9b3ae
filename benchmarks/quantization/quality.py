"""How far the features of drawn models move: the smallest cosine of a row to float32."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

import videoprism_mlx as vp
from benchmarks.quantization.ways import WAYS, WHOLE, Load, stored
from benchmarks.work import MODELS, TEXT_LENGTHS, texts_of
from videoprism_mlx.convert.verify import least_cosine
from videoprism_mlx.demo.animation import draw_clip
from videoprism_mlx.demo.scenes import draw_scenes
from videoprism_mlx.demo.world import clip_random
from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.models import get_config

Array = npt.NDArray[Any]

# Frames of the clip on which a budget is spent: fewer than the model's, which takes less time.
BUDGET_FRAMES = 2


def drawn_model(name: str, folder: Path, gain: float) -> Load:
    """A function that loads a model with drawn weights, in `folder`."""
    config, place = get_config(MODELS.get(name, name)), folder / f"{name}, gain {gain:g}"
    if not place.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            flax = vp.convert.draw_checkpoint(config, Path(scratch) / "flax.npz", gain=gain)
            vp.convert.flax_to_mlx(flax, place, config)
    return lambda: vp.load_model(place)


def drawn_clips(model: VideoPrismModel, seeds: Sequence[int]) -> list[Array]:
    """Drawn clips (T, S, S, 3) of the model's own length and size."""
    frames, rows, _ = model.video_encoder.pos_emb_shape
    size = rows * model.video_encoder.patch_size
    scenes = draw_scenes(len(seeds), 0)
    drawn = [draw_clip(scene, clip_random(seed, 0), size) for scene, seed in
             zip(scenes, seeds, strict=True)]  # fmt: skip
    return [vp.read_video(clip, num_frames=frames, size=size) for clip in drawn]


def features_of(model: VideoPrismModel, clips: Sequence[Array]) -> dict[str, Array]:
    """Every feature of clips, and the embeddings of three texts, in float32."""
    rows: dict[str, list[mx.array]] = {}
    for clip in clips:
        encoder = model.video_encoder
        tokens, more = encoder(clip[None], return_intermediate="spatial_features")
        for name, array in {**more, **model.derive(tokens, len(clip))}.items():
            rows.setdefault(name, []).append(array.astype(mx.float32))
            mx.eval(rows[name])
    if model.takes_text:
        texts = texts_of(model.text_encoder.vocabulary_size, TEXT_LENGTHS)
        rows["text embedding"] = [model(**texts)[1].astype(mx.float32)]
    return {name: np.array(mx.concatenate(arrays)) for name, arrays in rows.items()}


def compare(load: Load, ways: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[str, float]]:
    """For each way to store a model, the smallest cosine of each feature's rows to float32."""
    model = load()
    clips = drawn_clips(model, seeds)
    whole = features_of(model, clips)
    short, costs = [clips[0][:: len(clips[0]) // BUDGET_FRAMES]], {}
    del model
    found = {}
    for name in ways:
        if name != WHOLE:
            model = stored(load, WAYS[name], short, costs)
            ours = features_of(model, clips)
            found[name] = {key: least_cosine(ours[key], rows) for key, rows in whole.items()}
            listed = ", ".join(f"{key} {value:.5f}" for key, value in found[name].items())
            print(f"{name:24}{listed}", flush=True)
            del model
            mx.clear_cache()
    return found
