"""From files, images and arrays to the frames that a model takes."""

import functools
import os
import shutil
import time
from pathlib import Path
from typing import Any

import cv2
import media
import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from videoprism_mlx.errors import VideoError
from videoprism_mlx.video import reader as videofile
from videoprism_mlx.video import sampling as video
from videoprism_mlx.video.sampling import find_videos, read_video

HEIGHT, WIDTH = 96, 128


def numbers(source: Any, num_frames: int | None = None, **options: Any) -> list[int]:
    """The numbers of the frames that are read, in full size."""
    return media.numbers(read_video(source, num_frames, size=None, **options))


def frames(count: int) -> np.ndarray:
    """The first frames, (count, H, W, 3)."""
    return np.stack([media.frame(n) for n in range(count)])


# Sampling.

UNEVEN = ["uneven.mp4", "uneven.mkv", "uneven.avi"]


@pytest.mark.parametrize("name", UNEVEN)
@pytest.mark.parametrize("fps", [1, 2.5, 10, 30, 48])
def test_a_rate_takes_what_is_on_display(name: str, fps: float) -> None:
    instants = np.arange(np.ceil(media.FRAMES / media.FPS * fps - 1e-2)) / fps
    kept = np.array(media.UNEVEN_FRAMES)
    shown = [int(kept[kept <= instant * media.FPS + 1e-2].max()) for instant in instants]
    path = media.clip(name)
    assert numbers(path, fps=fps) == shown
    assert numbers(path, 3, fps=fps) == shown[:3]
    later = [
        int(kept[kept <= (1 + instant) * media.FPS + 1e-2].max())
        for instant in np.arange(np.ceil(fps - 1e-2)) / fps
    ]
    assert numbers(path, fps=fps, start=1, end=2) == later


@pytest.mark.parametrize("name", UNEVEN)
@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 0.5), (0.5, 2), (1, 1.4), (2, None), (None, 1), (3.3, 9 / 2.7), (0, 3.33)],
)
def test_a_span_takes_what_begins_in_it(name: str, start: float | None, end: float | None) -> None:
    first, stop = (start or 0) * media.FPS - 1e-2, (9 if end is None else end) * media.FPS - 1e-2
    inside = [n for n in media.UNEVEN_FRAMES if first <= n < stop]
    path = media.clip(name)
    assert numbers(path, start=start, end=end) == inside
    chosen = np.linspace(0, len(inside), 16, endpoint=False).astype(int)
    assert numbers(path, 16, start=start, end=end) == [inside[n] for n in chosen]


@pytest.mark.parametrize("count", [1, 2, 7, 15, 16, 17, 33, 100])
def test_samples_are_those_of_the_demos(count: int) -> None:
    expected = np.linspace(0, count, 16, endpoint=False).astype(int).tolist()
    assert numbers(frames(count), 16) == expected
    assert read_video(frames(count), size=8).shape == (16, 8, 8, 3)


