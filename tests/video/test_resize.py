"""Frames of one size to another."""

import functools
from collections.abc import Callable
from typing import Any

import cv2
import media
import numpy as np
import pytest
from PIL import Image

from videoprism_mlx.errors import VideoError
from videoprism_mlx.video import resize as resizing
from videoprism_mlx.video.resize import thumbnail
from videoprism_mlx.video.sampling import read_video


def weighed(image: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """An image (H, W, 3) whose rows or columns are `weights` (new, old) of what they were."""
    return np.moveaxis(np.tensordot(weights, image.astype(np.float64), (1, axis)), 0, axis)


def kept(image: np.ndarray, kind: np.dtype) -> np.ndarray:
    """An image as one of that type."""
    return image.round().clip(0, 255).astype(np.uint8) if kind == np.uint8 else image


def lanczos(image: np.ndarray, height: int, width: int, first: int = 1) -> np.ndarray:
    """Lanczos of three lobes, as wide as what it averages over, along the first axis first."""
    kind = image.dtype
    for axis in (first, 1 - first):
        old, new = image.shape[axis], (height, width)[axis]
        scale = old / new
        places = (np.arange(old) + 0.5 - (np.arange(new)[:, None] + 0.5) * scale) / max(scale, 1)
        weights = np.where(np.abs(places) < 3, np.sinc(places) * np.sinc(places / 3), 0)
        weights /= weights.sum(1, keepdims=True)
        image = kept(weighed(image, weights, axis), kind)
    return image


def area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """What each pixel covers of the old ones; where there are more than before, cubic."""
    kind = image.dtype
    for axis, new in ((1, width), (0, height)):
        old = image.shape[axis]
        if new < old:
            edges = np.arange(new + 1)[:, None] * old / new
            inside = np.clip(edges - np.arange(old), 0, 1)  # Of each old pixel, up to each edge.
            image = weighed(image, np.diff(inside, axis=0) * new / old, axis)
    image = kept(image, kind)
    for axis, new in ((1, width), (0, height)):
        old = image.shape[axis]
        if new > old:
            centres = (np.arange(new) + 0.5) * old / new - 0.5
            weights = np.zeros((new, old))
            for tap in range(-1, 3):
                places = np.floor(centres).astype(int) + tap
                far, a = np.abs(places - centres), -0.75
                near = (a + 2) * far**3 - (a + 3) * far**2 + 1
                outer = a * (far**3 - 5 * far**2 + 8 * far - 4)
                taps = np.where(far <= 1, near, outer)
                np.add.at(weights, (np.arange(new), places.clip(0, old - 1)), taps)
            image = weighed(image, weights, axis)
    return kept(image, kind)


def cropped(image: np.ndarray, size: int, resize: Any = lanczos) -> np.ndarray:
    """An image whose shorter side becomes `size`, and the centre of it."""
    scale = size / min(image.shape[:2])
    height, width = (round(length * scale) for length in image.shape[:2])
    top, left = (height - size) // 2, (width - size) // 2
    return resize(image, height, width)[top : top + size, left : left + size]


def stretched(image: np.ndarray, size: int, resize: Any = lanczos) -> np.ndarray:
    """An image of another shape."""
    return resize(image, size, size)


RANDOM = np.random.RandomState(0)
SHAPES = [(1, 1), (1, 60), (37, 53), (53, 37), (64, 64), (96, 128), (101, 67), (20, 200)]


@pytest.mark.parametrize("size", [1, 16, 33, 64, 120])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("resize", "shaped"), [("stretch", stretched), ("crop", cropped)])
@pytest.mark.parametrize(
    ("resample", "ways"),
    # Which axis Pillow begins with depends on its version; it rounds between the two.
    [("area", [area]), ("lanczos", [functools.partial(lanczos, first=n) for n in (0, 1)])],
)
def test_resizing(
    resample: str, ways: list[Any], resize: str, shaped: Any, shape: tuple[int, int], size: int
) -> None:
    image = np.random.RandomState(0).randint(0, 256, (*shape, 3)).astype(np.uint8)
    result = read_video(image, 1, size=size, resize=resize, resample=resample)
    assert result.dtype == np.float32
    assert result.shape == (1, size, size, 3)
    differences = [np.abs(result[0] * 255 - shaped(image, size, scaled)) for scaled in ways]
    difference = min(differences, key=np.max)
    assert difference.max() < 2.01
    assert (difference > 1.01).mean() < 0.002

    floats = image.astype(np.float32) / 255
    result = read_video(floats, 1, size=size, resize=resize, resample=resample)
    assert result.dtype == np.float32
    assert np.abs(result[0] - shaped(floats, size, ways[0]).clip(0, 1)).max() < 1e-5


