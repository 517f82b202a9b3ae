"""Comparing the windows of a long video with texts, to find when it shows what a text says.

Shapes: N windows, Q texts, H and W pixels of a frame.
"""

from collections.abc import Sequence
from functools import partial as bind
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.features.processor import Processor, check_text
from videoprism_mlx.features.text import embed_texts, require_tokenizer
from videoprism_mlx.features.windows import check_windowing, encode_windows
from videoprism_mlx.progress import bar
from videoprism_mlx.video.ffmpeg.decoding import PLAIN, Decoding
from videoprism_mlx.video.resize import thumbnail
from videoprism_mlx.video.sampling import sample
from videoprism_mlx.video.source import Source

# The sampling of `timeline`: a window of 16 frames lasts two seconds, and one starts every second,
# or as soon as the one before ends.
FPS, STRIDE = 8.0, 8


def usual_windows(processor: Processor, window: int | None, stride: int | None) -> tuple[int, int]:
    """The frames of a window and from one to the next, where None stands for the usual number.

    The usual stride leaves out no frame.
    """
    window = processor.num_frames if window is None else window
    return window, min(STRIDE, window) if stride is None else stride


class Timeline(NamedTuple):
    """The cosines `scores` (N, Q) of windows and texts.

    A window lasts from `starts` (N,) to `ends` (N,), in seconds.
    """

    starts: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float32]


class Peak(NamedTuple):
    """When a video shows what a text says: from `start` to `end`, in seconds.

    `score` is the highest cosine in that time, and `seconds` the middle of the window that has it.
    """

    text: str
    start: float
    end: float
    seconds: float
    score: float


def video_peaks(
    model: VideoPrismModel,
    processor: Processor,
    source: Source,
    texts: Sequence[str],
    window: int | None = None,
    stride: int | None = None,
    fps: float | None = FPS,
    *,
    start: float | None = None,
    end: float | None = None,
    partial: bool = False,
    progress: bool = True,
) -> list[Peak]:
    """When a video shows what texts say: the peaks of each text, the highest score first.

    A peak is a run of windows whose scores are at least halfway from the median of that text's
    scores to their maximum; runs that overlap in time are one. Every text has a peak, also one that
    the video never shows: look at the score. The arguments are those of `score_windows`, but
    `stride` is 8 by default, or `window` if that is smaller.
    """
    window, stride = usual_windows(processor, window, stride)
    options: dict[str, Any] = dict(start=start, end=end, partial=partial, progress=progress)
    timeline = score_windows(model, processor, source, texts, window, stride, fps, **options)
    return find_peaks(timeline, texts)


def find_peaks(timeline: Timeline, texts: Sequence[str]) -> list[Peak]:
    """The peaks of a timeline, as `video_peaks` gives them."""
    peaks = []
    for text, scores in zip(texts, timeline.scores.T.astype(np.float64), strict=True):
        level = min((np.median(scores) + scores.max()) / 2, scores.max())
        runs: list[list[int]] = []
        for number in np.flatnonzero(scores >= level).tolist():
            if runs and (
                number == runs[-1][-1] + 1 or timeline.starts[number] < timeline.ends[runs[-1][-1]]
            ):
                runs[-1].append(number)
            else:
                runs.append([number])
        found = []
        for run in runs:
            best = max(run, key=lambda number: scores[number])
            first, last = float(timeline.starts[run[0]]), float(timeline.ends[run[-1]])
            middle = float(timeline.starts[best] + timeline.ends[best]) / 2
            found.append(Peak(text, first, last, middle, float(scores[best])))
        peaks += sorted(found, key=lambda peak: -peak.score)
    return peaks


def score_windows(
    model: VideoPrismModel,
    processor: Processor,
    source: Source,
    texts: Sequence[str],
    window: int | None = None,
    stride: int | None = None,
    fps: float | None = None,
    *,
    start: float | None = None,
    end: float | None = None,
    partial: bool = False,
    progress: bool = True,
) -> Timeline:
    """Compares the windows of a video with texts, after putting texts into the template.

    `window`, `stride` and `fps` are as for `encode_windows`; by default, a window has the
    processor's number of frames. `progress` shows a bar if stderr is a terminal.
    """
    check_scoring(model, processor, texts, window, stride, fps)
    texts_embedded = embed_texts(model, processor, texts)
    starts, ends, scores = [], [], []
    with bar(unit="window", show=progress) as shown:
        for each in encode_windows(
            model,
            source,
            processor.num_frames if window is None else window,
            stride,
            fps,
            processor=processor,
            features=["embedding"],
            start=start,
            end=end,
            partial=partial,
        ):
            shown.total = each.count
            shown.update()
            starts.append(each.start)
            ends.append(each.end)
            scores.append(texts_embedded @ each.features["embedding"])
    return Timeline(np.array(starts), np.array(ends), np.array(scores))


def check_scoring(
    model: VideoPrismModel,
    processor: Processor,
    texts: Sequence[str],
    window: int | None = None,
    stride: int | None = None,
    fps: float | None = None,
) -> None:
    """Raises InputError if `score_windows` cannot use these arguments.

    The model needs no weights yet.
    """
    require_tokenizer(model, processor)
    for text in texts:
        check_text(text)
    window = processor.num_frames if window is None else window
    check_windowing(window, window if stride is None else stride, fps)


def frame_at(
    source: Source,
    seconds: float,
    height: int,
    partial: bool = False,
    decoding: Decoding = PLAIN,
) -> npt.NDArray[np.uint8]:
    """The frame that the video shows at `seconds`, resized to (height, W, 3), 0-255."""
    prepare = bind(thumbnail, height=height)
    [frame], _ = sample(
        source, prepare, 1, start=seconds, fps=1, partial=partial, decoding=decoding
    )
    return frame
