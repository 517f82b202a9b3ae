"""The examples that a classifier's head is trained on: cached features of videos, and their labels.

Shapes: B batch, E examples, V views, T frames, N patches of a frame, S size of a frame, D width,
C classes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.datasets.labels import Labelled
from videoprism_mlx.encoders import FactorizedEncoder
from videoprism_mlx.errors import InputError
from videoprism_mlx.evaluation.metrics import multi_hot
from videoprism_mlx.features.cache import ArrayCache, fill
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.files.record import digest
from videoprism_mlx.training.run import Rows
from videoprism_mlx.training.views import Views
from videoprism_mlx.video.source import Files
from videoprism_mlx.weights.identity import ModelIdentity

Array = npt.NDArray[Any]

# How many clips threads may read ahead of the encoder.
CLIPS_AHEAD = 8


@dataclasses.dataclass(frozen=True)
class Examples:
    """The cached features of videos, one file of (V, T * N, D) for each, and the videos' labels."""

    cache: ArrayCache
    paths: tuple[Path, ...]
    labels: tuple[tuple[int, ...], ...]
    targets: Array  # Classes (E,), or multi-hot (E, C).

    @classmethod
    def of(
        cls, cache: ArrayCache, listed: Labelled, paths: Sequence[Path | None], classes: int
    ) -> "Examples":
        """The examples of a list. Videos whose path is None cannot be used, and are left out."""
        pairs = zip(paths, listed.labels, strict=True)
        usable = [(path, labels) for path, labels in pairs if path is not None]
        labels = tuple(labels for _, labels in usable)
        targets = multi_hot(labels, classes) if listed.multi_label else np.array(labels)[:, 0]
        return cls(cache, tuple(path for path, _ in usable), labels, targets)

    def part(self, rows: Rows) -> "Examples":
        """The examples with these numbers."""
        paths = tuple(self.paths[row] for row in rows)
        labels = tuple(self.labels[row] for row in rows)
        return dataclasses.replace(self, paths=paths, labels=labels, targets=self.targets[rows])

    def batch(self, rows: Rows, views: Rows) -> tuple[mx.array, mx.array]:
        """The features of one view of each example, (B, T * N, D) in float32, and the targets."""
        tokens = [
            # A copy, because a memory-mapped array keeps its file open.
            np.array(self.cache.load(self.paths[row])[view])
            for row, view in zip(rows, views, strict=True)
        ]
        return mx.array(np.stack(tokens)).astype(mx.float32), mx.array(self.targets[rows])

    def digest(self) -> str:
        """A checksum of the videos, the versions of their files, and their labels."""
        return digest([[path.name for path in self.paths], self.labels])


@dataclasses.dataclass(frozen=True)
class Features:
    """Encodes videos with a frozen encoder, and caches the features in folders below `root`."""

    root: Path
    encoder: FactorizedEncoder
    processor: Processor
    partial: bool = False

    @functools.cached_property
    def weights(self) -> str:
        """The checksum of the encoder's parameters."""
        return ModelIdentity(self.encoder).parameters

    def record(self, views: Views) -> dict[str, Any]:
        """The settings that the features depend on."""
        return {
            "features": "tokens in float16",
            "encoder": {
                **self.encoder.config,
                "weights": self.weights,
                "precision": ModelIdentity(self.encoder).precision,
            },
            "preprocessing": self.processor.preprocessing(partial=self.partial),
            "views": views.settings(),
        }

    def cache(self, views: Views) -> ArrayCache:
        """The cache for these views of videos."""
        return ArrayCache(self.root, self.record(views))

    def fill(
        self, videos: Sequence[Files], views: Views, what: str
    ) -> tuple[list[Path | None], list[str]]:
        """Encodes the videos that are not cached yet; `what` is the title of the progress bar.

        Returns the path of each video's features, or None if the video cannot be used; and a line
        about each video that cannot be used.
        """
        patches = (self.processor.size // self.encoder.patch_size) ** 2
        tokens = views.count * self.processor.num_frames * patches
        return fill(
            self.cache(views),
            videos,
            lambda video: views.read(self.processor, video, self.partial),
            self.encode,
            what,
            size=tokens * self.encoder.spatial_ln.weight.size * np.dtype(np.float16).itemsize,
            ahead=max(1, CLIPS_AHEAD // views.count),
        )

    def encode(self, clips: Sequence[Array]) -> Array:
        """V clips (T, S, S, 3) to features (V, T * N, D) in float16."""
        tokens = [self.encoder(mx.array(clip)[None])[0][0].astype(mx.float16) for clip in clips]
        features = np.stack([np.array(each) for each in tokens])
        if not np.isfinite(features).all():
            raise InputError(
                "the encoder's features of a video contain NaN or infinity; "
                "load the encoder with another dtype"
            )
        return features
