"""Many videos: their features are those that the model gives for each video alone."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import media
import mlx.core as mx
import numpy as np
import pytest
from expected import ALL, assert_alike, assert_close, expected_features

import videoprism_mlx as vp
from videoprism_mlx.errors import InputTypeError
from videoprism_mlx.features import encode as encoding
from videoprism_mlx.features.encode import encode
from videoprism_mlx.features.processor import Processor, processor_for

CLIPS = ["b.mp4", "uneven.mkv", "vp9.webm", "mpeg4.avi", "turned90.mp4", "odd.mkv", "one.mp4"]


@pytest.fixture(scope="module")
def clip(searchable: Path) -> tuple[vp.FactorizedVideoCLIP, Processor]:
    return vp.load(searchable)


def paths() -> list[Path]:
    return [media.clip(name) for name in CLIPS]


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
        assert_close(result.features["tokens"], expected)


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
        assert_close(found, alone.features["embedding"])

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
        (dict(features=[]), "features is empty; expected some of tokens"),
        (dict(errors="skip"), "errors is 'skip'; expected 'raise' or 'yield'"),
        (dict(batch_size=0), "batch_size is 0; expected 1 or more"),
        (dict(readers=-1), "readers is -1; expected 1 or more"),
    ],
)
def test_bad_wishes(options: dict[str, Any], message: str, clip: Any) -> None:
    with pytest.raises(ValueError, match=message):
        list(encode(*clip, paths()[:1], **options))


def test_a_number_of_readers_that_is_no_number(clip: Any) -> None:
    with pytest.raises(InputTypeError, match="readers is nan; expected a whole number"):
        list(encode(*clip, paths()[:1], readers=float("nan")))


def test_any_batch_size_above_the_number_of_videos(clip: Any) -> None:
    [result] = encode(*clip, paths()[:1], batch_size=10**20)
    assert result.error is None


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


def test_a_processor_of_another_size(clip: Any) -> None:
    model, _ = clip
    processor = Processor(num_frames=4, size=24)
    assert processor_for(model).size == 18
    [result] = encode(model, processor, [media.clip("b.mp4")], features=["tokens"])
    frames = vp.read_video(media.clip("b.mp4"), 4, size=24)
    assert_alike(result.features, {"tokens": expected_features(model, frames)["tokens"]})
