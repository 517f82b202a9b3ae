"""Many videos, and long ones: features are the model's of each video or window by itself."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import media
import mlx.core as mx
import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.features import encode as encoding
from videoprism_mlx.features.encode import encode, encode_windows
from videoprism_mlx.features.processor import Processor, processor_for
from videoprism_mlx.video import sampling as video

# The same arithmetic in batches of another size.
CLOSE = dict(rtol=0, atol=2e-6)

ALL = ["tokens", "frames", "pooled", "embedding"]
CLIPS = ["b.mp4", "uneven.mkv", "vp9.webm", "mpeg4.avi", "turned90.mp4", "odd.mkv", "one.mp4"]


@pytest.fixture(scope="module")
def clip(searchable: Path) -> tuple[vp.FactorizedVideoCLIP, Processor]:
    return vp.load(searchable)


def paths() -> list[Path]:
    return [media.clip(name) for name in CLIPS]


def expected_features(model: Any, clip: np.ndarray) -> dict[str, np.ndarray]:
    """The features of one clip (T, S, S, 3) by their definitions."""
    outputs: dict[str, mx.array]
    if isinstance(model, vp.FactorizedVideoCLIP):
        plain, _, outputs = model(clip[None], return_intermediate=True, normalize=False)
        embedding, _, normal = model(clip[None], return_intermediate=True)
        return {
            "tokens": np.array(outputs["spatiotemporal_features"][0]),
            "frames": np.array(normal["frame_embeddings"][0]),
            "pooled": np.array(plain[0]),
            "embedding": np.array(embedding[0]),
        }
    if isinstance(model, vp.FactorizedVideoClassifier):
        _, outputs = model(clip[None], return_intermediate=True)
        tokens = np.array(outputs["spatiotemporal_features"][0])
        pooled = np.array(outputs["global_embeddings"][0])
    else:
        tokens = np.array(model(clip[None])[0][0])
        pooled = tokens.mean(0)
    frames = tokens.reshape(len(clip), -1, tokens.shape[-1]).mean(1)
    return {"tokens": tokens, "frames": frames, "pooled": pooled}


def assert_alike(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], array, **CLOSE, err_msg=name)


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_features_are_those_of_each_video(batch_size: int, clip: Any) -> None:
    model, processor = clip
    results = list(encode(model, processor, paths(), batch_size, ALL))
    assert [result.source for result in results] == paths()
    for path, result in zip(paths(), results, strict=True):
        assert_alike(result.features, expected_features(model, vp.read_video(path, 4, size=18)))


@pytest.mark.parametrize("family", ["encoder_mild", "classifier_mild"])
def test_features_of_other_families(family: str, converted: Callable[[str], Path]) -> None:
    model, processor = vp.load(converted(family))
    names = ["tokens", "frames", "pooled"]
    for result in encode(model, processor, paths()[:2], features=names):
        assert_alike(
            result.features, expected_features(model, vp.read_video(result.source, 4, size=18))
        )
    [result] = encode(model, processor, paths()[:1])
    assert result.features.keys() == {"pooled"}


def test_what_is_not_asked_for_is_the_vector_of_a_video(clip: Any) -> None:
    [result] = encode(*clip, paths()[:1])
    assert result.features.keys() == {"embedding"}
    assert result.features["embedding"].shape == (24,)


def test_clips_of_several_lengths(clip: Any) -> None:
    model, _ = clip
    processor = Processor(num_frames=9, size=18, fps=1)
    sources = [np.random.RandomState(n).rand(n, 18, 18, 3) for n in (30, 120, 26, 99)]
    for source, result in zip(
        sources, encode(model, processor, sources, 4, ["tokens"]), strict=True
    ):
        clip_ = vp.read_video(source, 9, fps=1, size=18)
        assert len(clip_) == -(-len(source) // 25)
        expected = expected_features(model, clip_)["tokens"]
        np.testing.assert_allclose(result.features["tokens"], expected, **CLOSE)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_bad_file_among_good_ones(batch_size: int, clip: Any, tmp_path: Path) -> None:
    sources = paths()
    sources[2:2] = [tmp_path / "missing.mp4", media.clip("sound.mp3")]
    results = list(encode(*clip, sources, batch_size, errors="yield"))
    assert [result.source for result in results] == sources
    assert [result.error is not None for result in results] == [
        False, False, True, True, *[False] * 5
    ]  # fmt: skip
    assert isinstance(results[2].error, FileNotFoundError) and results[2].features == {}
    assert isinstance(results[3].error, vp.VideoError)
    good = [result.features["embedding"] for result in results if result.error is None]
    for found, alone in zip(good, encode(*clip, paths(), 1), strict=True):
        np.testing.assert_allclose(found, alone.features["embedding"], **CLOSE)

    raising = encode(*clip, sources, batch_size)
    assert [next(raising).source for _ in range(2)] == sources[:2]
    with pytest.raises(FileNotFoundError, match=r"missing\.mp4"):
        next(raising)


def test_partial_videos(clip: Any) -> None:
    with pytest.raises(vp.VideoError, match="breaks off"):
        list(encode(*clip, [media.clip("damaged.mp4")]))
    [result] = encode(*clip, [media.clip("damaged.mp4")], features=["tokens"], partial=True)
    frames = vp.read_video(media.clip("damaged.mp4"), 4, size=18, partial=True)
    assert_alike(result.features, {"tokens": expected_features(clip[0], frames)["tokens"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(features=["embeding"]),
            "no feature is called 'embeding' .did you mean 'embedding'",
        ),
        (dict(features=[]), "no features are asked for; expected some of tokens"),
        (dict(errors="skip"), "errors is 'skip'; expected 'raise' or 'yield'"),
        (dict(batch_size=0), "batch_size is 0; expected 1 or more"),
    ],
)
def test_bad_wishes(options: dict[str, Any], message: str, clip: Any) -> None:
    with pytest.raises(ValueError, match=message):
        list(encode(*clip, paths()[:1], **options))


def test_an_encoder_has_no_embedding(converted: Callable[[str], Path]) -> None:
    model, processor = vp.load(converted("encoder_mild"))
    with pytest.raises(ValueError, match="has no embedding; ask for pooled, or use a video-text"):
        list(encode(model, processor, paths()[:1], features=["embedding"]))


class Reads:
    """Stands before `Processor.read` and notes how many have begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0):
        self.begun, self.threads = 0, set()
        self.lock = threading.Lock()
        real = Processor.read

        def read(processor: Processor, source: Any, **options: Any) -> np.ndarray:
            with self.lock:
                self.begun += 1
                self.threads.add(threading.current_thread().name)
            time.sleep(seconds)
            return real(processor, source, **options)

        monkeypatch.setattr(Processor, "read", read)


