"""Augmentation: a training video as it is, and random crops and spans of it.

Shapes: T frames, S size of a frame.
"""

import dataclasses
import hashlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import InputError
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.training.recipe import as_number, check_count
from videoprism_mlx.video.resize import MAX_SIZE
from videoprism_mlx.video.source import Files, open_source


@dataclasses.dataclass(frozen=True)
class Views:
    """How many views there are of a training video: the plain one, and `count` - 1 random ones.

    A random view shows a span of the video with at least the share `span` of its frames, and of
    each frame a square whose side is at least the share `crop` of the frame's.
    """

    count: int = 1
    crop: float = 0.75
    span: float = 0.75
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("views", self.count)
        for name in ("crop", "span"):
            value = getattr(self, name)
            if not 0 < as_number(name, value) <= 1:
                raise InputError(f"{name} is {value}; expected a share, up to 1")

    def settings(self) -> dict[str, Any] | None:
        """The settings that features depend on; None if there is only the plain view."""
        return dataclasses.asdict(self) if self.count > 1 else None

    def random(self, video: Files, number: int) -> np.random.Generator:
        """The random numbers for view `number` of a video.

        They follow from the seed and from the names of the video's first file and its folder.
        """
        name = "/".join((video if isinstance(video, Path) else video[0]).parts[-2:])
        checksum = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
        return np.random.default_rng([self.seed, int.from_bytes(checksum[:8], "big"), number])

    def read(
        self, processor: Processor, video: Files, partial: bool = False
    ) -> list[npt.NDArray[np.float32]]:
        """All views of a video, the plain one first: a clip (T, S, S, 3) each."""
        clips = [processor.read_exactly(video, partial=partial)]
        for number in range(1, self.count):
            clips.append(self._read_at_random(processor, video, partial, number))
        return clips

    def _read_at_random(
        self, processor: Processor, video: Files, partial: bool, number: int
    ) -> npt.NDArray[np.float32]:
        """Random view `number` of a video: (T, S, S, 3)."""
        random, size = self.random(video, number), processor.size
        larger = min(round(size / random.uniform(self.crop, 1)), MAX_SIZE)
        top, left = random.integers(larger - size + 1, size=2)
        span = self._random_span(processor, video, partial, random)
        clip = processor.read_exactly(video, size=larger, partial=partial, **span)
        return clip[:, top : top + size, left : left + size]

    def _random_span(
        self, processor: Processor, video: Files, partial: bool, random: np.random.Generator
    ) -> dict[str, float | None]:
        """Where a random view starts and ends, in seconds.

        If the processor samples at a frame rate, the length is fixed and only the start is random.
        """
        with closing(open_source(video, partial=partial, decoding=processor.decoding)) as opened:
            times = opened.times
            end = times[-1] + opened.interval
        if processor.fps is not None:
            latest = max(0.0, end - processor.num_frames / processor.fps)
            return {"start": random.uniform(0, latest)}
        count = max(1, round(len(times) * random.uniform(self.span, 1)))
        first = int(random.integers(len(times) - count + 1))
        is_last = first + count == len(times)
        return {"start": float(times[first]), "end": None if is_last else times[first + count]}


PLAIN = Views()
