"""The features of a video by their place in its frames.

Shapes: T frames, S size of a frame as the model takes it, H and W pixels of a frame as it is seen,
D width.
"""

import math
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.encoders import FactorizedEncoder, VideoPrismModel
from videoprism_mlx.errors import InputError
from videoprism_mlx.features.pipeline import Array
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.features.windows import encode_windows, space_features
from videoprism_mlx.progress import bar
from videoprism_mlx.video.resize import as_floats, resized, thumbnail
from videoprism_mlx.video.sampling import sample
from videoprism_mlx.video.source import Source, still_names

# The largest number of frames. The features of more would not fit in memory.
MOST_FRAMES = 1024


class FeatureMaps(NamedTuple):
    """The frames (T, H, W, 3), 0-255, their features (T, rows, columns, D), and times (T,).

    Images have no times of their own: `times` are those at 25 frames a second, and `names` are
    those of their files, or the numbers of frames in an array. Of a video, `names` is None.
    """

    frames: npt.NDArray[np.uint8]
    features: Array
    times: npt.NDArray[np.float64]
    names: list[str] | None = None


def map_features(
    model: VideoPrismModel,
    processor: Processor,
    source: Source,
    num_frames: int | None = 16,
    fps: float | None = None,
    *,
    height: int = 288,
    steady: bool = False,
    start: float | None = None,
    end: float | None = None,
    partial: bool = False,
    progress: bool = True,
) -> FeatureMaps:
    """The features of `num_frames` spread over a video or, with `fps`, of all frames at that rate.

    `height` is that of the returned frames. `progress` shows bars if stderr is a terminal. The
    features of a frame also depend on its position in its window. With `steady`, this is taken out:
    a still video has equal features in all frames.
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
    by_place = features_by_place(model, processor, clip, steady, progress)
    return FeatureMaps(frames, by_place, times, still_names(source, times))


def features_by_place(
    model: VideoPrismModel,
    processor: Processor,
    clip: Array,
    steady: bool = False,
    progress: bool = False,
) -> Array:
    """The features (T, rows, columns, D) of frames (T, S, S, 3), a window at a time.

    With `steady`, `position_effects` of the middle frame of each window are subtracted.
    """
    count, window = len(clip), min(len(clip), processor.num_frames)
    side = processor.size // model.video_encoder.patch_size
    features: Array = np.empty(0)
    windows = encode_windows(model, clip, window, processor=processor, features=["tokens"])
    total = math.ceil(count / window)
    for each in bar(windows, "encoding", "window", total=total, show=progress):
        first = min(each.number * window, count - window)
        tokens: Array = each.features["tokens"].reshape(window, side, side, -1)
        if steady:
            effects = position_effects(model.video_encoder, clip[first + window // 2], window)
            tokens = tokens - effects.reshape(tokens.shape)
        if each.number == 0:
            features = np.empty((count, *tokens.shape[1:]), tokens.dtype)
        features[first : first + window] = tokens
    return features


def position_effects(encoder: FactorizedEncoder, frame: Array, window: int) -> Array:
    """What the position in a window of T frames adds to the features of a frame: (T * N, D).

    The frame (S, S, 3) fills a whole window. The effect is what differs between its positions. The
    mean over the positions is 0.
    """
    [patches] = space_features(encoder, as_floats(frame[None]))
    held = encoder.encode_time(mx.broadcast_to(patches, (1, window, *patches.shape)))
    by_position = mx.unflatten(held[0], 0, (window, -1)).astype(mx.float32)
    effects = by_position - by_position.mean(0)
    return np.array(effects.flatten(0, 1))
