"""Images as the frames of a video."""

import random
from pathlib import Path
from typing import Any

import cv2
import media
import numpy as np
import pytest
from PIL import Image

from videoprism_mlx.errors import EXPECTED, VideoError
from videoprism_mlx.video import stills
from videoprism_mlx.video.sampling import read_video

HEIGHT, WIDTH = 96, 128

RANDOM = np.random.RandomState(0)


def numbers(source: Any, num_frames: int | None = None, **options: Any) -> list[int]:
    """The numbers of the frames that are read, in full size."""
    return media.numbers(read_video(source, num_frames, size=None, **options))


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


def test_bad_images(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(media.frame(1)).save(tmp_path / "whole.png")
    with pytest.raises(VideoError, match=r"empty\.png is empty"):
        read_video(tmp_path / "empty.png")
    with pytest.raises(VideoError, match=r"text\.png is not an image that OpenCV can read"):
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


@pytest.mark.parametrize("error", [MemoryError("12 GB"), cv2.error("12 GB")])
@pytest.mark.parametrize("name", ["imdecode", "cvtColor"])
def test_an_image_without_memory(
    name: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise error

    Image.fromarray(media.frame(1)).save(tmp_path / "a.png")
    monkeypatch.setattr(stills.cv2, name, refuse)
    with pytest.raises(VideoError, match=r"a\.png cannot be read: .*12 GB"):
        read_video(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif", "ppm", "jp2", "gif"])
def test_damaged_images_are_read_or_refused(suffix: str, tmp_path: Path) -> None:
    drawn = random.Random(0)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(media.frame(1)).save(path)
    whole = path.read_bytes()
    outcomes = set()
    for _ in range(40):
        content = bytearray(whole[: drawn.choice([len(whole), drawn.randrange(len(whole))])])
        for _ in range(drawn.randrange(8)):
            if content:
                content[drawn.randrange(min(len(content), 400))] = drawn.randrange(256)
        path.write_bytes(content)
        try:
            outcomes.add(read_video([path], 1, size=18, resize="crop").shape)
        except EXPECTED:
            outcomes.add("refused")
    assert "refused" in outcomes
    assert outcomes <= {"refused", (1, 18, 18, 3)}
