"""Long videos: the features of a window are those that the model gives for it alone."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import media
import mlx.core as mx
import numpy as np
import pytest
from expected import ALL, assert_alike, assert_close, expected_features
from thinned import thinned

import videoprism_mlx as vp
from videoprism_mlx.features import windows as windowing
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.features.windows import encode_windows
from videoprism_mlx.video import sampling as video


@pytest.fixture(scope="module")
def clip(searchable: Path) -> tuple[vp.FactorizedVideoCLIP, Processor]:
    return vp.load(searchable)


def independent(
    model: Any, frames: np.ndarray, window: int, stride: int
) -> list[dict[str, np.ndarray]]:
    """The features of each window (T, S, S, 3) by itself."""
    final = len(frames) - window
    firsts = [*range(0, final, stride), final]
    return [expected_features(model, frames[first : first + window]) for first in firsts]


CLIPS = ["b.mp4", "uneven.mkv", "tail.ts", "hidden.webm"]
WINDOWS = [(4, 2), (4, 1), (4, 4), (16, 5), (3, 7), (8, 200)]


@pytest.mark.parametrize(("name", "window", "stride"), thinned(CLIPS, WINDOWS, keep=3))
def test_windows_are_those_encoded_alone(name: str, window: int, stride: int, clip: Any) -> None:
    model, processor = clip
    frames = vp.read_video(media.clip(name), None, size=18)
    _, times = video.sample(media.clip(name), lambda image, aspect: None, None)
    expected = independent(model, frames, window, stride)
    windows = list(
        encode_windows(model, media.clip(name), window, stride, processor=processor, features=ALL)
    )
    assert len(windows) == len(expected) == windows[-1].count
    for number, (found, wanted) in enumerate(zip(windows, expected, strict=True)):
        first = min(number * stride, len(frames) - window)
        assert found.number == number
        assert found.start == pytest.approx(times[first], abs=1e-3)
        if first + window < len(frames):
            assert found.end == pytest.approx(times[first + window], abs=1e-3)
        else:
            assert found.end == pytest.approx(times[-1] + np.median(np.diff(times)), abs=1e-3)
        assert_alike(found.features, wanted)


def test_windows_at_a_rate_and_in_a_span(clip: Any) -> None:
    model, _ = clip
    path = media.clip("b.mp4")
    windows = list(
        encode_windows(model, path, 4, 2, 6, features=["pooled"], start=1, end=3)
    )  # Without a processor, the model's own size.
    frames = vp.read_video(path, None, start=1, end=3, fps=6, size=18)
    assert len(frames) == 12
    for window, wanted in zip(windows, independent(model, frames, 4, 2), strict=True):
        assert_close(window.features["pooled"], wanted["pooled"])
    assert [window.start for window in windows] == pytest.approx([1, 4 / 3, 5 / 3, 2, 7 / 3])
    assert [window.end for window in windows] == pytest.approx([5 / 3, 2, 7 / 3, 8 / 3, 3])


@pytest.mark.parametrize("family", ["encoder_mild", "classifier_mild"])
def test_windows_of_other_families(family: str, converted: Callable[[str], Path]) -> None:
    model, processor = vp.load(converted(family))
    frames = np.random.RandomState(0).rand(11, 18, 18, 3).astype(np.float32)
    windows = list(encode_windows(model, frames, 4, 3))
    assert windows[0].features.keys() == {"tokens", "pooled"}
    for window, wanted in zip(windows, independent(model, frames, 4, 3), strict=True):
        assert_alike(window.features, {key: wanted[key] for key in ("tokens", "pooled")})
    assert processor.size == 18


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_video_shorter_than_a_window(count: int, clip: Any) -> None:
    model, processor = clip
    frames = np.random.RandomState(0).rand(count, 18, 18, 3).astype(np.float32)
    [window] = encode_windows(
        model, frames, 6, 2, processor=processor, features=["embedding"], frame_rate=10
    )
    repeated = vp.read_video(frames, 6, size=18)
    expected = expected_features(model, repeated)["embedding"]
    assert_close(window.features["embedding"], expected)
    assert (window.start, window.end) == (0, pytest.approx(count / 10))
    assert (window.number, window.count) == (0, 1)


@pytest.mark.parametrize(("window", "stride"), [(4, 1), (4, 2), (8, 3), (4, 9)])
def test_each_frame_is_encoded_once(
    window: int, stride: int, clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = clip
    counts = []
    real = windowing.space_features
    monkeypatch.setattr(
        windowing, "space_features", lambda e, clip: counts.append(len(clip)) or real(e, clip)
    )
    frames = np.random.RandomState(0).rand(50, 18, 18, 3)
    windows = list(encode_windows(model, frames, window, stride, processor=processor))
    firsts = [min(one.number * stride, 50 - window) for one in windows]
    needed = {first + i for first in firsts for i in range(window)}
    assert sum(counts) == len(needed)
    assert max(counts) <= window


def test_memory_stays_flat_along_a_video(clip: Any) -> None:
    frames = np.zeros((400, 18, 18, 3), np.uint8)
    held = []
    for window in encode_windows(clip[0], frames, 4, 1, processor=clip[1]):
        if window.number > 20:
            held.append(mx.get_active_memory())
    assert max(held) - min(held) < 2_000_000


def test_windows_before_the_damage_come_first(clip: Any) -> None:
    windows = encode_windows(*clip[:1], media.clip("damaged.mp4"), 4, 4, processor=clip[1])
    found = []
    with pytest.raises(vp.VideoError, match="breaks off after 5"):
        for window in windows:
            found.append(window)
    assert 8 <= len(found) <= 14
    whole = list(
        encode_windows(clip[0], media.clip("damaged.mp4"), 4, 4, processor=clip[1], partial=True)
    )
    assert [window.number for window in whole] == list(range(whole[-1].count))
    assert len(whole) > 20
    for one, other in zip(found, whole, strict=False):
        np.testing.assert_array_equal(one.features["tokens"], other.features["tokens"])


def test_stopping_in_the_middle(clip: Any) -> None:
    for _ in range(5):
        for window in encode_windows(clip[0], media.clip("long.mp4"), 4, 4, processor=clip[1]):
            assert window.number == 0
            break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(window=0), "window is 0; expected 1 frame or more"),
        (dict(stride=0), "stride is 0; expected 1 frame or more"),
        (dict(stride=-2), "stride is -2"),
        (dict(fps=0), "fps is 0; expected frames a second"),
        (dict(start=9, end=10), "outside"),
        (dict(features=["frame"]), "did you mean 'frames'"),
    ],
)
def test_bad_windows(options: dict[str, Any], message: str, clip: Any) -> None:
    with pytest.raises(ValueError, match=message):
        list(encode_windows(clip[0], media.clip("b.mp4"), **options))
