"""Every frame of a video file is the one that was asked for, whatever the file's headers say."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import media
import numpy as np
import pytest

from videoprism_mlx.video import sampling
from videoprism_mlx.video.ffmpeg import decoder, reader, walker
from videoprism_mlx.video.ffmpeg.colours import Converter
from videoprism_mlx.video.ffmpeg.decoder import Decoder
from videoprism_mlx.video.ffmpeg.opening import open_stream
from videoprism_mlx.video.ffmpeg.reader import VideoFile

ALL = range(media.FRAMES)
TURNED = {name for name in media.DERIVED if "turned" in name}

# The frames that each clip holds, by number.
HELD: dict[str, list[int]] = {
    name: list(ALL) for name in media.ENCODED if name not in ("av1.mp4", "uneven.mp4", "uneven.mkv")
}
# fmt: off
HELD |= {
    name: list(ALL)
    for name in (
        "fragments.mp4", "streamable.mp4", "offset.ts", "offset.mkv", "odd.mp4", "odd.mkv",
        "sound.mp4", "two_streams.mkv", "cover.mp4", "subtitled.mkv", "negative.mkv", "late.mp4",
        "wrap.ts", "fast.mp4", "fast.mkv", "slow.mp4", "slow.mkv", "bare.mjpeg", "bare.m2v",
        "moving.apng",
    )
}
# fmt: on
HELD |= {name: media.UNEVEN_FRAMES for name in media.DERIVED if name.startswith("uneven.")}
HELD |= dict.fromkeys(("uneven.mp4", "uneven.mkv"), media.UNEVEN_FRAMES)
HELD |= {
    "one.mp4": [0],
    "two.mp4": [0, 1],
    "edited.mp4": list(range(33, 100)),
    "negative.mp4": list(range(30, 100)),
    "joined.ts": list(range(200)),
    "backwards.ts": list(range(200)),
    "hidden.webm": list(range(200)),
}
# Where the first frame depends on the encoder, FFmpeg says which it is.
TAILS = ["tail.ts", "tail_open.ts", "tail.mpg"]


def shown(path: Path, *arguments: Any, **options: Any) -> list[int]:
    """The numbers of the frames that are read, in full size."""
    return media.numbers(sampling.read_video(path, *arguments, size=None, **options))


def spread(numbers: list[int], count: int) -> list[int]:
    """`count` of the numbers, as the official demos choose them."""
    return [numbers[n] for n in np.linspace(0, len(numbers), count, endpoint=False).astype(int)]


def held(name: str) -> list[int]:
    """The frames that a clip holds."""
    if name in TAILS:
        return media.numbers(media.decode(media.clip(name), *media.SIZE))
    return HELD[name]


def at(file: VideoFile, number: int) -> np.ndarray:
    """One frame of a file, once it is known what the file holds."""
    attempts = []

    def attempt() -> Iterator[np.ndarray]:
        attempts.append(number)
        assert len(attempts) <= 3, "the file is never done with finding out what it holds"
        return file.fetch([number])

    [image] = file.consistently(attempt)
    return image


def times_of(path: Path) -> np.ndarray:
    """The times of a file that was read to its end."""
    return sampling.sample(path, lambda image, aspect: None, None)[1]


@pytest.mark.parametrize("name", [*HELD, *TAILS])
def test_every_frame_in_order(name: str) -> None:
    path, expected = media.clip(name), held(name)
    assert len(expected) > 45 or name in ("one.mp4", "two.mp4")
    assert shown(path, None) == expected
    assert shown(path) == spread(expected, 16)


@pytest.mark.parametrize("name", [*HELD, *TAILS])
def test_any_frame_by_seeking(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, expected = media.clip(name), held(name)
    whole = sampling.read_video(path, None, size=None)
    monkeypatch.setattr(walker, "SEEK_BEYOND", 4)
    chosen = spread(list(range(len(whole))), 16)
    sampled = sampling.read_video(path, size=None)
    assert media.numbers(sampled) == [expected[n] for n in chosen]
    if name != "refresh.mp4":  # Its pictures come clear bit by bit.
        assert np.array_equal(sampled, whole[chosen])

    file = VideoFile(path)
    at(file, len(whole) - 1)
    for number in np.random.RandomState(0).permutation(len(whole))[:12]:
        assert media.number(at(file, number)) == expected[number]
    file.close()


@pytest.mark.parametrize("name", sorted(HELD))
def test_times(name: str) -> None:
    rates = {"fast": 1000, "slow": 0.1, "bare": 25, "moving": 25}
    rate = rates.get(name.split(".")[0], media.FPS)
    expected = (np.array(HELD[name]) - HELD[name][0]) / rate
    if name == "backwards.ts":
        # The clock jumps back by 15 minutes, which FFmpeg takes for a day ahead.
        expected = np.arange(2 * media.FRAMES) / media.FPS
    if name.startswith("joined"):
        assert np.all(np.diff(times_of(media.clip(name))) > 0)
        return
    tolerance = 0.006 if name.endswith(".gif") else 0.0011
    np.testing.assert_allclose(times_of(media.clip(name)), expected, rtol=0, atol=tolerance)


def test_a_frame_without_a_time() -> None:
    instants = np.arange(0, 1000, 5) / 10
    assert shown(media.clip("slow.mkv"), None, fps=0.2) == instants.astype(int).tolist()


@pytest.mark.parametrize("name", ["growing.h264", "shrinking.h264"])
def test_frames_that_change_size(name: str) -> None:
    expected = list(ALL) if name == "growing.h264" else [*range(50, 100), *range(50)]
    assert media.numbers(sampling.read_video(media.clip(name), None, size=96)) == expected


@pytest.mark.parametrize("count", [0, 40, 400])
@pytest.mark.parametrize("name", ["b.avi", "mjpeg.avi"])
def test_a_header_that_lies(name: str, count: int, tmp_path: Path) -> None:
    path = media.declare(media.clip(name), tmp_path / name, count)
    assert shown(path, None) == list(ALL)
    assert shown(path) == spread(list(ALL), 16)
    assert len(times_of(path)) == media.FRAMES


def test_an_estimate_that_is_wrong() -> None:
    path = media.clip("offset.mkv")
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) != media.FRAMES
    file = VideoFile(path)
    assert len(file.times) == media.FRAMES
    file.close()


@pytest.mark.parametrize("name", sorted(TURNED - {"wide_turned90.mp4"}))
def test_the_right_way_up(name: str) -> None:
    width, height = media.SIZE if "180" in name else media.SIZE[::-1]
    expected = media.decode(media.clip(name), width, height)
    frames = sampling.read_video(media.clip(name), None, size=None) * 255
    assert frames.shape == expected.shape
    for corner in (np.s_[:, :8, :8], np.s_[:, :8, -8:], np.s_[:, -8:, :8], np.s_[:, -8:, -8:]):
        assert np.abs(frames[corner].mean((0, 1, 2)) - expected[corner].mean((0, 1, 2))).max() < 8
    assert np.abs(frames - expected).mean() < 3


@pytest.mark.parametrize(
    ("name", "aspect"),
    [("b.mp4", 1), ("wide.mp4", 2), ("wide_turned90.mp4", 0.5), ("turned90.mp4", 1)],
)
def test_the_shape_of_a_pixel(name: str, aspect: float) -> None:
    file = VideoFile(media.clip(name))
    assert file.aspect == pytest.approx(aspect)
    file.close()


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """How many frames were decoded and how often it was sought since the last call."""
    decoded, sought = [], []
    real, real_begin = Decoder._decoded, Decoder._begin

    def counted(file: Decoder, *read: Any) -> Iterator[Any]:
        for frame in real(file, *read):
            decoded.append(1)
            yield frame

    def begin(file: Decoder, *read: Any) -> None:
        sought.extend([1] * bool(read))
        real_begin(file, *read)

    monkeypatch.setattr(Decoder, "_decoded", counted)
    monkeypatch.setattr(Decoder, "_begin", begin)

    def count() -> tuple[int, int]:
        counts = len(decoded), len(sought)
        decoded.clear()
        sought.clear()
        return counts

    return count


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "b.ts", "mpeg4.avi", "raw.h264", "vp9.webm"])
def test_a_sample_decodes_the_clip_once(name: str, cost: Callable[[], tuple[int, int]]) -> None:
    path = media.clip(name)
    shown(path)
    assert cost()[0] <= media.FRAMES + 3
    shown(path, 4, end=0.5)
    assert cost()[0] <= 15 + 3


@pytest.mark.parametrize("name", ["b.mkv", "b.ts", "uneven.mp4", "tail_open.ts", "hidden.webm"])
@pytest.mark.parametrize("kept", [0, decoder.KEPT_BYTES])
def test_a_short_file_is_opened_once(name: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(
        reader, "open_stream", lambda *a, **options: opened.append(1) or open_stream(*a, **options)
    )
    monkeypatch.setattr(decoder, "KEPT_BYTES", kept)
    expected = held(name)
    file = VideoFile(media.clip(name))
    assert len(opened) == (1 if kept else 2)
    frames = [*file.consistently(lambda: file.fetch(range(len(expected))))]
    assert media.numbers(np.stack(frames)) == expected
    file.close()


@pytest.mark.parametrize("name", ["mpeg4.avi", "bare.mjpeg", "b.mp4"])
def test_going_back_by_seeking(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg refuses to seek to before the start, as for the first key frames."""
    monkeypatch.setattr(walker, "SEEK_BEYOND", 4)
    file = VideoFile(media.clip(name))
    assert [media.number(at(file, number)) for number in (99, 30, 17, 13, 2)] == [99, 30, 17, 13, 2]
    file.close()


