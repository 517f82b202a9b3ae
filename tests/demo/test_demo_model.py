"""The small model that ships finds things that it was never trained on, and tells motions apart."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import videoprism_mlx as vp
from benchmarks.demo_model import measure
from videoprism_mlx.demo.animation import draw_clip
from videoprism_mlx.demo.scenes import (
    BACKGROUNDS,
    MOTIONS,
    Scene,
    draw_thing,
    is_held_out,
    is_visible,
)
from videoprism_mlx.demo.search import run_demo
from videoprism_mlx.demo.world import write_clip
from videoprism_mlx.models import DEMO_MODEL, SHIPPED

MOST_BYTES = 3_000_000


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED[DEMO_MODEL].iterdir()) <= MOST_BYTES


@pytest.mark.slow
def test_it_finds_clips_of_held_out_things() -> None:
    figures = measure(seed=11, clips=200, sets=25)
    assert figures["text_to_video/recall@1"] >= 0.9
    assert figures["motion/recall@1"] >= 0.92
    assert figures["backwards/left"] >= 0.95 and figures["backwards/right"] >= 0.95
    assert figures["held out, by one word/shape"] >= 0.8
    assert figures["as trained, by one word/shape"] >= 0.85


@pytest.mark.slow
def test_it_finds_a_right_clip_first_for_all_queries_of_the_demo(tmp_path: Path) -> None:
    demo = run_demo(tmp_path / "demo")
    wrong = [ranking.query.text for ranking in demo.judged if not ranking.hits[0].is_right]
    assert wrong == [] and demo.first_right == 8
    assert all(turn.turns for turn in demo.turns)


def test_it_needs_no_network_and_no_file_but_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, processor = vp.load(DEMO_MODEL)
    assert processor.num_frames == model.vision_encoder.pos_emb_shape[0]
    with pytest.raises(ValueError, match="comes with the package"):
        vp.load(DEMO_MODEL, revision="main")


@pytest.mark.slow
def test_a_classifier_of_motions(tmp_path: Path) -> None:
    """Ten clips of each motion to train on, of held-out things, and ten others to test on."""
    for part, seed in (("train", 1), ("val", 2)):
        for motion in MOTIONS:
            folder = tmp_path / part / motion
            folder.mkdir(parents=True)
            random = np.random.default_rng([seed, MOTIONS.index(motion)])
            for number in range(10):
                while True:
                    thing = draw_thing(random, held_out=True)._replace(motion=motion)
                    if is_visible(thing) and is_held_out(thing):
                        break
                scene = Scene((thing,), str(random.choice(BACKGROUNDS)))
                frames = draw_clip(scene, random)
                write_clip(folder / f"{number}.mp4", frames)
    trained = vp.train_classifier(
        DEMO_MODEL,
        tmp_path / "train",
        tmp_path / "model",
        tmp_path / "val",
        recipe=vp.Recipe(epochs=40, batch_size=16, learning_rate=1e-3),
        dtype="float32",
        cache=tmp_path / "cache",
    )
    assert trained.metrics["top1"] >= 0.9
    shutil.rmtree(tmp_path / "cache")
