"""A video to its moments: read in one thread, encoded in another, a window at a time.

Shapes: n frames of a chunk, S size of a frame, D width of an embedding.
"""

import dataclasses
import io
import itertools
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError, VideoError
from videoprism_mlx.features.pipeline import evaluated, not_finite, read_ahead, waiting
from videoprism_mlx.features.spans.dividing import Divide, Plan, Span, chunks_of, following, whole
from videoprism_mlx.features.windows import joined_windows
from videoprism_mlx.library.model import Reading
from videoprism_mlx.video.ffmpeg.index import Index
from videoprism_mlx.video.frame import Frame
from videoprism_mlx.video.resize import as_floats, resized, thumbnail
from videoprism_mlx.video.sampling import choose_frames
from videoprism_mlx.video.source import FrameSource, open_source

# The pictures of moments: how large they are at most, and how good.
PICTURE_HEIGHT, PICTURE_WIDTH, PICTURE_QUALITY = 160, 640, 80


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a library keeps of a video, besides its moments."""

    duration: float
    width: int
    height: int
    rate: float
    codec: str
    recorded: float | None


class Begun(NamedTuple):
    """A video that is read from the beginning: now, or again because its index was wrong.

    The first of `spans` is read. `listed` is the index for other processes that read the others.
    """

    plan: Plan
    facts: Facts
    spans: list[Span]
    listed: Index | None


class Chunk(NamedTuple):
    """Some samples of a video, their frames (n, S, S, 3), and pictures of some of them."""

    samples: list[int]
    frames: npt.NDArray[np.float32]
    pictures: dict[int, bytes]


class Moments(NamedTuple):
    """The moments of a video, N in all, in the order of time."""

    facts: Facts
    starts: list[float]
    ends: list[float]
    embeddings: npt.NDArray[np.float32]  # (N, D)
    pictures: list[bytes]


Pieces = Iterator[Begun | Chunk]


class Anew(Exception):
    """The video holds other frames than its index said, and is read again."""

    def __init__(self, begun: Begun):
        self.begun = begun


def pieces(
    path: Path, reading: Reading, divide: Divide = whole, index: Index | None = None
) -> Generator[Begun | Chunk, None, None]:
    """What a video consists of, or its first span. It is decoded as far as it is asked for."""
    decoding = reading.processor.decoding
    with closing(open_source(path, None, reading.partial, decoding, index)) as opened:
        yield from opened.consistently(lambda: _attempt(opened, reading, divide))


def _attempt(opened: FrameSource, reading: Reading, divide: Divide) -> Iterator[Begun | Chunk]:
    opened.require_whole()
    plan = plan_of(opened, reading)
    spans = divide(opened, plan)
    span = spans[0]
    middles = {first + plan.window // 2 for first in plan.firsts[span.first : span.stop]}
    chunks = chunks_of(plan, span)
    samples = [sample for chunk in chunks for sample in chunk]
    images = opened.fetch(plan.numbers[[*samples, *following(plan, span, samples)]])
    first = next(images)
    images = itertools.chain([first], images)
    yield Begun(plan, facts_of(opened, first), spans, opened.index)
    sizing = reading.processor.sizing()
    for samples in chunks:
        frames, pictures = [], {}
        for sample, image in zip(samples, images, strict=False):
            if sample in middles:
                pictures[sample] = small_picture(image, opened.aspect)
            frames.append(as_floats(resized(image, **sizing, aspect=opened.aspect)))
        try:
            yield Chunk(samples, np.stack(frames), pictures)
        except MemoryError:
            raise InputError(
                f"{len(samples)} frames of {opened.path} do not fit in memory; "
                "give a smaller window (--window)"
            ) from None
    for _ in images:  # Where the next span begins.
        pass
    if span.stop == len(plan.firsts):
        opened.finish(others_began=span.first > 0)


def plan_of(opened: FrameSource, reading: Reading) -> Plan:
    """Which frames the windows of a video are made of.

    A video that is shorter than a window is sampled over its whole length, as `encode` does.
    """
    window = reading.window
    samples = choose_frames(opened, None, fps=reading.fps)
    if len(samples) >= window:
        return Plan.of(opened, window, reading.stride, None, None, reading.fps)
    numbers = choose_frames(opened, window)
    end = opened.times[-1] + opened.interval
    instants = np.linspace(0, end, window + 1)
    return Plan(numbers, instants, [0], window)


def facts_of(opened: FrameSource, image: Frame) -> Facts:
    """What there is to say about an open video, of which `image` is a frame."""
    times = opened.times
    rate = (len(times) - 1) / float(times[-1]) if times[-1] else 1 / opened.interval
    height, width = image.shape[:2]
    return Facts(
        duration=float(times[-1]) + opened.interval,
        width=max(1, round(width * opened.aspect)),
        height=height,
        rate=rate,
        codec=opened.codec,
        recorded=opened.recorded,
    )


def small_picture(image: Frame, aspect: float) -> bytes:
    """A frame as a small JPEG, in the aspect that players show."""
    width = image.shape[1] * aspect
    most = min(PICTURE_HEIGHT, image.shape[0])
    height = round(min(most, PICTURE_WIDTH * image.shape[0] / width))
    try:
        small = thumbnail(image, max(1, height), aspect)
    except VideoError:  # It is one pixel high, or so.
        small = np.zeros((1, 1, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).save(file, "JPEG", quality=PICTURE_QUALITY)
    return file.getvalue()


@dataclasses.dataclass(eq=False)
class Opening:
    """A video whose first chunk has been read."""

    begun: Begun
    first: Chunk
    rest: Generator[Begun | Chunk, None, None]

    @classmethod
    def of(
        cls, path: Path, reading: Reading, divide: Divide = whole, index: Index | None = None
    ) -> "Opening":
        """Opens a video, and reads the first chunk of it or, if it is divided, of its first span.

        `index` is that of the same file in another process.
        """
        stream = pieces(path, reading, divide, index)
        try:
            begun: Any = None
            for piece in stream:
                if isinstance(piece, Chunk):
                    return cls(begun, piece, stream)
                begun = piece
            raise VideoError(f"{path} has no frame that can be decoded")
        except BaseException:
            stream.close()
            raise

    def close(self) -> None:
        """Closes the video."""
        self.rest.close()


def moments_of(
    model: VideoPrismModel, opening: Opening, path: Path, turn: "threading.Lock | None" = None
) -> Generator[float | Moments, None, None]:
    """Encodes a video. Yields how much of it is done, from 0 to 1, and at last its moments.

    With `turn`, the model runs while this thread has that lock, and not while it waits for frames.
    """

    def following(_: int) -> Begun | Chunk | None:
        return next(opening.rest, None)

    with (
        closing(opening),
        read_ahead(following, itertools.count(), readers=1, ahead=2) as read,
    ):
        rest = itertools.takewhile(bool, (piece for _, piece in read))
        stream = itertools.chain([opening.first], cast(Pieces, rest))
        begun = opening.begun
        while True:
            try:
                yield from _encoded(model, begun, stream, path, turn or threading.Lock())
                return
            except Anew as anew:
                begun = opening.begun = anew.begun


def _encoded(
    model: VideoPrismModel, begun: Begun, stream: Pieces, path: Path, turn: threading.Lock
) -> Iterator[float | Moments]:
    pictures: dict[int, bytes] = {}

    def chunks() -> Iterator[tuple[Sequence[int], npt.NDArray[np.float32]]]:
        for piece in waiting(stream, turn):
            if isinstance(piece, Begun):
                raise Anew(piece)
            pictures.update(piece.pictures)
            yield piece.samples, piece.frames

    span = begun.spans[0]
    plan = begun.plan._replace(firsts=begun.plan.firsts[: span.stop])
    count = span.stop - span.first
    starts, ends, vectors = [], [], []
    lazily = joined_windows(
        model, model.video_encoder, plan, chunks(), ["embedding"], done=span.first
    )
    with turn:
        for [(window, arrays)] in evaluated(lazily):
            if error := not_finite(arrays, path):
                raise error
            starts.append(window.start)
            ends.append(window.end)
            vector = arrays["embedding"].astype(np.float64)
            vectors.append((vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32))
            yield len(vectors) / count
    for piece in stream:  # The end of the file, which may be damaged, is read too.
        if isinstance(piece, Begun):
            raise Anew(piece)
    ordered = [pictures[first + plan.window // 2] for first in plan.firsts[span.first :]]
    yield Moments(begun.facts, starts, ends, np.stack(vectors), ordered)


def joined(parts: Sequence[Moments]) -> Moments:
    """The moments of a video from those of its spans, in the order of time."""
    return Moments(
        parts[0].facts,
        [start for part in parts for start in part.starts],
        [end for part in parts for end in part.ends],
        np.concatenate([part.embeddings for part in parts]),
        [picture for part in parts for picture in part.pictures],
    )