def test_when_frames_are_shown() -> None:
    _, times = video.sample(media.clip("b.mp4"), lambda image, aspect: None, 4, start=1, end=2)
    assert np.allclose(times, [30 / 30, 37 / 30, 45 / 30, 52 / 30], atol=1e-3)
    _, times = video.sample(frames(10), lambda image, aspect: None, 5, frame_rate=5)
    assert np.allclose(times, [0, 0.4, 0.8, 1.2, 1.6])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(start=4), ValueError, r"from 4 s to the end is outside.*3\.33 s long"),
        (dict(start=100, end=101), ValueError, r"from 100 s to 101 s is outside.*3\.33 s long"),
        (dict(end=3.5), ValueError, r"from 0 s to 3\.5 s is outside.*3\.33 s long"),
        (dict(start=2, end=1), ValueError, "from 2 to 1 s is empty"),
        (dict(start=1, end=1), ValueError, "from 1 to 1 s is empty"),
        (dict(start=-1), ValueError, "start is -1"),
        (dict(end=-1), ValueError, "end is -1"),
        (dict(start=np.nan), ValueError, "start is nan"),
        (dict(end=np.nan), ValueError, "end is nan"),
        (dict(end=np.inf), ValueError, "end is inf"),
        (dict(start=0.7, end=1.3), ValueError, r"no frame of .* between 0\.7 and 1\.3 s.*widen"),
        (dict(num_frames=0), ValueError, "num_frames is 0; expected 1 or more"),
        (dict(num_frames=-16), ValueError, "num_frames is -16"),
        (dict(num_frames=1.5), TypeError, "float"),
        (dict(fps=0), ValueError, "fps is 0; expected frames a second"),
        (dict(fps=-1), ValueError, "fps is -1"),
        (dict(fps=np.nan), ValueError, "fps is nan"),
        (dict(size=0), ValueError, "size is 0; expected 1 to"),
        (dict(size=-288), ValueError, "size is -288"),
        (dict(size=10**6), ValueError, "size is 1000000"),
        (dict(resize="squash"), ValueError, "resize is 'squash'; expected one of stretch, crop"),
        (dict(resample="cubic"), ValueError, "resample is 'cubic'; expected one of area, lanczos"),
        (dict(frame_rate=25), ValueError, "has a frame rate of its own"),
    ],
)
def test_bad_wishes(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_video(media.clip("uneven.mp4"), **options)


def test_few_images_wait_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, done, waiting = [], [], []
    real = cv2.cvtColor
    monkeypatch.setattr(videofile.cv2, "cvtColor", lambda *a: decoded.append(1) or real(*a))

    def prepare(image: np.ndarray, aspect: float) -> None:
        time.sleep(0.002)
        waiting.append(len(decoded) - len(done))
        done.append(1)

    video.sample(media.clip("b.mp4"), prepare, None)
    assert len(done) == media.FRAMES
    assert max(waiting) <= video.BACKLOG + 3


# Resizing.


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


# Sources.


def test_a_folder_of_images(tmp_path: Path) -> None:
    for n in range(12):
        Image.fromarray(media.frame(n)).save(tmp_path / f"frame_{n}.{'png' if n % 2 else 'PNG'}")
    (tmp_path / "._frame_3.png").write_bytes(b"hidden")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "deeper.png").mkdir()
    (tmp_path / "deeper.png").rmdir()
    assert numbers(tmp_path) == list(range(12))
    assert numbers(str(tmp_path), 4) == [0, 3, 6, 9]
    assert numbers(tmp_path, frame_rate=4, start=1, end=2) == [4, 5, 6, 7]
    assert numbers(tmp_path, frame_rate=4, fps=1) == [0, 4, 8]
    chosen = [tmp_path / f"frame_{n}.png" for n in (5, 3, 3, 1)]
    assert numbers(chosen) == [5, 3, 3, 1]
    assert numbers(tuple(map(str, chosen))) == [5, 3, 3, 1]
    assert numbers(chosen[0], 2) == [5, 5]


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "10.png"],
        ["a1b9.png", "a1b10.png", "a2b1.png"],
        ["1²3.png", "1²4.png"],
        ["٣.png", "4.png"],
    ],
)
def test_natural_order(names: list[str]) -> None:
    paths = [Path(name) for name in reversed(names)]
    assert [path.name for path in sorted(paths, key=video.natural_order)] == names


