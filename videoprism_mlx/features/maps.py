"""The features of a video by their place in its frames.

Shapes: T frames, S size of a frame as the model takes it, H and W pixels of a frame as it is seen,
D width.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError
from videoprism_mlx.features.pipeline import Array
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.features.windows import encode_windows
from videoprism_mlx.progress import bar
from videoprism_mlx.video.resize import resized, thumbnail
from videoprism_mlx.video.sampling import sample
from videoprism_mlx.video.source import Source

# The largest number of frames. The features of more would not fit in memory.
MOST_FRAMES = 1024


class FeatureMaps(NamedTuple):
    """The frames (T, H, W, 3), 0-255, their features (T, rows, columns, D), and times (T,)."""

    frames: npt.NDArray[np.uint8]
    features: Array
    times: npt.NDArray[np.float64]


def map_features(
    model: VideoPrismModel,
    processor: Processor,
    source: Source,
    num_frames: int | None = 16,
    fps: float | None = None,
    *,
    height: int = 288,
    start: float | None = None,
    end: float | None = None,
    partial: bool = False,
    progress: bool = True,
) -> FeatureMaps:
    """The features of `num_frames` spread over a video or, with `fps`, of all frames at that rate.

    `height` is that of the returned frames. `progress` shows bars if stderr is a terminal.
    """

    def prepare(image: Array, aspect: float) -> tuple[Array, Array]:
        taken = resized(image, **processor.sizing(), aspect=aspect)
        reading.update()
        return taken, thumbnail(image, height, aspect)

    most = MOST_FRAMES + 1 if fps is not None else num_frames
    with bar(what="reading", unit="frame", show=progress) as reading:
        pairs, times = sample(
            source,
            prepare,
            most,
            start=start,
            end=end,
            fps=fps,
            partial=partial,
            decoding=processor.decoding,
        )
    if fps is not None and len(pairs) > MOST_FRAMES:
        raise InputError(
            f"the span has more than {MOST_FRAMES} frames in {times[-1]:.0f} s; "
            "narrow it with --start and --end, or give a lower --fps"
        )
    try:
        clip, frames = (np.stack(one) for one in zip(*pairs, strict=True))
    except MemoryError:
        raise InputError(
            f"{len(pairs)} frames do not fit in memory; expected fewer (--frames, --fps)"
        ) from None
    return FeatureMaps(frames, features_by_place(model, processor, clip, progress), times)


def features_by_place(
    model: VideoPrismModel, processor: Processor, clip: Array, progress: bool = False
) -> Array:
    """The features (T, rows, columns, D) of frames (T, S, S, 3), a window at a time."""
    count, window = len(clip), min(len(clip), processor.num_frames)
    side = processor.size // model.video_encoder.patch_size
    features: Array = np.empty(0)
    windows = encode_windows(model, clip, window, processor=processor, features=["tokens"])
    total = math.ceil(count / window)
    for each in bar(windows, "encoding", "window", total=total, show=progress):
        tokens = each.features["tokens"].reshape(window, side, side, -1)
        if each.number == 0:
            features = np.empty((count, *tokens.shape[1:]), tokens.dtype)
        first = min(each.number * window, count - window)
        features[first : first + window] = tokens
    return features
