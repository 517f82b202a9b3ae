"""The demo as one image, for a README or a message."""

import numpy as np
import numpy.typing as npt

from videoprism_mlx.demo.results import Demo, Ranking, Turn
from videoprism_mlx.errors import counted
from videoprism_mlx.pictures.sheets import Found, draw_search

# How many queries are shown, and how many clips for each.
ROWS, CLIPS = 5, 3


def draw_picture(demo: Demo) -> npt.NDArray[np.uint8]:
    """An image (height, width, 3) of the first queries with the clips that were found.

    Below them is a clip played forwards and backwards.
    """
    rows = [*map(ranking_row, demo.rankings[:ROWS]), turn_row(demo.turns[0])]
    return draw_search(
        rows, title=f"{counted(len(demo.clips), 'clip')}, searched by what they show"
    )


def ranking_row(ranking: Ranking) -> tuple[str, list[Found]]:
    """A query and the first clips that were found, with their cosines."""
    return f"“{ranking.query.text}”", [
        (hit.clip.frames(), f"{hit.cosine:.3f} · {hit.clip.motion}", hit.is_right)
        for hit in ranking.hits[:CLIPS]
    ]


def turn_row(turn: Turn) -> tuple[str, list[Found]]:
    """A clip in both directions, with the cosines of both sentences."""
    clips = turn.clip, turn.backwards
    found: list[Found] = []
    for clip, cosines in zip(clips, turn.cosines, strict=True):
        said = ", ".join(
            f"{cosine:.3f} {of.motion}" for cosine, of in zip(cosines, clips, strict=True)
        )
        found.append((clip.frames(), said, turn.turns))
    return "the same frames, forwards and backwards", found
