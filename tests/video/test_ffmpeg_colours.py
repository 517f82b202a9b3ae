"""The pixels that are read are those that ffmpeg makes of a file."""

from collections.abc import Sequence
from pathlib import Path

import media
import numpy as np
import pytest

from videoprism_mlx.video.ffmpeg.reader import VideoFile

SIZE = 160, 120
SOURCE = ["-f", "lavfi", "-i", f"testsrc2=size={SIZE[0]}x{SIZE[1]}:rate=10:duration=0.4"]
FAST = {
    "libx264": ["-preset", "ultrafast"],
    "libx264rgb": ["-preset", "ultrafast"],
    "libx265": ["-preset", "ultrafast", "-x265-params", "log-level=none"],
    "libvpx-vp9": ["-cpu-used", "8"],
    "libsvtav1": ["-preset", "12"],
}

# Codec, pixel format, container.
FORMATS = [
    ("libx264", "yuv420p", "mp4"),
    ("libx264", "yuv422p", "mp4"),
    ("libx264", "yuv444p", "mp4"),
    ("libx264", "yuv420p10le", "mp4"),
    ("libx264", "yuvj420p", "mp4"),
    ("libx265", "yuv420p", "mp4"),
    ("libx265", "yuv420p10le", "mp4"),
    ("libx265", "yuv422p10le", "mkv"),
    ("libx265", "yuv444p12le", "mkv"),
    ("libvpx-vp9", "yuv420p", "webm"),
    ("libvpx-vp9", "yuv444p", "webm"),
    ("libvpx-vp9", "yuv420p10le", "webm"),
    ("libvpx-vp9", "yuva420p", "webm"),
    ("libsvtav1", "yuv420p", "mp4"),
    ("libsvtav1", "yuv420p10le", "mp4"),
    ("mpeg2video", "yuv422p", "ts"),
    ("mjpeg", "yuvj422p", "mov"),
    ("prores_ks", "yuv422p10le", "mov"),
    ("qtrle", "argb", "mov"),
    ("ffv1", "yuv411p", "mkv"),
    ("ffv1", "yuv440p", "mkv"),
    ("ffv1", "gray", "mkv"),
    ("ffv1", "gray10le", "mkv"),
    ("ffv1", "gbrp", "mkv"),
    ("ffv1", "gbrp12le", "mkv"),
    ("ffv1", "bgra", "mkv"),
    ("libx264rgb", "rgb24", "mkv"),
]

# How H.264 is tagged: matrix and range; None is no tag.
TAGS = [
    *((matrix, colour_range) for matrix in ("bt709", "smpte170m") for colour_range in ("tv", "pc")),
    *((matrix, "tv") for matrix in ("bt470bg", "fcc", "smpte240m", "bt2020nc")),
    ("bt709", None),
    (None, "pc"),
    (None, None),
]


def draw(path: Path, codec: str, pixels: str, arguments: Sequence[str] = ()) -> Path:
    """A test card in that format."""
    encoder = ["-pix_fmt", pixels, "-c:v", codec, *FAST.get(codec, [])]
    media.ffmpeg(*SOURCE, *encoder, *arguments, path)
    return path


def read(path: Path) -> np.ndarray:
    """All frames of a file as they are read."""
    file = VideoFile(path)
    frames = [*file.consistently(lambda: file.fetch(range(len(file.times))))]
    file.close()
    return np.stack(frames)


def require_same(path: Path, width: int = SIZE[0], height: int = SIZE[1], count: int = 4) -> None:
    """That the whole frames are ffmpeg's own."""
    expected = media.decode(path, width, height)
    found = read(path)
    assert found.shape == expected.shape == (count, height, width, 3)
    difference = np.abs(found.astype(int) - expected)
    assert difference.mean() <= 0.01 and difference.max() <= 2


@pytest.mark.parametrize(("codec", "pixels", "container"), FORMATS)
def test_formats(codec: str, pixels: str, container: str, tmp_path: Path) -> None:
    require_same(draw(tmp_path / f"clip.{container}", codec, pixels))


@pytest.mark.parametrize(("matrix", "colour_range"), TAGS)
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
def test_matrix_and_range(
    matrix: str | None, colour_range: str | None, pixels: str, tmp_path: Path
) -> None:
    tags = ["-colorspace", matrix] if matrix else []
    tags += ["-color_range", colour_range] if colour_range else []
    path = draw(tmp_path / "clip.mp4", "libx264", pixels, tags)
    require_same(path)