def test_readers_keep_a_bounded_distance(clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    drawn = 0

    def endless() -> Any:
        nonlocal drawn
        while True:
            drawn += 1
            yield np.full((4, 18, 18, 3), drawn % 256, np.uint8)

    batch_size = 2
    results = encode(*clip, endless(), batch_size)
    for taken in range(1, 30):
        next(results)
        # Two batches read ahead, one computed and one computing.
        assert reads.begun <= drawn <= taken + 4 * batch_size
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("reader")]
    assert all(name.startswith("reader") for name in reads.threads)


def test_the_model_is_given_work_before_results_are_taken(
    clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    real = encoding.video_features
    monkeypatch.setattr(encoding, "video_features", lambda *a: given.append(len(a[1])) or real(*a))
    results = encode(*clip, paths(), batch_size=2)
    next(results)
    assert given == [2, 2]  # The second batch is under way while the first is in the hand.


def test_memory_stays_flat(clip: Any) -> None:
    arrays = (np.full((4, 18, 18, 3), n, np.uint8) for n in range(200))
    held = []
    for number, _ in enumerate(encode(*clip, arrays, batch_size=4, features=ALL)):
        if number > 20:
            held.append(mx.get_active_memory())
    assert max(held) - min(held) < 2_000_000


# Windows.


def independent(
    model: Any, frames: np.ndarray, window: int, stride: int
) -> list[dict[str, np.ndarray]]:
    """The features of each window (T, S, S, 3) by itself."""
    final = len(frames) - window
    firsts = [*range(0, final, stride), final]
    return [expected_features(model, frames[first : first + window]) for first in firsts]


@pytest.mark.parametrize("name", ["b.mp4", "uneven.mkv", "tail.ts", "hidden.webm"])
@pytest.mark.parametrize(("window", "stride"), [(4, 2), (4, 1), (4, 4), (16, 5), (3, 7), (8, 200)])
def test_windows_are_those_encoded_alone(window: int, stride: int, name: str, clip: Any) -> None:
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
        np.testing.assert_allclose(window.features["pooled"], wanted["pooled"], **CLOSE)
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
    np.testing.assert_allclose(window.features["embedding"], expected, **CLOSE)
    assert (window.start, window.end) == (0, pytest.approx(count / 10))
    assert (window.number, window.count) == (0, 1)


@pytest.mark.parametrize(("window", "stride"), [(4, 1), (4, 2), (8, 3), (4, 9)])
def test_each_frame_is_encoded_once(
    window: int, stride: int, clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = clip
    counts = []
    real = encoding.space_features
    monkeypatch.setattr(
        encoding, "space_features", lambda e, clip: counts.append(len(clip)) or real(e, clip)
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


def test_half_precision(searchable: Path, tmp_path: Path) -> None:
    for dtype in ("bfloat16", "float16"):
        model, processor = vp.load(searchable, dtype)
        results = encode(model, processor, paths()[:3], features=["tokens", "embedding"])
        for result in results:
            kinds = {name: array.dtype.name for name, array in result.features.items()}
            wide = "float32" if dtype == "bfloat16" else "float16"
            assert kinds["tokens"] == wide
            frames = vp.read_video(result.source, 4, size=18)
            expected, _, _ = model(frames[None])
            np.testing.assert_allclose(
                result.features["embedding"], np.array(expected[0].astype(mx.float32)), atol=4e-3
            )


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


def test_a_processor_of_another_size(clip: Any) -> None:
    model, _ = clip
    processor = Processor(num_frames=4, size=24)
    assert processor_for(model).size == 18
    [result] = encode(model, processor, [media.clip("b.mp4")], features=["tokens"])
    frames = vp.read_video(media.clip("b.mp4"), 4, size=24)
    assert_alike(result.features, {"tokens": expected_features(model, frames)["tokens"]})
