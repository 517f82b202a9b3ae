"""What a search returns."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Moment:
    """A stretch of a video, and how well it fits the query.

    `video` is the name to show, `path` the file, `start` and `end` are seconds. `score` is the
    cosine of its best window with the query. `id` is that of the video in its library, and `number`
    that of the best window.
    """

    video: str
    path: str
    start: float
    end: float
    score: float
    id: str
    number: int

    def as_json(self) -> dict[str, Any]:
        """What `search --json` prints."""
        times = {"start": round(self.start, 3), "end": round(self.end, 3)}
        return {"video": self.video, "path": self.path, **times, "score": self.score}