def rotated(image: Image.Image, path: Path) -> None:
    """A photograph taken with the camera on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by 90 degrees clockwise.
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


def deep(image: Image.Image, path: Path) -> None:
    cv2.imwrite(str(path), np.asarray(image)[..., ::-1].astype(np.uint16) * 257)


IMAGES = {
    "plain.png": lambda image, path: image.save(path),
    "photo.jpg": lambda image, path: image.save(path, quality=95),
    "turned.jpg": rotated,
    "cmyk.jpg": lambda image, path: image.convert("CMYK").save(path, quality=95),
    "grey.jpg": lambda image, path: image.convert("L").save(path),
    "grey.png": lambda image, path: image.convert("L").save(path),
    "alpha.png": lambda image, path: image.convert("RGBA").save(path),
    "grey_alpha.png": lambda image, path: image.convert("LA").save(path),
    "palette.png": lambda image, path: image.quantize(16).save(path),
    "deep.png": deep,
    "deep.tif": deep,
    "old.bmp": lambda image, path: image.save(path),
    "new.webp": lambda image, path: image.save(path, lossless=True),
    "plain.ppm": lambda image, path: image.save(path),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, tmp_path: Path) -> None:
    IMAGES[name](Image.fromarray(media.frame(1234)), tmp_path / name)
    result = read_video(tmp_path / name, 1, size=None)
    assert result.shape == (1, HEIGHT, WIDTH, 3)
    assert media.number(result[0]) == 1234
    is_grey = "grey" in name
    red, green, blue = (
        result[0][place].mean((0, 1)) for place in (np.s_[:9, :50], np.s_[:9, 70:], np.s_[85:])
    )
    for found, colour in ((red, media.RED), (green, media.GREEN), (blue, media.BLUE)):
        expected = np.full(3, np.dot(colour, (0.299, 0.587, 0.114))) if is_grey else colour
        assert np.abs(found * 255 - expected).max() < (12 if name == "palette.png" else 6)


@pytest.mark.parametrize("name", ["moving.png", "moving.webp"])
def test_a_moving_image_is_not_taken_for_a_still(name: str, tmp_path: Path) -> None:
    images = [Image.fromarray(media.frame(n)) for n in range(10)]
    images[0].save(tmp_path / name, save_all=True, append_images=images[1:], lossless=True)
    with pytest.raises(VideoError, match=r"holds 10 images; expected one"):
        read_video(tmp_path / name)


def test_photographs_with_smaller_versions(tmp_path: Path) -> None:
    def image(*size: int) -> Image.Image:
        return Image.fromarray(media.frame(5, *size))

    image().save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[image(32, 24)])
    large, small, reduced = image(), image(32, 24), {254: 1}
    large.save(tmp_path / "b.tif", save_all=True, append_images=[small], tiffinfo=reduced)
    assert numbers(tmp_path) == [5, 5]
    large.save(tmp_path / "stack.tif", save_all=True, append_images=[large])
    with pytest.raises(VideoError, match="holds 2 images"):
        read_video(tmp_path / "stack.tif")


def test_links_that_lead_in_a_circle(library: Path) -> None:
    (library / "b" / "up").symlink_to(library)
    (library / "elsewhere").mkdir()
    (library / "elsewhere" / "linked.mp4").touch()
    (library / "b" / "over").symlink_to(library / "elsewhere")
    found = find_videos([library / "b"])
    assert {"clip_2.MKV", "scan.MOV", "c/deep.webm", "over/linked.mp4"} <= set(found)


def test_so_many_frames_are_a_mistake() -> None:
    for options in (dict(fps=1e14), dict(num_frames=10**13)):
        with pytest.raises(ValueError, match=r"that would be [\d,]+ frames; expected at most"):
            read_video(media.clip("b.mp4"), **{"num_frames": None, **options})


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
        (SQUARE[:0], ValueError, "nothing in it"),
        (SQUARE[:, :0], ValueError, "nothing in it"),
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


def test_bad_images(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(media.frame(1)).save(tmp_path / "whole.png")
    with pytest.raises(VideoError, match=r"empty\.png is empty"):
        read_video(tmp_path / "empty.png")
    with pytest.raises(VideoError, match=r"text\.png is no image that OpenCV can read"):
        read_video([tmp_path / "whole.png", tmp_path / "text.png"])
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        read_video([tmp_path / "whole.png", tmp_path / "missing.png"])


@pytest.mark.parametrize(("name", "share"), [("cut.png", 0.5), ("cut.jpg", 0.5)])
def test_an_image_that_is_cut_short(name: str, share: float, tmp_path: Path) -> None:
    whole = tmp_path / f"whole{Path(name).suffix}"
    Image.fromarray(RANDOM.randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)).save(whole)
    media.cut(whole, tmp_path / name, end=share)
    with pytest.raises(VideoError, match="damaged"):
        read_video(tmp_path / name)


def test_a_gigantic_image(tmp_path: Path) -> None:
    path = tmp_path / "claim.png"
    cv2.imwrite(str(path), media.frame(1))
    data = bytearray(path.read_bytes())
    data[16:24] = (200_000).to_bytes(4, "big") * 2
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"claim\.png"):
        read_video(path)


def test_images_of_several_sizes(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, size in zip(paths, ((128, 96), (64, 48)), strict=True):
        Image.fromarray(media.frame(3, *size)).save(path)
    assert read_video(paths, None, size=32).shape == (2, 32, 32, 3)
    with pytest.raises(VideoError, match="several sizes; give a size"):
        read_video(paths, None, size=None)


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    with pytest.raises(VideoError, match="holds no images; expected the frames of one video"):
        read_video(tmp_path)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.png", "no/clip.mp4"])
def test_a_missing_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=Path(name).name):
        read_video(tmp_path / name)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip.mp4")
    for path in (tmp_path / "clip.mp4", Path(os.devnull)):
        with pytest.raises(VideoError, match="neither a file nor a folder"):
            read_video(path)


# Names.

NAMES = [
    "a clip.mp4",
    "vidéo 影片 🎬.mp4",
    "frame_%03d.mp4",
    "frame_001.mp4",
    "-i.mp4",
    "--help",
    "concat:a.mp4",
    "file:b.mp4",
    "http:c.mp4",
    "data:d.mp4",
    "a|b.mp4",
    "what?[1]*.mp4",
    "back\\slash.mp4",
    "line\nbreak.mp4",
    "$HOME '\".mp4",
    "~tilde.mp4",
    "CLIP.MP4",
    "ending",
    "wrong.mkv",
    ".hidden",
    "x" * 240 + ".mp4",
]


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    shutil.copy(media.clip("two.mp4"), path)
    assert numbers(path) == [0, 1]
    assert numbers(str(path)) == [0, 1]
    (tmp_path / "link.mp4").symlink_to(path)
    assert numbers(tmp_path / "link.mp4") == [0, 1]
    assert find_videos([path]) == {name: path}
    monkeypatch.chdir(tmp_path)
    assert numbers(name) == [0, 1]
    assert find_videos([name]) == {name: Path(name)}


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(media.clip("two.mp4"), tmp_path / "clip.mp4")
    assert numbers("~/clip.mp4") == [0, 1]
    assert find_videos(["~/*.mp4"]) == {"clip.mp4": tmp_path / "clip.mp4"}


# Finding.


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder of files that are called like videos."""
    names = (
        *("clip_10.mp4", "clip_2.mp4", "b/clip_2.MKV", "b/c/deep.webm", "b/._clip.mp4"),
        *("notes.txt", "still.png", ".secret.mp4", "b/scan.MOV"),
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    return tmp_path


def test_videos_of_a_folder(library: Path) -> None:
    found = find_videos([library])
    assert list(found) == [
        *("clip_2.mp4", "clip_10.mp4", "b/clip_2.MKV", "b/scan.MOV", "b/c/deep.webm")
    ]
    assert all(path == library / name for name, path in found.items())
    assert find_videos([library / "b"]).keys() == {"clip_2.MKV", "scan.MOV", "c/deep.webm"}
    assert find_videos([str(library) + "/", library]) == found


def test_videos_by_pattern(library: Path) -> None:
    found = find_videos([f"{library}/*.mp4"])
    assert list(found) == ["clip_2.mp4", "clip_10.mp4"]
    assert find_videos([f"{library}/**/clip_*"]).keys() == {
        *("clip_2.mp4", "clip_10.mp4", "clip_2.MKV")
    }
    assert find_videos([f"{library}/clip_?.mp4"]).keys() == {"clip_2.mp4"}
    assert find_videos([f"{library}/notes.*"]).keys() == {"notes.txt"}


def test_videos_by_name(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(library)
    found = find_videos(["clip_10.mp4", "notes.txt", library / "clip_10.mp4", "./clip_10.mp4"])
    assert found == {"clip_10.mp4": Path("clip_10.mp4"), "notes.txt": Path("notes.txt")}
    assert find_videos(["missing.mp4"]) == {"missing.mp4": Path("missing.mp4")}
    assert find_videos([]) == {}


def test_a_name_that_looks_like_a_pattern(tmp_path: Path) -> None:
    for name in ("a[1].mp4", "a1.mp4"):
        (tmp_path / name).touch()
    assert find_videos([tmp_path / "a[1].mp4"]).keys() == {"a[1].mp4"}


def test_names_that_collide(library: Path) -> None:
    (library / "b/clip_10.mp4").touch()
    with pytest.raises(ValueError, match=r"would both go by the name clip_10\.mp4"):
        find_videos([library / "clip_10.mp4", library / "b/clip_10.mp4"])
    with pytest.raises(ValueError, match=r"would both go by the name clip_10\.mp4"):
        find_videos([f"{library}/**/*.mp4"])


def test_nothing_found(library: Path) -> None:
    (library / "empty").mkdir()
    (library / "empty/._clip.mp4").touch()
    with pytest.raises(VideoError, match="holds no videos, nor do those below it"):
        find_videos([library / "empty"])
    for pattern in ("*.avi", "empty/*.mp4", "folder.*"):
        with pytest.raises(VideoError, match="no file matches"):
            find_videos([f"{library}/{pattern}"])
