"""Equal captions and equal clips tie, in `evaluate retrieval` and in training, wherever they are.

A matrix product, and a model, may round equal rows differently by their place in the matrix.
"""

import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from by_hand import brute_force

import videoprism_mlx as vp
from videoprism_mlx.datasets.captions import Captioned
from videoprism_mlx.evaluation.metrics import cosines, recalls
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.runtime.rounding import first_equal
from videoprism_mlx.training.pairs import Frames, Pairs
from videoprism_mlx.training.retrieval import retrieval_metrics

pytest_plugins = ["evaluation_fixtures"]

# Of six clips. The fourth clip is a copy of the first.
SAID = ["a cat", "a dog", "a cat", "a red ball", "a cat", "a dog"]


def test_rows_that_are_equal() -> None:
    rows = np.array([[3, 1], [0, 2], [3, 1], [5, 5], [0, 2]])
    places, numbers = first_equal(rows)
    assert (places.tolist(), numbers.tolist()) == ([0, 1, 3], [0, 1, 0, 2, 1])
    assert [each.tolist() for each in first_equal(rows[:0])] == [[], []]


@pytest.mark.parametrize("count", [1, 10, 45, 73])
def test_equal_embeddings_have_equal_cosines(count: int) -> None:
    random = np.random.default_rng(count)
    videos, texts = random.standard_normal((2, 60, 96)).astype(np.float32)
    videos[random.integers(0, 60, 20)] = videos[0]
    texts = texts[random.integers(0, 4, count)]
    found = cosines(videos, texts)
    np.testing.assert_allclose(found, videos.astype(float) @ texts.T, atol=2e-5)
    for rows, table in ((videos, found), (texts, found.T)):
        for row, own in zip(rows, table, strict=True):
            alike = (rows == row).all(axis=1)
            assert (table[alike] == own).all()


def test_equal_texts_have_equal_embeddings(searcher: tuple[Any, Processor]) -> None:
    texts = ["a red cat", "a ball", "a red cat", "the grey dog runs", *["a red cat"] * 9]
    found = vp.embed_texts(*searcher, texts, batch_size=5)
    assert len(np.unique(found, axis=0)) == 3
    alone = [vp.embed_texts(*searcher, [text])[0] for text in texts]
    np.testing.assert_allclose(found, alone, atol=2e-6)


def test_ties_count_alike_in_evaluation_and_in_training(
    searcher: tuple[Any, Processor], six_clips: list[Path], tmp_path: Path
) -> None:
    clips = [shutil.copy(clip, tmp_path / f"{n}.mp4") for n, clip in enumerate(six_clips)]
    shutil.copy(six_clips[0], clips[3])
    pairs = [Captioned(Path(clip), (text,)) for clip, text in zip(clips, SAID, strict=True)]
    evaluated = vp.evaluate_retrieval(*searcher, pairs, cache=tmp_path / "kept")["metrics"]

    frames = Frames(tmp_path / "frames", searcher[1])
    paths, _ = frames.fill([pair.video for pair in pairs], "frames")
    for at_once in (1, 4, 6):
        trained = retrieval_metrics(*searcher, Pairs(frames, paths, pairs), at_once)
        assert {name: trained[name] for name in evaluated} == evaluated

    # By hand, with the ties that there are.
    model, processor = searcher
    seen = {clip: model(**processor(videos=[clip]))[0][0] for clip in {*clips} - {clips[3]}}
    said = {text: model(**processor(texts=[text]))[1][0] for text in set(SAID)}
    videos = mx.stack([seen[clips[0] if clip == clips[3] else clip] for clip in clips])
    similarity = np.stack([np.array((videos * said[text]).sum(-1)) for text in SAID], axis=1)
    assert evaluated == pytest.approx(brute_force(similarity, range(6)))
    assert evaluated == recalls(similarity, np.arange(6))
