"""Videos compared with texts, classified, mapped and scored over time, as calls."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import media
import numpy as np
import pytest
from expected import assert_close, expected_features

import videoprism_mlx as vp
from videoprism_mlx.errors import InputError, InputTypeError
from videoprism_mlx.features.maps import map_features
from videoprism_mlx.features.timeline import frame_at, score_windows
from videoprism_mlx.weights.directory import LABELS_FILE

TEXTS = ["a red cat", "a ball falls down", "a kite"]


def test_comparing(searchable: Path, tmp_path: Path) -> None:
    model, processor = vp.load(searchable)
    sources = [media.clip("b.mp4"), tmp_path / "missing.mp4", media.clip("uneven.mkv")]
    first, missing, last = vp.compare(model, processor, sources, TEXTS)
    assert [each.source for each in (first, missing, last)] == sources
    assert isinstance(missing.error, FileNotFoundError)
    assert missing.cosines.shape == missing.probabilities.shape == (0,)
    found, words, _ = model(**processor(videos=[sources[0], sources[2]], texts=TEXTS))
    expected = np.array(found) @ np.array(words).T
    for row, each in enumerate((first, last)):
        assert each.error is None
        assert_close(each.cosines, expected[row])
        np.testing.assert_array_equal(each.probabilities, vp.probabilities(each.cosines))
    [warm] = vp.compare(model, processor, sources[:1], TEXTS, 1.0)
    np.testing.assert_array_equal(warm.probabilities, vp.probabilities(warm.cosines, 1.0))


def test_labels_of_a_video_text_model(searchable: Path, tmp_path: Path) -> None:
    model, processor = vp.load(searchable)
    sources = [media.clip("b.mp4"), tmp_path / "missing.mp4"]
    found, missing = vp.classify(model, processor, sources, TEXTS, top_k=2)
    [compared] = vp.compare(model, processor, sources[:1], TEXTS)
    order = np.argsort(compared.probabilities)[::-1][:2]
    assert found.labels == [(TEXTS[i], compared.probabilities[i]) for i in order]
    assert missing.labels == [] and isinstance(missing.error, FileNotFoundError)
    with pytest.raises(
        InputError, match=r"no classes of its own; give the labels .* with --labels"
    ):
        next(vp.classify(model, processor, sources))


def test_labels_of_a_classifier(converted: Callable[[str], Path], tmp_path: Path) -> None:
    model, processor = vp.load(converted("classifier_mild"))
    video = media.clip("b.mp4")
    logits = np.array(model(**processor(videos=[video]))[0][0])
    [found] = vp.classify(model, processor, [video], top_k=7)
    chances = vp.probabilities(logits, 1.0)
    order = np.argsort(chances)[::-1]
    assert [name for name, _ in found.labels] == [f"class {i}" for i in order]
    np.testing.assert_allclose([chance for _, chance in found.labels], chances[order], atol=1e-5)

    names = [f"sport {i}" for i in range(7)]
    (tmp_path / LABELS_FILE).write_text(json.dumps({"labels": names, "multi_label": True}))
    [several] = vp.classify(model, processor, [video], top_k=7, directory=tmp_path)
    assert [name for name, _ in several.labels] == [names[i] for i in order]
    chances = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose([chance for _, chance in several.labels], chances[order], atol=1e-5)

    [own] = vp.classify(model, processor, [video], list("abcdefg"), top_k=1)
    assert own.labels[0][0] == "abcdefg"[order[0]]
    model.directory = None  # As that of one that was never saved.
    assert next(vp.classify(model, processor, [video], top_k=7)) == found
    for options, error, message in (
        (dict(labels=["one"]), InputError, "there is 1 label; expected 7, one for each class"),
        (dict(top_k=0), InputError, "top_k is 0; expected 1 or more"),
        (dict(top_k=1.5), InputTypeError, "top_k is 1.5; expected a whole number"),
    ):
        with pytest.raises(error, match=message):
            next(vp.classify(model, processor, [video], **options))


def test_scores_over_time(searchable: Path) -> None:
    model, processor = vp.load(searchable)
    video = media.clip("b.mp4")
    timeline = score_windows(model, processor, video, TEXTS, None, 2, 8, start=1, end=3)
    windows = list(
        vp.encode_windows(
            model,
            video,
            processor.num_frames,
            2,
            8,
            processor=processor,
            features=["embedding"],
            start=1,
            end=3,
        )
    )
    assert timeline.starts.tolist() == [window.start for window in windows]
    assert timeline.ends.tolist() == [window.end for window in windows]
    embeddings = np.stack([window.features["embedding"] for window in windows])
    texts = vp.embed_texts(model, processor, TEXTS)
    assert_close(timeline.scores, embeddings @ texts.T)
    with pytest.raises(InputError, match="expected a list"):
        score_windows(model, processor, video, [])


def test_the_frame_at_a_time() -> None:
    frame = frame_at(media.clip("b.mp4"), 2.0, 288)
    assert frame.shape == (288, 384, 3) and frame.dtype == np.uint8
    assert media.number(frame) == 60


@pytest.mark.parametrize("count", [3, 4, 6])
def test_features_by_place(count: int, converted: Callable[[str], Path]) -> None:
    """Of more frames than the model takes, the last ones come from a window of their own."""
    model, processor = vp.load(converted("encoder_mild"))
    video = media.clip("b.mp4")
    maps = map_features(model, processor, video, count)
    assert maps.features.shape == (count, 3, 3, 24) and maps.frames.shape == (count, 288, 384, 3)
    assert [media.number(frame) for frame in maps.frames] == [
        100 * i // count for i in range(count)
    ]
    np.testing.assert_allclose(maps.times, [100 * i // count / 30 for i in range(count)], atol=1e-3)
    clip = vp.read_video(video, count, size=18)
    window = min(count, 4)
    last = expected_features(model, clip[-window:])["tokens"].reshape(window, 3, 3, 24)
    assert_close(maps.features[-window:], last)
    if count > window:
        first = expected_features(model, clip[:window])["tokens"].reshape(window, 3, 3, 24)
        alone = count - window  # Frames of the first window alone.
        assert_close(maps.features[:alone], first[:alone])


def test_maps_at_a_rate(converted: Callable[[str], Path]) -> None:
    model, processor = vp.load(converted("encoder_mild"))
    maps = map_features(model, processor, media.clip("b.mp4"), fps=5, start=1, end=3, height=96)
    assert [media.number(frame) for frame in maps.frames] == list(range(30, 90, 6))
    assert maps.frames.shape[1:] == (96, 128, 3)
    with pytest.raises(InputError, match="more than 1024 frames"):
        map_features(model, processor, media.clip("b.mp4"), fps=1000)


def test_maps_that_do_not_fit_in_memory(
    converted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(frames: object) -> None:
        raise MemoryError("114 GB")

    model, processor = vp.load(converted("encoder_mild"))
    monkeypatch.setattr("videoprism_mlx.features.maps.np", SimpleNamespace(stack=full))
    with pytest.raises(InputError, match="3 frames do not fit in memory; expected fewer"):
        map_features(model, processor, media.clip("b.mp4"), 3)
