"""A model's preprocessing: what it does, and that it goes with the model."""

import json
import shutil
from pathlib import Path
from typing import Any

import media
import mlx.core as mx
import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.features.processor import Processor, processor_for
from videoprism_mlx.weights.directory import PROCESSOR_FILE

TEXTS = ["a red cat runs", "a blue ball falls down"]


@pytest.fixture(scope="module")
def loaded(searchable: Path) -> tuple[vp.FactorizedVideoCLIP, Processor]:
    return vp.load(searchable)


def test_frames_and_size_are_the_models(loaded: Any) -> None:
    _, processor = loaded
    assert (processor.num_frames, processor.size) == (4, 18)
    assert processor_for(vp.get_model("videoprism_v1_base")).settings() == {
        "num_frames": 16,
        "size": 288,
        "resize": "stretch",
        "resample": "area",
        "fps": None,
        "template": "{}",
        "max_length": 64,
    }


def test_videos_and_texts_to_a_models_arguments(loaded: Any) -> None:
    model, processor = loaded
    videos = [media.clip("b.mp4"), np.stack([media.frame(n) for n in range(9)])]
    arguments = processor(videos=videos, texts=TEXTS)
    assert arguments.keys() == {"inputs", "text_token_ids", "text_paddings"}
    clips = np.stack([vp.read_video(video, 4, size=18) for video in videos])
    np.testing.assert_array_equal(np.array(arguments["inputs"]), clips)
    ids, paddings = vp.tokenize_texts(processor.tokenizer, TEXTS, 64)
    np.testing.assert_array_equal(np.array(arguments["text_token_ids"]), ids)
    np.testing.assert_array_equal(np.array(arguments["text_paddings"]), paddings)
    assert (paddings == 0).sum() > 8

    video_embeddings, text_embeddings, _ = model(**arguments)
    assert video_embeddings.shape == text_embeddings.shape == (2, 24)
    alone, _, _ = model(**processor(videos=videos[1:]))
    np.testing.assert_allclose(np.array(alone[0]), np.array(video_embeddings[1]), atol=1e-6)
    assert processor(texts=TEXTS).keys() == {"text_token_ids", "text_paddings"}


def test_a_template_goes_around_each_text(searchable: Path) -> None:
    _, plain = vp.load(searchable)
    _, prompting = vp.load(searchable)
    prompting.template = "a grey {} sleeps. {}"
    expected = plain.tokenize([f"a grey {text} sleeps. {text}" for text in TEXTS])
    for found, wanted in zip(prompting.tokenize(TEXTS), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_settings_decide_what_is_read(loaded: Any) -> None:
    path = media.clip("b.mp4")
    processor = Processor(num_frames=6, size=30, resize="crop", resample="lanczos", fps=5)
    expected = vp.read_video(path, 6, fps=5, size=30, resize="crop", resample="lanczos")
    np.testing.assert_array_equal(processor.read(path), expected)
    np.testing.assert_array_equal(np.array(processor(videos=[path])["inputs"])[0], expected)
    with_span = processor.read(path, start=1, num_frames=2)
    np.testing.assert_array_equal(
        with_span,
        vp.read_video(path, 2, start=1, fps=5, size=30, resize="crop", resample="lanczos"),
    )


def test_settings_are_saved_with_the_model(searchable: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(searchable, directory)
    settings = dict(num_frames=7, size=24, resize="crop", fps=2.5, template="{}!", max_length=9)
    Processor(**settings).save(directory)
    _, processor = vp.load(directory)
    assert processor.settings() == {**settings, "resample": "area"}
    assert processor.tokenize(["a cat"])[0].shape == (1, 9)
    with pytest.raises(FileExistsError, match="already exists"):
        processor.save(directory)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "does not contain valid settings of a processor"),
        ("[" * 100_000, "does not contain valid settings of a processor"),
        ('{"frames": 3}', "does not contain valid settings of a processor.*frames"),
        ('{"size": 0}', "does not contain valid settings of a processor: size is 0"),
        (
            '{"resize": "squash"}',
            "does not contain valid settings of a processor: resize is 'squash'",
        ),
        (
            '{"template": "no place"}',
            "does not contain valid settings of a processor: the template is 'no place'",
        ),
    ],
)
def test_damaged_settings(content: str, message: str, searchable: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(searchable, directory)
    (directory / PROCESSOR_FILE).write_text(content)
    with pytest.raises(vp.CheckpointError, match=message):
        vp.load(directory)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(videos="clip.mp4"), "videos is 'clip.mp4'; expected a list"),
        (dict(videos=[]), "expected a list of at least one video"),
        (dict(texts="a cat"), "texts is 'a cat'; expected a list"),
        (dict(texts=[]), "expected a list of at least one string"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str, loaded: Any) -> None:
    with pytest.raises(ValueError, match=message):
        loaded[1](**arguments)


def test_clips_of_several_lengths_make_no_batch() -> None:
    processor = Processor(num_frames=8, size=18, fps=1)
    arrays = [np.zeros((count, 4, 4, 3), np.uint8) for count in (50, 100)]
    with pytest.raises(ValueError, match=r"clips of \[2, 4\] frames.*one by one"):
        processor(videos=arrays)


def test_a_model_without_text(converted: Any) -> None:
    model, processor = vp.load(converted("encoder_mild"))
    with pytest.raises(ValueError, match="takes no text; use a video-text model"):
        processor(texts=TEXTS)
    with pytest.raises(ValueError, match="cannot compare videos with texts"):
        vp.embed_texts(model, processor, TEXTS)


def test_texts_to_embeddings(loaded: Any) -> None:
    model, processor = loaded
    texts = [f"a {colour} {thing}" for colour in ("red", "grey") for thing in ("cat", "kite")]
    embeddings = vp.embed_texts(model, processor, texts, batch_size=3)
    _, expected, _ = model(**processor(texts=texts))
    np.testing.assert_allclose(embeddings, np.array(expected), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert embeddings.dtype == np.float32


def test_probabilities() -> None:
    similarity = np.array([[0.1, 0.12, 0.05], [-1.0, 1.0, 0.0]], np.float32)
    expected = np.exp(similarity.astype(np.float64) * 100)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(vp.probabilities(similarity), expected, rtol=1e-6)
    np.testing.assert_allclose(
        vp.probabilities(similarity, 1.0), np.array(mx.softmax(mx.array(similarity), -1)), rtol=1e-6
    )
    for temperature in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="expected a number above 0"):
            vp.probabilities(similarity, temperature)


def test_settings_are_json(loaded: Any) -> None:
    assert json.loads(json.dumps(loaded[1].settings())) == loaded[1].settings()
