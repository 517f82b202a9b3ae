"""What workers do: the features of a batch of videos, or of a span of the windows of one."""

import dataclasses
import functools
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from videoprism_mlx.errors import EXPECTED
from videoprism_mlx.features.embedding.job import Job, Span
from videoprism_mlx.features.encode import encoded_group
from videoprism_mlx.features.pipeline import Array, Features, evaluated, not_finite, read_ahead
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.features.spans.dividing import (
    Divide,
    Plan,
    at_first,
    exactly,
    mark_of,
    spans_within,
    whole,
)
from videoprism_mlx.features.spans.dividing import Span as WindowSpan
from videoprism_mlx.features.spans.shares import Encoded
from videoprism_mlx.features.windows import Sampling, span_windows
from videoprism_mlx.video.ffmpeg.index import Index
from videoprism_mlx.video.source import FrameSource, open_source
from videoprism_mlx.workers.files import Files
from videoprism_mlx.workers.model import SharedModel, turn
from videoprism_mlx.workers.places import renamed
from videoprism_mlx.workers.tasks import portable

# A video as tasks name it: its path where the command runs, and its bytes.
Named = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Work:
    """What all tasks have in common. `sampling` is None for one clip of each video.

    A span has `most` windows, about.
    """

    model: SharedModel
    files: Files
    processor: Processor
    features: tuple[str, ...]
    partial: bool
    span: Span
    sampling: Sampling | None
    most: int


def embed_batch(work: Work, videos: Sequence[Named]) -> list[Features | Exception]:
    """The features of videos that are encoded together, or the error of reading each."""
    model = work.model.load()

    def read(found: tuple[str, Path | Exception]) -> Array | Exception:
        path, there = found
        if isinstance(there, Exception):
            return there
        try:
            span = dataclasses.asdict(work.span)
            return work.processor.read(there, partial=work.partial, **span)
        except EXPECTED as error:
            return portable(renamed(error, there, path))

    with ExitStack() as stack:
        at_hand = [(path, here(stack, work.files, path, size)) for path, size in videos]
        with read_ahead(read, at_hand, None, len(videos)) as clips:
            group = [(path, clip) for (path, _), clip in clips]
    with turn:
        results = [*evaluated(iter([encoded_group(model, work.features, group)]))]
    return [
        encoded.error or not_finite(arrays, encoded.source) or arrays
        for group_results in results
        for encoded, arrays in group_results
    ]


def here(stack: ExitStack, files: Files, path: str, size: int) -> Path | Exception:
    """The file that stands for a video on this worker, until the stack is closed; or an error."""
    try:
        return stack.enter_context(files.at_hand(path, size))
    except EXPECTED as error:
        return portable(error)


def embed_windows(work: Work, path: str, size: int, is_divided: bool) -> Encoded:
    """The windows of a video or, if it is long and may be divided, of its first span."""
    divide = at_first(functools.partial(spans_within, most=work.most)) if is_divided else whole
    return _encoded(work, path, size, divide, None)


def embed_span(
    work: Work, path: str, size: int, span: WindowSpan, mark: str, listed: Index | None
) -> Encoded:
    """The windows of another span of a video that was divided."""
    return _encoded(work, path, size, exactly(span, mark), listed)


def _encoded(work: Work, path: str, size: int, divide: Divide, listed: Index | None) -> Encoded:
    model, found = work.model.load(), None
    assert work.sampling is not None
    begun: list[Encoded] = []

    def noted(opened: FrameSource, plan: Plan) -> list[WindowSpan]:
        spans = divide(opened, plan)
        begun.append(Encoded(None, spans, mark_of(plan), opened.index))
        return spans

    try:
        with work.files.at_hand(path, size) as found:
            opened = open_source(found, None, work.partial, work.processor.decoding, listed)
            with closing(opened):
                arguments = (work.processor, opened, work.sampling, work.features, noted, turn)
                windows = [*span_windows(model, *arguments)]
    except EXPECTED as error:
        raise renamed(error, found, path) from error
    return begun[-1]._replace(result=windows)


class Sizes(NamedTuple):
    """The bytes of a result, and how many windows of a video make one."""

    result: int
    windows: int


def sizes_of(job: Job, most: int) -> Sizes:
    """How large the results of a job are: a batch of videos, or windows of about `most` bytes."""
    encoder = job.model.video_encoder
    dimension = int(encoder.config["model_dim"])
    frames = job.windowing.window if job.windowing else job.processor.num_frames
    patches = (job.processor.size // encoder.patch_size) ** 2
    vectors = {"tokens": frames * patches, "frames": frames}
    each = 4 * dimension * sum(vectors.get(name, 1) for name in job.features)
    if job.windowing is None:
        return Sizes(job.batch_size * each, 1)
    windows = max(1, most // each)
    return Sizes(windows * each, windows)
