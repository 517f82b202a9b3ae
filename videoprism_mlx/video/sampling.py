"""Videos, images and arrays to the frames that a model takes.

Shapes: T frames, H and W pixels of a frame.
"""

import glob
import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
from PIL import Image

from videoprism_mlx.errors import InputError, InputTypeError, VideoError
from videoprism_mlx.runtime.limits import PIXEL_LIMIT
from videoprism_mlx.video.reader import DEFAULT_FPS, MAX_PIXELS, Reindexed, VideoFile, cv2

__all__ = ["VideoError", "find_videos", "open_source", "read_video"]

# fmt: off
VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".ts", ".mts",
    ".m2ts", ".vob", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".3gp", ".3g2", ".mxf", ".gif",
    ".h264", ".264", ".h265", ".hevc", ".ivf", ".y4m", ".mjpeg", ".divx", ".rm", ".rmvb", ".dv",
}
IMAGE_SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".jp2", ".avif", ".exr", ".hdr",
}
# fmt: on

# Images that move, in Pillow's words.
MOVING = {"GIF", "PNG", "WEBP", "AVIF"}

RESIZES = ("stretch", "crop")
RESAMPLINGS = ("area", "lanczos")
MAX_SIZE = 4096

# So many frames are a mistake in a number.
MAX_SAMPLES = 10**7

# Decoded frames that may wait to be resized.
BACKLOG = 8

Prepared = TypeVar("Prepared")

# A video file, or the images of one.
Files = Path | tuple[Path, ...]

# What `read_video` and everything above it takes for a video.
Source = Any


class Stills:
    """Frames that are all there: `fps` of them a second, of square pixels."""

    aspect = 1.0
    damage = None

    def __init__(self, path: object, count: int, fps: float):
        self.path = path
        self.interval = 1 / fps
        self.times = np.arange(count) / fps

    def require_whole(self) -> None:
        """They are."""

    def finish(self) -> None:
        """There is nothing beyond the last one."""

    def close(self) -> None:
        """Nothing is open."""


