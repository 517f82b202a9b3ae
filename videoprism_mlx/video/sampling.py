"""Which frames of a video are taken, and reading them.

Shapes: T frames that are taken, H and W the height and width of a frame in pixels.
"""

import math
import operator
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import InputError, InputTypeError, VideoError
from videoprism_mlx.video.failures import video_errors
from videoprism_mlx.video.ffmpeg.decoding import PLAIN, Decoding
from videoprism_mlx.video.frame import Frame
from videoprism_mlx.video.resize import as_floats, check_size, resized
from videoprism_mlx.video.source import FrameSource, Source, check_rate, open_source

# More frames than this are taken for a mistake in a number.
MAX_SAMPLES = 10**7

# How many decoded frames may wait to be resized.
BACKLOG = 8

Prepared = TypeVar("Prepared")


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
    stream: int | None = None,
    tone_map: bool = False,
    hardware: str = "off",
) -> npt.NDArray[np.float32]:
    """A video as the models take it: (T, size, size, 3), float32 in [0, 1].

    `source` is a video file, an image, a folder or list of images, or an array of frames.
    `num_frames` are spread evenly over the span from `start` to `end` seconds; with `fps` they
    follow each other at that rate, and may be fewer; None takes all. `resize` stretches frames
    to the square, or keeps their shape and crops the centre; a `size` of None leaves them as
    they are. `resample` averages the area of each new pixel; "lanczos" gives the exact pixels of
    the official demos, and is slower. `frame_rate` is that of images and arrays, by default 25.
    `partial` takes a damaged file for what can be decoded of it, instead of an error. `stream`,
    `tone_map` and `hardware` are those of `Decoding`.
    """
    check_size(size, resize, resample)

    def prepare(image: Frame, aspect: float) -> npt.NDArray[np.float32]:
        return as_floats(resized(image, size, resize, resample, aspect))

    decoding = Decoding(stream, tone_map, hardware)
    frames, _ = sample(source, prepare, num_frames, start, end, fps, frame_rate, partial, decoding)
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError(f"{source} has frames of several sizes; give a size to bring them to")
    with video_errors(f"{len(frames):,} frames of shape {frames[0].shape} are too many"):
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
    decoding: Decoding = PLAIN,
) -> tuple[list[Prepared], npt.NDArray[np.float64]]:
    """What `prepare` makes of each frame that `read_video` would take, and when each is shown.

    `prepare` is called with the frame (H, W, 3) and, as `aspect`, the width of a pixel divided by
    its height.
    """
    to_the_end = end is None and (fps is None or num_frames is None)
    with closing(open_source(source, frame_rate, partial, decoding)) as opened:

        def attempt() -> Iterator[tuple[list[Prepared], npt.NDArray[np.float64]]]:
            if to_the_end:
                opened.require_whole()
            numbers = choose_frames(opened, num_frames, start, end, fps)
            wanted, places = np.unique(numbers, return_inverse=True)
            with ThreadPoolExecutor(1) as worker:  # Frames are prepared while others are decoded.
                frames = []
                for image in opened.fetch(wanted):
                    frames.append(worker.submit(prepare, image, aspect=opened.aspect))
                    if len(frames) > BACKLOG:
                        frames[-BACKLOG].result()
                if to_the_end:
                    opened.finish()
            yield [frames[place].result() for place in places], opened.times[numbers]

        [sampled] = opened.consistently(attempt)
        return sampled


def choose_frames(
    source: FrameSource,
    num_frames: int | None,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
) -> npt.NDArray[np.intp]:
    """The numbers (T,) of the frames to take, ascending; a number may come several times.

    Without `fps`, `num_frames` are spread over the span as in the official demos; None takes all.
    With `fps`, they are the frames shown at each instant from `start` on, at most `num_frames`.
    """
    times, interval = source.times, source.interval
    length = float(times[-1]) + interval
    early = min(1e-3, interval / 4)  # Files round times to the millisecond.
    begin, stop = checked_span(source, start, end, early)
    check_count(num_frames)
    check_fps(fps)
    wanted: float = num_frames or 0
    if fps is not None:
        instants = max(1, (min(stop, length) - begin - early) * fps)
        instants = math.ceil(instants) if instants < math.inf else instants
        wanted = min(instants, num_frames or instants)
    if wanted > MAX_SAMPLES:
        raise InputError(f"that would be {wanted:,} frames; expected at most {MAX_SAMPLES:,}")

    if fps is not None:
        shown = begin + np.arange(int(wanted)) / fps
        return np.maximum(np.searchsorted(times, shown + early, side="right") - 1, 0)

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
    return np.linspace(0, last - first, num_frames, endpoint=False).astype(np.intp) + int(first)


def checked_span(
    source: FrameSource, start: float | None, end: float | None, early: float
) -> tuple[float, float]:
    """The first and last second of a span. Raises InputError unless it lies in the video.

    Times that differ by less than `early` seconds are the same.
    """
    check_times(start, end)
    length = float(source.times[-1]) + source.interval
    begin, stop = start or 0.0, length if end is None else end
    if end is not None and begin >= end:
        raise InputError(
            f"the span from {begin:g} to {end:g} s is empty; {source.path} is {length:.2f} s long"
        )
    if begin > source.times[-1] + early or stop > length + source.interval + early:
        to = "the end" if end is None else f"{end:g} s"
        raise InputError(
            f"the span from {begin:g} s to {to} is outside {source.path}, which is "
            f"{length:.2f} s long{f' ({source.damage})' if source.damage else ''}"
        )
    return begin, stop


def check_times(start: float | None, end: float | None) -> None:
    """Raises InputError or InputTypeError unless these are seconds, or None."""
    for name, value in (("start", start), ("end", end)):
        if value is None:
            continue
        try:
            is_time = 0 <= value < math.inf
        except TypeError:
            raise InputTypeError(
                f"{name} is {value!r}, a {type(value).__name__}; expected seconds"
            ) from None
        if not is_time:
            raise InputError(f"{name} is {value!r}; expected seconds, 0 or above")


def check_count(num_frames: int | None) -> None:
    """Raises InputError unless this is a number of frames, or None."""
    if num_frames is None:
        return
    try:
        is_count = operator.index(num_frames) >= 1
    except TypeError:
        raise InputTypeError(
            f"num_frames is {num_frames!r}, a {type(num_frames).__name__}; "
            "expected a whole number, or None for all"
        ) from None
    if not is_count:
        raise InputError(f"num_frames is {num_frames}; expected 1 or more, or None for all")


def check_fps(fps: float | None) -> None:
    """Raises InputError unless this is a frame rate to sample at, or None."""
    check_rate("fps", fps)
