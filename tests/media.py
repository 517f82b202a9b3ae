"""Videos for the tests, made when they are needed: each frame carries its number."""

import functools
import itertools
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

SIZE = 128, 96
FRAMES = 100
FPS = 30

# The number is twelve blocks, dark or bright, in three rows. Above them red and green, below blue:
# they show which side is up.
ROWS, COLUMNS = 3, 4
EDGE = 0.2
DARK, GREY, BRIGHT = 20, 96, 235
RED, GREEN, BLUE = (220, 30, 30), (30, 200, 30), (30, 30, 220)

X264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p"]
OPEN_GOP = [*X264, "-x264-params", "open-gop=1:bframes=3:keyint=20:b-pyramid=2"]
HEVC_OPEN = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:pools=1"]
INTERLACED = [*X264, "-x264-params", "interlaced=1:bframes=2", "-flags", "+ildct+ilme"]
UNEVEN = [*X264, "-vf", "select='not(between(n,20,39))*not(mod(n,3)*gt(n,60))'", "-fps_mode", "vfr"]

# The frames that UNEVEN keeps.
UNEVEN_FRAMES = [n for n in range(FRAMES) if not 20 <= n <= 39 and not (n > 60 and n % 3)]

# What each file is encoded with; its ending names the container.
# fmt: off
ENCODED: dict[str, list[str]] = {
    "b.mp4": [*X264, "-bf", "3", "-g", "24"],
    "b.mkv": [*X264, "-bf", "2"],
    "b.avi": [*X264, "-bf", "2"],
    "b.ts": [*X264, "-bf", "2"],
    "b.flv": [*X264, "-bf", "2"],
    "raw.h264": [*X264, "-bf", "2"],
    "open.mp4": OPEN_GOP,
    "open.mkv": OPEN_GOP,
    "open.ts": OPEN_GOP,
    "refresh.mp4": [*X264, "-x264-params", "intra-refresh=1:keyint=20:bframes=0"],
    "interlaced.mp4": INTERLACED,
    "interlaced.ts": INTERLACED,
    "uneven.mp4": UNEVEN,
    "uneven.mkv": UNEVEN,
    "wide.mp4": [*X264, "-vf", "setsar=2/1"],
    "grey.mp4": ["-c:v", "libx264", "-pix_fmt", "gray"],
    "grey.mkv": ["-c:v", "ffv1", "-pix_fmt", "gray"],
    "hevc.mp4": ["-c:v", "libx265", "-pix_fmt", "yuv420p", "-tag:v", "hvc1"],
    "hevc10.mkv": ["-c:v", "libx265", "-pix_fmt", "yuv420p10le"],
    "vp8.webm": ["-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-b:v", "500k"],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-b:v", "500k", "-cpu-used", "5"],
    "alpha.webm": ["-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-b:v", "500k", "-cpu-used", "5"],
    "av1.mp4": ["-c:v", "libsvtav1"],
    "mpeg4.avi": ["-c:v", "mpeg4", "-bf", "2"],
    "mpeg4.mp4": ["-c:v", "mpeg4"],
    "mjpeg.avi": ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"],
    "mjpeg.mov": ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"],
    "mpeg2.mpg": ["-c:v", "mpeg2video", "-bf", "2", "-g", "12"],
    "mpeg2.ts": ["-c:v", "mpeg2video", "-bf", "2", "-g", "12"],
    "prores.mov": ["-c:v", "prores_ks"],
    "alpha.mov": ["-c:v", "qtrle", "-pix_fmt", "argb"],
    "ffv1.mkv": ["-c:v", "ffv1"],
    "palette.gif": [],
    "windows.wmv": ["-c:v", "wmv2"],
    "theora.ogv": ["-c:v", "libtheora"],
}
# fmt: on