def test_tags_matter(tmp_path: Path) -> None:
    """The same bits mean other colours under another matrix and range."""
    plain, tagged, full = (
        read(draw(tmp_path / f"{name}.mp4", "libx264", "yuv420p", tags)).astype(int)
        for name, tags in (
            ("plain", ["-colorspace", "smpte170m"]),
            ("tagged", ["-bsf:v", "h264_metadata=matrix_coefficients=1"]),
            ("full", ["-bsf:v", "h264_metadata=video_full_range_flag=1"]),
        )
    )
    assert np.abs(tagged - plain).mean() > 2
    assert np.abs(full - plain).mean() > 2


@pytest.mark.parametrize("turned", [0, 1, 30, 90, 135, 180, 270, 315])
@pytest.mark.parametrize("mirror", ["", "-display_hflip", "-display_vflip"])
def test_turned_and_mirrored(turned: int, mirror: str, tmp_path: Path) -> None:
    plain = draw(tmp_path / "plain.mp4", "libx264", "yuv420p", ["-colorspace", "bt709"])
    options = ["-display_rotation", str(turned), *mirror.split()]
    path = media.remux(plain, tmp_path / "turned.mp4", before=options)
    require_same(path, *(SIZE[::-1] if turned in (90, 270) else SIZE))


def test_turned_by_exif(tmp_path: Path) -> None:
    """PyAV does not know this kind of data, and FFmpeg turns the picture by it."""
    plain = draw(tmp_path / "plain.mjpeg", "mjpeg", "yuvj420p")
    turned = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06" + bytes(7)
    segment = b"\xff\xe1" + (len(turned) + 2).to_bytes(2, "big") + turned
    path = tmp_path / "exif.mjpeg"
    path.write_bytes(plain.read_bytes().replace(b"\xff\xd8", b"\xff\xd8" + segment))
    require_same(path, *SIZE[::-1])


def test_cropped_on_the_left(tmp_path: Path) -> None:
    cropping = "h264_metadata=crop_left=10:crop_right=20:crop_top=6:crop_bottom=8"
    plain = draw(tmp_path / "plain.mp4", "libx264", "yuv420p")
    path = media.remux(plain, tmp_path / "cropped.mp4", after=["-bsf:v", cropping])
    require_same(path, SIZE[0] - 30, SIZE[1] - 6)


def test_a_display_matrix_turns_the_picture(tmp_path: Path) -> None:
    plain = draw(tmp_path / "plain.mp4", "libx264", "yuv420p", ["-colorspace", "bt709"])
    upright = read(plain)
    for turned, quarters in ((90, 1), (180, 2), (270, 3)):
        path = tmp_path / f"{turned}.mp4"
        media.remux(plain, path, before=["-display_rotation", str(turned)])
        found = read(path).astype(int)
        assert np.abs(found - np.rot90(upright, quarters, axes=(1, 2))).mean() < 1
    path = media.remux(plain, tmp_path / "mirrored.mp4", before=["-display_hflip"])
    assert np.abs(read(path).astype(int) - upright[:, :, ::-1]).mean() < 1


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p10le"])
def test_interlaced(pixels: str, tmp_path: Path) -> None:
    fields = ["-flags", "+ildct+ilme", "-x264-params", "interlaced=1", "-colorspace", "bt709"]
    require_same(draw(tmp_path / "clip.ts", "libx264", pixels, fields))


def test_the_stream_that_players_show(tmp_path: Path) -> None:
    small = draw(tmp_path / "small.mkv", "libx264", "yuv420p")
    large = tmp_path / "large.mkv"
    media.ffmpeg(*SOURCE, "-vf", "hue=h=90,scale=320:240", "-c:v", "libx264", large)
    both = tmp_path / "both.mkv"
    streams = ["-i", small, "-i", large, "-map", "0", "-map", "1", "-c", "copy"]
    media.ffmpeg(*streams, "-disposition:v", "0", both)
    shown = media.ffmpeg("-i", both, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    expected = np.frombuffer(shown, np.uint8).reshape(-1, 240, 320, 3)
    assert np.array_equal(read(both), expected)
    media.ffmpeg(*streams, "-disposition:v:0", "default", "-disposition:v:1", "0", both)
    assert np.array_equal(read(both), read(small))
    # A default stream counts as five million pixels more, and no further.
    huge = tmp_path / "huge.mkv"
    vast = "color=gray:size=3840x2160:rate=10:duration=0.2"
    media.ffmpeg("-f", "lavfi", "-i", vast, "-c:v", "libx264", "-preset", "ultrafast", huge)
    streams = ["-i", small, "-i", huge, "-map", "0", "-map", "1", "-c", "copy"]
    media.ffmpeg(*streams, "-disposition:v:0", "default", "-disposition:v:1", "0", both)
    assert read(both).shape[1:3] == (2160, 3840)
