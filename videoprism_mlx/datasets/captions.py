"""Videos with captions."""

from pathlib import Path
from typing import NamedTuple

from videoprism_mlx.datasets.rows import base_of, files_of, rows_of, take
from videoprism_mlx.errors import InputError, shown
from videoprism_mlx.video.source import Files

# The names that the column or key of the caption may have.
CAPTION_KEYS = ("caption", "captions", "text", "sentence")


class Captioned(NamedTuple):
    """A video and its captions, one or more."""

    video: Files
    captions: tuple[str, ...]


def read_captions(path: str | Path) -> list[Captioned]:
    """Videos with captions from a CSV (columns video, caption) or JSON (a list of such objects).

    Rows of the same video are put together, in the order in which the videos first appear.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(
            f"{path} is a folder; expected a CSV with the columns video and caption, or a JSON list"
        )
    captions: dict[Files, list[str]] = {}
    rows = list(rows_of(path))
    folder = base_of(rows, path)
    for where, row in rows:
        video = files_of(row, folder, where)
        given = take(row, CAPTION_KEYS, where)
        for caption in given if isinstance(given, list) and given else [given]:
            if not isinstance(caption, str) or not caption.strip():
                raise InputError(f"{where}: the caption is {shown(caption)}; expected a text")
            captions.setdefault(video, []).append(caption.strip())
    if not captions:
        raise InputError(f"{path} has no entries; expected videos with captions")
    return [Captioned(video, tuple(each)) for video, each in captions.items()]
