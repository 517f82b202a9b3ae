"""Warns about videos that are in two lists which should have none in common."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from videoprism_mlx.errors import are, counted
from videoprism_mlx.video.source import Files

logger = logging.getLogger(__name__)


def warn_of_overlap(training: Sequence[Files], validation: Sequence[Files]) -> None:
    """Logs a warning if videos to validate on are trained on too. Links are followed."""
    validated = real_paths(validation)
    shared = sorted(map(str, real_paths(training) & validated))
    if shared:
        logger.warning(
            "%d of %s to validate on %s trained on as well, such as %s: "
            "results on them say nothing about new videos",
            len(shared),
            counted(len(validated), "video"),
            are(len(shared), len(validated)),
            shared[0],
        )


def real_paths(videos: Sequence[Files]) -> set[str | tuple[str, ...]]:
    """Where each video is, after links are followed."""
    return {
        os.path.realpath(one) if isinstance(one, Path) else tuple(map(os.path.realpath, one))
        for one in videos
    }