def test_frames_with_the_same_clock_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second recording begins at the clock of the first one's last frame."""
    monkeypatch.setattr(walker, "SEEK_BEYOND", 4)
    first = ["-c:v", "mpeg2video", "-g", "5"]
    media.write(tmp_path / "a.ts", frames=60, arguments=first)
    offset = ["-output_ts_offset", str(60 / media.FPS)]
    media.write(tmp_path / "b.ts", frames=range(60, 120), arguments=[*first, *offset])
    path = media.join(tmp_path / "both.ts", tmp_path / "a.ts", tmp_path / "b.ts")
    assert shown(path, None) == list(range(120))
    assert shown(path, 16) == spread(list(range(120)), 16)
    assert shown(path, None, start=90 / media.FPS, end=100 / media.FPS) == list(range(91, 101))


LONG = [
    *("long.mp4", "long.mkv", "long.ts", "long.avi", "long_open.ts", "long_interlaced.ts"),
    *("long_hevc.ts", "long_hevc.mkv"),
]
LONG_FRAMES = list(range(media.LONG["frames"]))


@pytest.mark.parametrize("name", LONG)
def test_a_long_file_is_sought_in(
    name: str, cost: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media.clip(name)
    assert shown(path, 8) == spread(LONG_FRAMES, 8)
    grabs, seeks = cost()
    assert seeks >= 7
    assert grabs < len(LONG_FRAMES) / 2

    monkeypatch.setattr(walker, "SEEK_BEYOND", 100)
    assert shown(path, 16) == spread(LONG_FRAMES, 16)
    grabs, seeks = cost()
    assert seeks >= 10
    assert grabs < len(LONG_FRAMES) * 0.75


@pytest.mark.parametrize("name", LONG)
def test_a_late_window_costs_what_an_early_one_does(
    name: str, cost: Callable[[], tuple[int, int]]
) -> None:
    path = media.clip(name)
    assert shown(path, start=0, end=2) == spread(LONG_FRAMES[:60], 16)
    early, _ = cost()
    assert shown(path, start=100, end=102) == spread(LONG_FRAMES[3000:3060], 16)
    late, _ = cost()
    assert late <= early + 250  # Encoders set key frames no further apart.


def test_an_edited_long_file() -> None:
    path, frames = media.clip("long_edited.mp4"), LONG_FRAMES[615:]
    assert shown(path) == spread(frames, 16)
    assert shown(path, start=60, end=62) == spread(frames[1800:1860], 16)
    assert shown(path, 4, start=50, fps=1) == [frames[30 * n] for n in (50, 51, 52, 53)]


def test_frames_come_one_by_one(
    monkeypatch: pytest.MonkeyPatch, cost: Callable[[], tuple[int, int]]
) -> None:
    converted = []
    real = Converter.__call__
    monkeypatch.setattr(Converter, "__call__", lambda *a: converted.append(1) or real(*a))
    file = VideoFile(media.clip("b.mp4"))
    frames = file.fetch(range(media.FRAMES))
    assert not converted
    assert [media.number(next(frames)) for _ in range(3)] == [0, 1, 2]
    assert len(converted) == 3
    assert cost()[0] == 3
    file.close()
