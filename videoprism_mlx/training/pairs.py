"""Videos and their captions: frames cached on disk, and captions as token ids.

Shapes: B batch, T frames, S size of a frame, L text positions.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.datasets.captions import Captioned
from videoprism_mlx.features.cache import ArrayCache, fill
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.files.record import digest
from videoprism_mlx.ranks.joining import current
from videoprism_mlx.runtime.rounding import first_equal
from videoprism_mlx.training.run import Rows
from videoprism_mlx.video.source import Files

Array = npt.NDArray[Any]


class Frames:
    """Reads videos, and caches their clips (T, S, S, 3) as whole numbers 0-255."""

    def __init__(self, root: Path, processor: Processor, partial: bool = False):
        self.processor = processor
        self.partial = partial
        self.preprocessing = processor.preprocessing(partial=partial)
        self.cache = ArrayCache(root, {"kind": "frames", "preprocessing": self.preprocessing})

    def fill(self, videos: Sequence[Files], what: str) -> tuple[list[Path | None], list[str]]:
        """Reads the videos that are not cached yet; `what` is the title of the progress bar.

        Returns the path of each video's clip, or None if the video cannot be used; and a line about
        each video that cannot be used.
        """
        return fill(self.cache, videos, self.read, what=what)

    def read(self, files: Files) -> npt.NDArray[np.uint8]:
        """A video as a clip (T, S, S, 3), 0-255."""
        source = files if isinstance(files, Path) else list(files)
        clip = self.processor.read_exactly(source, partial=self.partial)
        return np.clip(np.round(clip * 255), 0, 255).astype(np.uint8)


class Pairs:
    """Videos whose clips are cached, and the captions of each as token ids.

    `paths` has the clip of each of `pairs`; None leaves out a video that cannot be used.
    """

    def __init__(
        self, frames: Frames, paths: Sequence[Path | None], pairs: Sequence[Captioned]
    ) -> None:
        usable = [(path, pair) for path, pair in zip(paths, pairs, strict=True) if path]
        self.cache = frames.cache
        self.frames = [path for path, _ in usable]
        self.captions = [pair.captions for _, pair in usable]
        self.ids: Array = np.empty((0, 0), np.int32)
        self.paddings: Array = np.empty((0, 0), np.float32)
        if texts := self.texts():
            self.ids, self.paddings = frames.processor.tokenize(texts)
        self._distinct: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]] | None = None
        self._firsts = np.cumsum([0, *map(len, self.captions)])

    def __len__(self) -> int:
        return len(self.frames)

    def texts(self) -> list[str]:
        """All captions, those of the first video first."""
        return [caption for said in self.captions for caption in said]

    def clips(self, rows: Sequence[int] | Rows) -> npt.NDArray[np.uint8]:
        """The clips of some videos: (B, T, S, S, 3), 0-255."""
        return np.stack([np.array(self.cache.load(self.frames[row])) for row in rows])

    @property
    def distinct_clips(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """As the function `first_equal`, of the clips. Each is read once, by one rank."""
        if self._distinct is not None:
            return self._distinct
        group = current()
        checksums = [
            hashlib.sha256(self.clips([row]).tobytes()).digest()
            for row in group.part(range(len(self)))
        ]
        own = np.frombuffer(b"".join(checksums), np.uint8).reshape(-1, hashlib.sha256().digest_size)
        self._distinct = first_equal(group.gather(own))
        return self._distinct

    def chosen_texts(self, rows: Rows, random: np.random.Generator) -> tuple[Array, Array]:
        """One caption of each video, at random: ids (B, L) and paddings (B, L)."""
        chosen = [random.integers(self._firsts[row], self._firsts[row + 1]) for row in rows]
        return self.ids[chosen], self.paddings[chosen]

    def digest(self) -> str:
        """A checksum of the videos, the versions of their files, and the token ids."""
        ids = self.ids.tolist() if len(self) else None
        return digest([[path.name for path in self.frames], list(map(len, self.captions)), ids])

    def video_of_text(self) -> npt.NDArray[np.intp]:
        """The number of the video that each caption belongs to."""
        return np.repeat(np.arange(len(self)), [len(said) for said in self.captions])


class ClipsOf:
    """The clips of some pairs, read from the cache for a slice of them at a time."""

    def __init__(self, pairs: Pairs, rows: Rows):
        self.pairs, self.rows = pairs, rows

    def __getitem__(self, part: slice, /) -> npt.NDArray[np.uint8]:
        """(B, T, S, S, 3), 0-255."""
        return self.pairs.clips(self.rows[part])