class ImageFiles(Stills):
    """Images as the frames of a video."""

    def __init__(self, paths: Sequence[Path], fps: float):
        more = f" and {len(paths) - 1} more images" if len(paths) > 1 else ""
        super().__init__(f"{paths[0]}{more}", len(paths), fps)
        self.paths = paths

    def fetch(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """The frames of `numbers`, each (H, W, 3), RGB, 0-255."""
        for number in numbers:
            path = self.paths[number]
            encoded = np.frombuffer(path.read_bytes(), np.uint8)
            if count_images(path) > 1:
                raise VideoError(
                    f"{path} holds {count_images(path)} images; expected one: convert it to a "
                    "video, for example with `ffmpeg -i IN -c:v libx264 OUT.mp4`"
                )
            try:
                image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
            except (cv2.error, MemoryError) as error:
                raise VideoError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
            if image is None:
                what = "no image that OpenCV can read, or damaged" if encoded.size else "empty"
                raise VideoError(f"{path} is {what}")
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def count_images(path: Path) -> int:
    """How many images a file holds to be shown one after the other; 1 if that cannot be told."""
    try:
        with Image.open(path) as image:
            if image.format == "TIFF":  # A page may be a smaller version of another.
                pages = range(image.n_frames)
                return sum(not (image.seek(page) or is_reduced(image)) for page in pages)
            return getattr(image, "n_frames", 1) if image.format in MOVING else 1
    except Exception:  # Damaged files make Pillow raise almost anything. OpenCV decides.
        return 1


def is_reduced(image: Image.Image) -> bool:
    """Whether the current page of a TIFF file is a thumbnail."""
    return bool(image.tag_v2.get(254, 0) & 1)


class ArrayFrames(Stills):
    """An array (T, H, W, 3) as a video, 0-255 or floats in [0, 1]."""

    def __init__(self, frames: Any, fps: float):
        if isinstance(frames, mx.array) and frames.dtype == mx.bfloat16:  # NumPy has no such type.
            frames = frames.astype(mx.float32)
        try:
            array = np.asarray(frames)
        except ValueError:
            raise InputError(
                "the frames of the list differ in shape or kind; expected paths of images, or "
                "arrays that are all (height, width, 3)"
            ) from None
        self.frames = checked_frames(array)
        super().__init__(f"the array of shape {array.shape}", len(self.frames), fps)

    def fetch(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """The frames of `numbers`, each (H, W, 3), of the array's own type."""
        for number in numbers:
            yield self.frames[number]


# Frames by number and time.
Frames = VideoFile | ImageFiles | ArrayFrames


def checked_frames(frames: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3), uint8 or float32, from those and from single, grey or alpha ones."""
    expected = "expected (frames, height, width, 3), uint8 or floats in [0, 1]"
    shape = frames.shape
    if frames.ndim == 2 or (frames.ndim == 3 and shape[-1] in (1, 3, 4)):
        frames = frames[None]
    if frames.ndim == 3:
        frames = frames[..., None]
    if frames.ndim != 4 or frames.shape[-1] not in (1, 3, 4):
        raise InputError(f"the array of frames has shape {shape}; {expected}")
    if 0 in shape:
        raise InputError(f"the array of frames has shape {shape}: there is nothing in it")
    if frames.dtype.kind == "f":
        frames = frames.astype(np.float32)
        low, high = float(frames.min()), float(frames.max())
        if not (low >= -PIXEL_LIMIT and high <= PIXEL_LIMIT):
            raise InputError(
                f"the array of frames holds values from {low:g} to {high:g}; {expected}: "
                "divide 0-255 pixels by 255"
            )
    elif frames.dtype != np.uint8:
        raise InputTypeError(f"the array of frames is of type {frames.dtype}; {expected}")
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames[..., :3]


def open_source(source: Source, frame_rate: float | None = None, partial: bool = False) -> Frames:
    """Frames by number and time, of whatever `read_video` takes."""
    if frame_rate is not None and not (0 < frame_rate < math.inf):
        raise InputError(f"frame_rate is {frame_rate!r}; expected frames a second, above 0")
    rate = frame_rate or DEFAULT_FPS
    if isinstance(source, (str, Path)):
        path = local_path(source)
        if path.is_dir():
            return ImageFiles(images_in(path), rate)
        if not path.exists():
            raise FileNotFoundError(2, "no such file or folder", str(path))
        if not path.is_file():
            raise VideoError(f"{path} is neither a file nor a folder")
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return ImageFiles([path], rate)
        if frame_rate is not None:
            raise InputError(f"{path} has a frame rate of its own; leave frame_rate out")
        return VideoFile(path, partial)
    if isinstance(source, (list, tuple)):
        if not source:
            raise VideoError("the list of images is empty")
        if all(isinstance(one, (str, Path)) for one in source):
            return ImageFiles([local_path(one) for one in source], rate)
    elif not hasattr(source, "shape"):
        raise InputTypeError(
            f"a video is a {type(source).__name__}; expected the path of a file or folder, "
            "a list of images' paths, or an array of frames"
        )
    return ArrayFrames(source, rate)


def local_path(path: str | Path) -> Path:
    """A path whose ~ is the home folder; a name that only begins with one stays as it is."""
    return Path(os.path.expanduser(path))


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, frame_2 before frame_10."""
    images = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    images = [path for path in images if not path.name.startswith(".")]
    if not images:
        raise VideoError(f"{folder} holds no images; expected the frames of one video")
    return sorted(images, key=natural_order)


def natural_order(path: Path) -> list[tuple[int, str]]:
    """A key that sorts numbers in names by their value."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def find_videos(patterns: Sequence[str | Path]) -> dict[str, Path]:
    """The videos that files, folders (with all below them) and glob patterns name, by short names.

    A file that is named is taken whatever it is called; in a folder the ending decides. The short
    name is a file's path below the folder, or its own name.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        path = local_path(pattern)
        folder = path if os.path.isdir(path) else None
        if folder:
            videos = [one for one in files_below(folder) if is_video_name(one)]
            if not videos:
                raise VideoError(f"the folder {folder} holds no videos, nor do those below it")
        elif not os.path.exists(path) and glob.has_magic(str(path)):
            videos = [Path(one) for one in glob.glob(str(path), recursive=True)]
            videos = [one for one in videos if one.is_file()]
            if not videos:
                raise VideoError(f"no file matches {path}")
        else:  # If it is missing, reading it will say so.
            videos = [path]
        for video in sorted(videos, key=lambda one: (one.parent, natural_order(one))):
            name = str(video.relative_to(folder)) if folder else video.name
            if os.path.abspath(found.setdefault(name, video)) != os.path.abspath(video):
                raise InputError(
                    f"{found[name]} and {video} would both go by the name {name}; "
                    "give the folder above them instead, or other outputs"
                )
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and all below it. One that may not be read is an error."""

    def refuse(error: OSError) -> None:
        raise error

    seen = set()
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(root))
        # A link may lead back up.
        folders[:] = [one for one in folders if os.path.realpath(f"{root}/{one}") not in seen]
        yield from (path for name in files if (path := Path(root, name)).is_file())


def is_video_name(path: Path) -> bool:
    """Whether a file is called like a video, and not hidden."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def choose_frames(
    source: Frames,
    num_frames: int | None,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
) -> np.ndarray:
    """The numbers of the frames (T,) to sample, ascending; one may come several times.

    `num_frames` spread over the span as in the official demos; or, with `fps`, the frame that is
    shown at each instant from `start` on, at most `num_frames`. A `num_frames` of None is all.
    """
    times, interval = source.times, source.interval
    length = times[-1] + interval
    early = min(1e-3, interval / 4)  # Files round times to the millisecond.
    begin, stop = start or 0.0, length if end is None else end
    for name, value in (("start", begin), ("end", stop)):
        if not (0 <= value < math.inf):
            raise InputError(f"{name} is {value!r}; expected seconds, 0 or above")
    if end is not None and begin >= end:
        raise InputError(
            f"the span from {begin:g} to {end:g} s is empty; {source.path} is {length:.2f} s long"
        )
    if begin > times[-1] + early or stop > length + interval + early:
        to = "the end" if end is None else f"{end:g} s"
        raise InputError(
            f"the span from {begin:g} s to {to} is outside {source.path}, which is "
            f"{length:.2f} s long{f' ({source.damage})' if source.damage else ''}"
        )
    if num_frames is not None and (operator.index(num_frames) < 1):
        raise InputError(f"num_frames is {num_frames}; expected 1 or more, or None for all")
    check_fps(fps)
    count = num_frames or 0
    if fps is not None:
        there = max(1, math.ceil((min(stop, length) - begin - early) * fps))
        count = min(there, num_frames or there)
    if count > MAX_SAMPLES:
        raise InputError(f"that would be {count:,} frames; expected at most {MAX_SAMPLES:,}")

    if fps is not None:
        instants = begin + np.arange(count) / fps
        return np.maximum(np.searchsorted(times, instants + early, side="right") - 1, 0)

    first, last = np.searchsorted(times, [begin - early, stop - early])
    if end is None:
        last = len(times)
    if first == last:
        raise InputError(
            f"no frame of {source.path} begins between {begin:g} and {stop:g} s; its frames are "
            f"{interval:.3g} s apart: widen the span"
        )
    if num_frames is None:
        return np.arange(first, last)
    return first + np.linspace(0, last - first, num_frames, endpoint=False).astype(int)


def read_video(
    source: Source,
    num_frames: int | None = 16,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    size: int | None = 288,
    resize: str = "stretch",
    resample: str = "area",
    *,
    frame_rate: float | None = None,
    partial: bool = False,
) -> np.ndarray:
    """A video as the models take it: (T, size, size, 3), float32 in [0, 1].

    `source` is a video file, an image, a folder or list of images, or an array of frames.
    `num_frames` are spread evenly over the span from `start` to `end` seconds; with `fps` they
    follow each other at that rate, and may be fewer; None takes all. `resize` stretches frames
    to the square, or keeps their shape and crops the centre; a `size` of None leaves them as
    they are. `resample` averages the area of each new pixel; "lanczos" gives the very pixels of
    the official demos, at more cost. `frame_rate` is that of images and arrays, 25 if not given.
    `partial` takes a damaged file for what can be decoded of it, instead of an error.
    """
    check_size(size, resize, resample)

    def prepare(image: np.ndarray, aspect: float) -> np.ndarray:
        return as_floats(resized(image, size, resize, resample, aspect))

    frames, _ = sample(source, prepare, num_frames, start, end, fps, frame_rate, partial)
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError(f"{source} has frames of several sizes; give a size to bring them to")
    return np.stack(frames)


def sample(
    source: Source,
    prepare: Callable[..., Prepared],
    num_frames: int | None,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    frame_rate: float | None = None,
    partial: bool = False,
) -> tuple[list[Prepared], np.ndarray]:
    """What `prepare` makes of each frame that `read_video` would take, and when each is shown.

    It is given the frame (H, W, 3) and, as `aspect`, the width of a pixel to its height.
    """
    to_the_end = end is None and (fps is None or num_frames is None)
    with closing(open_source(source, frame_rate, partial)) as opened:
        while True:
            try:
                if to_the_end:
                    opened.require_whole()
                numbers = choose_frames(opened, num_frames, start, end, fps)
                wanted, places = np.unique(numbers, return_inverse=True)
                with ThreadPoolExecutor(1) as beside:  # Decoding goes on meanwhile.
                    frames = []
                    for image in opened.fetch(wanted):
                        frames.append(beside.submit(prepare, image, aspect=opened.aspect))
                        if len(frames) > BACKLOG:
                            frames[-BACKLOG].result()
                    if to_the_end:
                        opened.finish()
                return [frames[place].result() for place in places], opened.times[numbers]
            except Reindexed:
                continue


def check_fps(fps: float | None) -> None:
    """That this is a frame rate, or none."""
    if fps is not None and not (0 < fps < math.inf):
        raise InputError(f"fps is {fps!r}; expected frames a second, above 0")


def check_size(size: int | None, resize: str, resample: str) -> None:
    """That these are a size and ways to get there."""
    if resize not in RESIZES:
        raise InputError(f"resize is {resize!r}; expected one of {', '.join(RESIZES)}")
    if resample not in RESAMPLINGS:
        raise InputError(f"resample is {resample!r}; expected one of {', '.join(RESAMPLINGS)}")
    if size is not None and not (1 <= operator.index(size) <= MAX_SIZE):
        raise InputError(f"size is {size}; expected 1 to {MAX_SIZE} pixels")


def resized(
    image: np.ndarray, size: int | None, resize: str, resample: str, aspect: float = 1.0
) -> np.ndarray:
    """A frame (H, W, 3) as (size, size, 3), of the same type.

    `aspect` is the width of a pixel to its height.
    """
    if size is None:
        return image
    height, width = image.shape[:2]
    target = (size, size)
    if resize == "crop":
        scale = size / min(height, width * aspect)
        target = (round(height * scale), round(width * aspect * scale))
        if math.prod(target) > MAX_PIXELS:
            raise VideoError(f"a frame is {width} x {height}, too long and thin to be cropped")
    image = scaled(image, *target, resample)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return image[top : top + size, left : left + size]


def as_floats(image: np.ndarray) -> np.ndarray:
    """A frame (H, W, 3), 0-255 or floats, as float32 in [0, 1]."""
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255
    return np.clip(image, 0, 1)


def scaled(image: np.ndarray, height: int, width: int, resample: str = "area") -> np.ndarray:
    """An image (H, W, 3), 0-255 or float32, of another size, with nothing aliased."""
    if image.shape[:2] == (height, width):
        return image
    if resample == "lanczos":
        return lanczos(image, height, width)
    smaller = min(height, image.shape[0]), min(width, image.shape[1])
    if smaller != image.shape[:2]:
        image = cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return image


def lanczos(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image (H, W, 3), 0-255 or float32, as Pillow resizes it for the official demos."""
    size, filter = (width, height), Image.Resampling.LANCZOS
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize(size, filter))
    channels = (Image.fromarray(channel.copy()) for channel in np.moveaxis(image, -1, 0))
    return np.stack([channel.resize(size, filter) for channel in channels], axis=-1)


def thumbnail(image: np.ndarray, height: int, aspect: float = 1.0) -> np.ndarray:
    """A frame (H, W, 3) as it is seen: (height, W', 3), 0-255."""
    if image.dtype != np.uint8:
        image = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    width = round(height * image.shape[1] * aspect / image.shape[0])
    return scaled(image, height, max(1, width))