@pytest.mark.parametrize("resample", ["area", "lanczos"])
@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_what_fits_stays_as_it_is(resize: str, resample: str) -> None:
    images = RANDOM.randint(0, 256, (3, 40, 40, 3)).astype(np.uint8)
    expected = images.astype(np.float32) / 255
    for source in (images, expected):
        for size in (40, None):
            result = read_video(source, None, size=size, resize=resize, resample=resample)
            assert np.array_equal(result, expected)


@pytest.mark.parametrize("resample", ["area", "lanczos"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [100, 200])
def test_no_patterns_that_were_not_there(size: int, kind: type, resample: str) -> None:
    board = np.indices((512, 512)).sum(0) % 2 * (255 if kind is np.uint8 else 1)
    image = np.repeat(board[..., None], 3, axis=-1).astype(kind)
    result = read_video(image, 1, size=size, resample=resample)[0, 3:-3, 3:-3]
    assert result.std() < (0.02 if resample == "lanczos" else 0.04)
    assert abs(result.mean() - 0.5) < 0.01


@pytest.mark.parametrize("resample", ["area", "lanczos"])
def test_sharp_edges_stay_in_range(resample: str) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 255
    for source in (image, image.astype(np.float32) / 255):
        result = read_video(source, 1, size=64, resample=resample)
        assert result.min() == 0
        assert result.max() == 1


@pytest.mark.parametrize("name", ["b.mp4", "wide.mp4", "turned90.mp4", "wide_turned90.mp4"])
@pytest.mark.parametrize("size", [32, 150])
def test_a_crop_is_of_what_players_show(name: str, size: int) -> None:
    width, height = {
        "b.mp4": (128, 96),
        "wide.mp4": (256, 96),
        "turned90.mp4": (96, 128),
        "wide_turned90.mp4": (48, 128),
    }[name]
    square = ("scale=iw*sar:ih:flags=lanczos", "setsar=1")
    shown = media.decode(media.clip(name), width, height, *square)
    result = read_video(media.clip(name), None, size=size, resize="crop", resample="lanczos") * 255
    assert len(result) == len(shown)
    for n in (0, 50, 99):
        assert np.abs(result[n] - cropped(shown[n], size)).mean() < 8


def raiser(error: BaseException) -> Callable[..., None]:
    """A function that only raises this."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise error

    return refuse


@pytest.mark.parametrize("error", [MemoryError("12 GB"), cv2.error("12 GB"), MemoryError()])
@pytest.mark.parametrize("resample", ["area", "lanczos"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_resizing_without_memory(
    kind: type, resample: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resizing.cv2, "resize", raiser(error))
    monkeypatch.setattr(Image.Image, "resize", raiser(error))
    expected = "a frame of 40 x 30 cannot be resized to 18 x 18: .*"
    with pytest.raises(VideoError, match=expected + str(error)):
        read_video(np.zeros((1, 30, 40, 3), kind), size=18, resample=resample)


def test_pixels_of_an_absurd_shape() -> None:
    image = np.zeros((96, 128, 3), np.uint8)
    assert thumbnail(image, 48, aspect=2).shape == (48, 128, 3)
    with pytest.raises(VideoError, match="128 x 96, too long and thin to be shown"):
        thumbnail(image, 48, aspect=1e6)
    for aspect in (1e6, 1e-6):
        with pytest.raises(VideoError, match="128 x 96, too long and thin to be cropped"):
            resizing.resized(image, 18, "crop", "area", aspect)
