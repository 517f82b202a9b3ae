"""What the demo found: rankings of the clips, and how playing clips backwards changes them.

Shapes: V clips, T frames, S size of a frame.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from videoprism_mlx.demo.captions import first_wording, summary
from videoprism_mlx.demo.queries import Query
from videoprism_mlx.demo.scenes import Scene
from videoprism_mlx.video.sampling import read_video

PAGE, PICTURE = "index.html", "demo.png"


class Clip(NamedTuple):
    """A video file and the scene that it was drawn from."""

    path: Path
    scene: Scene

    @property
    def shows(self) -> str:
        """The scene in words."""
        return summary(self.scene)

    @property
    def motion(self) -> str:
        """How its things move, in words."""
        return " and ".join(first_wording(thing.motion) for thing in self.scene.things)

    def frames(self) -> npt.NDArray[np.uint8]:
        """The frames (T, S, S, 3) of the file: RGB, 0-255."""
        return np.round(255 * read_video(self.path, num_frames=None, size=None)).astype(np.uint8)


class Hit(NamedTuple):
    """A clip, its cosine with a query, and whether it is right: None if that is not known."""

    clip: Clip
    cosine: float
    is_right: bool | None


class Ranking(NamedTuple):
    """A query and all clips, the one with the highest cosine first."""

    query: Query
    hits: Sequence[Hit]

    @property
    def right(self) -> list[int]:
        """The ranks of the right clips, from 1."""
        return [rank for rank, hit in enumerate(self.hits, 1) if hit.is_right]


class Turn(NamedTuple):
    """A clip, the same clip played backwards, and a sentence about each: `text` and `opposite`.

    `cosines` (2, 2) has a row for each clip and a column for each sentence.
    """

    clip: Clip
    backwards: Clip
    text: str
    opposite: str
    cosines: npt.NDArray[np.floating]

    @property
    def turns(self) -> bool:
        """Whether each clip has the higher cosine with its own sentence."""
        forwards, backwards = self.cosines
        return bool(forwards[0] > forwards[1] and backwards[1] > backwards[0])


@dataclasses.dataclass(frozen=True)
class Demo:
    """What was drawn and found, and how many seconds each step took."""

    output: Path
    clips: Sequence[Clip]
    rankings: Sequence[Ranking]
    turns: Sequence[Turn]
    parameters: int
    seconds: Mapping[str, float]

    @property
    def page(self) -> Path:
        """The path of the page."""
        return self.output / PAGE

    @property
    def picture(self) -> Path:
        """A summary as an image."""
        return self.output / PICTURE

    @property
    def judged(self) -> list[Ranking]:
        """The rankings of those queries for which it is known which clips are right."""
        return [ranking for ranking in self.rankings if ranking.query.things]

    @property
    def first_right(self) -> int:
        """The number of judged queries whose first clip is right."""
        return sum(bool(ranking.hits[0].is_right) for ranking in self.judged)

    @property
    def by_chance(self) -> float:
        """The average number of judged queries whose first clip is right in a random order."""
        return sum(len(ranking.right) / len(ranking.hits) for ranking in self.judged)


def rank(query: Query, cosines: npt.NDArray[np.floating], clips: Sequence[Clip]) -> Ranking:
    """The clips in the order of their cosines (V,) with a query."""
    order = np.argsort(-cosines, kind="stable")
    hits = [Hit(clips[i], float(cosines[i]), query.is_answered_by(clips[i].scene)) for i in order]
    return Ranking(query, hits)
