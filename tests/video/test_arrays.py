"""Arrays as the frames of a video, and sources that are none."""

import os
from pathlib import Path
from typing import Any

import media
import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from videoprism_mlx.errors import InputError, VideoError
from videoprism_mlx.video import stills
from videoprism_mlx.video.sampling import read_video


def numbers(source: Any, num_frames: int | None = None, **options: Any) -> list[int]:
    """The numbers of the frames that are read, in full size."""
    return media.numbers(read_video(source, num_frames, size=None, **options))


def frames(count: int) -> np.ndarray:
    """The first frames, (count, H, W, 3)."""
    return np.stack([media.frame(n) for n in range(count)])


@pytest.mark.parametrize(
    "convert",
    [
        lambda array: array,
        lambda array: array.astype(np.float32) / 255,
        lambda array: array.astype(np.float64) / 255,
        lambda array: array.astype(np.float16) / 255,
        lambda array: array.astype(">f4") / 255,
        lambda array: array[..., 0],
        lambda array: array[..., :1],
        lambda array: np.concatenate([array, array[..., :1] * 0], axis=-1),
        lambda array: array[::-1][::-1].transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3),
        lambda array: mx.array(array),
        lambda array: mx.array(array.astype(np.float32) / 255),
        lambda array: mx.array(array.astype(np.float32) / 255).astype(mx.bfloat16),
        lambda array: list(array),
        lambda array: tuple(array / 255),
        lambda array: [Image.fromarray(one) for one in array],
    ],
)
def test_arrays(convert: Any) -> None:
    array = frames(5)
    result = read_video(convert(array), None, size=None)
    assert result.dtype == np.float32
    assert result.shape == array.shape
    assert media.numbers(result) == list(range(5))
    assert read_video(convert(array), 4, size=24).shape == (4, 24, 24, 3)
    assert numbers(convert(array), frame_rate=2, start=1, end=2) == [2, 3]


@pytest.mark.parametrize("channels", [np.s_[..., 0], np.s_[..., :1], np.s_[...]])
def test_an_array_may_be_one_image(channels: Any) -> None:
    assert numbers(media.frame(99)[channels], 2) == [99, 99]


SQUARE = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (SQUARE.astype(np.int64), TypeError, r"of type int64; expected \(frames, height"),
        (SQUARE.astype(bool), TypeError, "of type bool"),
        (SQUARE.astype(complex), TypeError, "of type complex128"),
        (SQUARE + 255.0, ValueError, "values from 255 to 255.*divide 0-255 pixels by 255"),
        (SQUARE * np.nan, ValueError, "values from nan to nan"),
        (SQUARE[None], ValueError, r"shape \(1, 2, 8, 8, 3\); expected \(frames, height"),
        (SQUARE.transpose(0, 3, 1, 2), ValueError, r"shape \(2, 3, 8, 8\); expected"),
        (SQUARE[..., :2], ValueError, r"shape \(2, 8, 8, 2\)"),
        (SQUARE[0, 0, :, 0], ValueError, r"shape \(8,\); expected"),
        (SQUARE[:0], ValueError, "which is empty"),
        (SQUARE[:, :0], ValueError, "which is empty"),
        (np.zeros(()), ValueError, r"shape \(\); expected"),
        ([], VideoError, "list of images is empty"),
        ((), VideoError, "list of images is empty"),
        (None, TypeError, "a video is a NoneType; expected the path"),
        (7, TypeError, "a video is a int; expected the path"),
        (b"clip.mp4", TypeError, "a video is a bytes; expected the path"),
        ({"a": 1}, TypeError, "a video is a dict"),
        ("", VideoError, "holds no images|neither|no such"),
    ],
)
def test_bad_sources(
    source: Any,
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        read_video(source)


@pytest.mark.parametrize("source", [["a.png", SQUARE], [SQUARE[0], SQUARE[0, 1:]]])
def test_bad_lists(source: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"of the list differ.*; expected paths"):
        read_video(source)


@pytest.mark.parametrize("rate", [0, -1, np.nan, np.inf])
def test_bad_frame_rates(rate: float) -> None:
    with pytest.raises(ValueError, match=r"frame_rate is .*; expected frames a second"):
        read_video(SQUARE, frame_rate=rate)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.png", "no/clip.mp4"])
def test_a_missing_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=Path(name).name):
        read_video(tmp_path / name)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip.mp4")
    for path in (tmp_path / "clip.mp4", Path(os.devnull)):
        with pytest.raises(VideoError, match="neither a file nor a folder"):
            read_video(path)


@pytest.mark.parametrize("error", [TypeError, ValueError, RuntimeError])
def test_an_array_that_numpy_cannot_read(error: type[Exception]) -> None:
    class OnADevice:
        shape = (2, 8, 8, 3)

        def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
            raise error("copy it to the host first")

    with pytest.raises(InputError, match=r"are a OnADevice .*copy it to the host.*NumPy array"):
        read_video(OnADevice())


def test_an_array_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise MemoryError("12 GB")

    monkeypatch.setattr(stills, "checked_frames", refuse)
    with pytest.raises(VideoError, match=r"array of frames cannot be used: .*memory .12 GB"):
        read_video(SQUARE)