def frame(number: int, width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    """Frame `number` of every clip: (height, width, 3), RGB, 0-255."""
    image = np.full((height, width, 3), GREY, np.uint8)
    top, bottom = int(height * EDGE), int(height * (1 - EDGE))
    image[:top, : width // 2], image[:top, width // 2 :], image[bottom:] = RED, GREEN, BLUE
    for bit, (rows, columns) in enumerate(blocks(width, height)):
        image[rows, columns] = BRIGHT if number >> bit & 1 else DARK
    return image


def number(image: np.ndarray) -> int:
    """The number of a frame (H, W, 3), 0-255 or floats in [0, 1], if it is unmistakable."""
    scaled = image * 255.0 if image.dtype.kind == "f" else image
    found = 0
    for bit, (rows, columns) in enumerate(blocks(image.shape[1], image.shape[0])):
        block = scaled[rows, columns]
        height, width = (length // 4 for length in block.shape[:2])
        level = block[height : -height or None, width : -width or None].mean()
        assert not 60 < level < 190, f"block {bit} is neither dark nor bright: {level:.0f}"
        found |= int(level > 128) << bit
    return found


def numbers(images: np.ndarray) -> list[int]:
    """The numbers of frames (T, H, W, 3)."""
    return [number(image) for image in images]


def blocks(width: int, height: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the number's blocks."""
    share = (1 - 2 * EDGE) / ROWS
    ys = [int(height * (EDGE + share * row)) for row in range(ROWS + 1)]
    xs = [column * width // COLUMNS for column in range(COLUMNS + 1)]
    return [
        (slice(*rows), slice(*columns))
        for rows, columns in itertools.product(itertools.pairwise(ys), itertools.pairwise(xs))
    ]


def ffmpeg(*arguments: str | Path, given: bytes | None = None) -> bytes:
    """What FFmpeg writes to its standard output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *map(str, arguments)]
    stdin = subprocess.DEVNULL if given is None else None
    done = subprocess.run(command, input=given, stdin=stdin, capture_output=True)
    if b"Unknown encoder" in done.stderr:
        pytest.skip(f"this FFmpeg lacks an encoder: {done.stderr.decode(errors='replace')}")
    assert done.returncode == 0, f"{arguments}: {done.stderr.decode(errors='replace')}"
    return done.stdout


def write(
    path: Path,
    frames: int | Sequence[int] = FRAMES,
    size: tuple[int, int] = SIZE,
    fps: float = FPS,
    arguments: Sequence[str] = (*X264,),
    inputs: Sequence[str] = (),
) -> Path:
    """A video of the frames of these numbers; `inputs` are more inputs, such as sound."""
    shown = range(frames) if isinstance(frames, int) else frames
    pixels = b"".join(frame(one, *size).tobytes() for one in shown)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", str(fps)]
    exact = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
    ffmpeg(*raw, "-i", "-", *inputs, *exact, *arguments, path, given=pixels)
    return path


def remux(
    source: Path,
    target: Path,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
) -> Path:
    """The packets of a file in another, with arguments before and after the input."""
    ffmpeg(*before, "-i", source, "-c", "copy", *after, target)
    return target


def decode(path: Path, width: int, height: int, *filters: str) -> np.ndarray:
    """The frames (T, height, width, 3) that players show, turned the right way up."""
    raw = ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    filtered = ["-vf", ",".join(filters)] if filters else []
    pixels = ffmpeg("-i", path, *filtered, *raw, "-")
    return np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3)


def join(target: Path, *sources: Path) -> Path:
    """The bytes of several files one after the other."""
    target.write_bytes(b"".join(source.read_bytes() for source in sources))
    return target


def cut(source: Path, target: Path, start: float = 0.0, end: float = 1.0) -> Path:
    """The bytes of a file between two shares of its length."""
    data = source.read_bytes()
    target.write_bytes(data[int(len(data) * start) : int(len(data) * end)])
    return target


def damage(source: Path, target: Path, at: float = 0.55, length: float = 0.05) -> Path:
    """A file with noise over a share of its bytes."""
    data = bytearray(source.read_bytes())
    start, count = int(len(data) * at), max(int(len(data) * length), 600)
    noise = np.random.RandomState(0).randint(0, 256, count).astype(np.uint8)
    data[start : start + count] = noise.tobytes()
    target.write_bytes(data)
    return target


def declare(source: Path, target: Path, frames: int) -> Path:
    """An AVI file whose headers say that it has so many frames."""
    data = bytearray(source.read_bytes())
    for name, offset in ((b"avih", 24), (b"strh", 40)):
        struct.pack_into("<I", data, data.find(name) + offset, frames)
    target.write_bytes(data)
    return target


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="videoprism_media_")


def folder() -> Path:
    """Where this run of the tests keeps what it makes."""
    return Path(_folder().name)


def made(name: str, make: Callable[[Path], object]) -> Path:
    """The file of that name, made at first use."""
    path = folder() / name
    if not path.exists():
        make(path)
    return path


def clip(name: str) -> Path:
    """A clip of `ENCODED` or `DERIVED`, by name."""
    if name in DERIVED:
        return made(name, DERIVED[name])
    return made(name, functools.partial(write, arguments=ENCODED[name]))


def _remuxed(source: str, before: str = "", after: str = "") -> Callable[[Path], Path]:
    return lambda path: remux(clip(source), path, before.split(), after.split())


def two_passes(path: Path) -> None:
    """VP8 whose packets are partly frames that are never shown."""
    log = path.with_suffix(".log")
    hidden = ["-auto-alt-ref", "1", "-lag-in-frames", "25", "-arnr-maxframes", "7"]
    settings = ["-c:v", "libvpx", *hidden, "-b:v", "200k"]
    for number in ("1", "2"):
        passing = ["-pass", number, "-passlogfile", str(log)]
        write(path, frames=200, arguments=[*settings, *passing, "-f", "webm"])


def cover(path: Path) -> Path:
    """A picture to put on a record."""
    return write(path, frames=[77], arguments=["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"])


LONG = dict(frames=3200, size=(64, 48))
SINE = ["-f", "lavfi", "-i", "sine=d=60"]
LINES = "1\n00:00:00,500 --> 00:00:02,000\nA line.\n"

# Clips that others are made into.
DERIVED: dict[str, Callable[[Path], object]] = {
    "fragments.mp4": _remuxed("b.mp4", after="-movflags frag_keyframe+empty_moov"),
    "streamable.mp4": _remuxed("b.mp4", after="-movflags +faststart"),
    "edited.mp4": _remuxed("b.mp4", before="-ss 1.1"),
    "offset.ts": _remuxed("b.mp4", after="-output_ts_offset 100"),
    "offset.mkv": _remuxed("b.mp4", after="-output_ts_offset 5"),
    "turned90.mp4": _remuxed("b.mp4", before="-display_rotation 90"),
    "turned180.mp4": _remuxed("b.mp4", before="-display_rotation 180"),
    "turned270.mp4": _remuxed("b.mp4", before="-display_rotation 270"),
    "turned90.mkv": _remuxed("b.mp4", before="-display_rotation 90"),
    "wide_turned90.mp4": _remuxed("wide.mp4", before="-display_rotation 90"),
    "unfinished.mp4": lambda path: cut(clip("b.mp4"), path, end=0.6),
    "short.mp4": lambda path: cut(clip("streamable.mp4"), path, end=0.6),
    "damaged.mp4": lambda path: damage(clip("mpeg4.mp4"), path),
    "sound.mp3": lambda path: ffmpeg("-f", "lavfi", "-i", "sine=d=2", path),
    "sound.m4a": lambda path: ffmpeg("-f", "lavfi", "-i", "sine=d=2", path),
    "odd.mp4": lambda path: write(
        path, size=(101, 67), arguments=["-c:v", "libx264", "-pix_fmt", "yuv444p"]
    ),
    "odd.mkv": lambda path: write(path, size=(101, 67), arguments=["-c:v", "ffv1"]),
    "one.mp4": lambda path: write(path, frames=1),
    "two.mp4": lambda path: write(path, frames=2),
    # What is met in the wild.
    "sound.mp4": lambda path: ffmpeg(
        "-i", clip("b.mp4"), *SINE, "-map", "1", "-map", "0", "-c:v", "copy", path
    ),
    "two_streams.mkv": lambda path: ffmpeg(
        *("-i", clip("b.mkv"), "-i", clip("second.mkv")),
        *("-map", "0", "-map", "1", "-c", "copy", path),
    ),
    "second.mkv": lambda path: write(path, frames=range(200, 260)),
    "cover.mp4": lambda path: ffmpeg(
        *("-i", made("cover.jpg", cover), "-i", clip("b.mp4"), "-map", "0", "-map", "1"),
        *("-c", "copy", "-disposition:v:0", "attached_pic", path),
    ),
    "subtitled.mkv": lambda path: ffmpeg(
        *("-i", clip("b.mkv"), "-i", made("lines.srt", lambda lines: lines.write_text(LINES))),
        *("-c", "copy", path),
    ),
    "tail.ts": lambda path: cut(clip("b.ts"), path, start=0.3),
    "tail_open.ts": lambda path: cut(clip("open.ts"), path, start=0.3),
    "tail.mpg": lambda path: cut(clip("mpeg2.mpg"), path, start=0.3),
    "hidden.webm": two_passes,
    "uneven.avi": lambda path: write(path, arguments=["-c:v", "mpeg4", *UNEVEN[4:]]),
    "uneven.gif": lambda path: write(path, arguments=UNEVEN[4:]),
    "negative.mkv": _remuxed("b.mkv", after="-output_ts_offset -1 -avoid_negative_ts disabled"),
    "negative.mp4": _remuxed("b.mp4", after="-output_ts_offset -1 -avoid_negative_ts disabled"),
    "late.mp4": _remuxed("b.mp4", after="-output_ts_offset 5"),
    "wrap.ts": _remuxed("b.mp4", after="-output_ts_offset 95441.7 -muxdelay 0 -muxpreload 0"),
    "later.ts": lambda path: write(path, frames=range(100, 200), arguments=[*X264, "-bf", "2"]),
    "joined.ts": lambda path: join(path, clip("b.ts"), clip("later.ts")),
    "after.ts": _remuxed("b.ts", after="-output_ts_offset 900"),
    "backwards.ts": lambda path: join(path, clip("after.ts"), clip("later.ts")),
    "fast.mp4": lambda path: write(path, fps=1000),
    "fast.mkv": lambda path: write(path, fps=1000),
    "slow.mp4": lambda path: write(path, fps=0.1),
    "slow.mkv": lambda path: write(path, fps=0.1),
    "bare.mjpeg": lambda path: write(path, fps=25, arguments=["-c:v", "mjpeg"]),
    "bare.m2v": lambda path: write(path, fps=25, arguments=["-c:v", "mpeg2video", "-bf", "2"]),
    "moving.apng": lambda path: write(path, fps=25, arguments=["-c:v", "apng"]),
    "small.h264": lambda path: write(path, frames=50),
    "large.h264": lambda path: write(path, frames=range(50, 100), size=(256, 192)),
    "growing.h264": lambda path: join(path, clip("small.h264"), clip("large.h264")),
    "shrinking.h264": lambda path: join(path, clip("large.h264"), clip("small.h264")),
    # Long enough for a seek to pay.
    "long.mp4": lambda path: write(path, arguments=[*X264, "-g", "60", "-bf", "3"], **LONG),
    "long.avi": lambda path: write(path, arguments=["-c:v", "mpeg4", "-bf", "2"], **LONG),
    "long.mkv": _remuxed("long.mp4"),
    "long.ts": _remuxed("long.mp4"),
    "long_open.ts": lambda path: write(path, arguments=OPEN_GOP, **LONG),
    "long_hevc.ts": lambda path: write(path, arguments=HEVC_OPEN, **LONG),
    "long_hevc.mkv": _remuxed("long_hevc.ts"),
    "long_interlaced.ts": lambda path: write(path, arguments=INTERLACED, **LONG),
    "long_edited.mp4": _remuxed("long.mp4", before="-ss 20.5"),
}
