"""What the page asks for: searches, videos and their timelines, uploads, and how things stand.

Shapes: D width of an embedding.
"""

import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import InputError
from videoprism_mlx.library.filters import Where, parse_date
from videoprism_mlx.library.moment import Moment
from videoprism_mlx.library.search.query import Part, combined, parse
from videoprism_mlx.library.searcher import Searcher
from videoprism_mlx.library.table import OK
from videoprism_mlx.library.web.catalogue import Catalogue, Row
from videoprism_mlx.library.web.limits import Limits
from videoprism_mlx.library.web.media import media_type
from videoprism_mlx.library.web.previews import Previews
from videoprism_mlx.library.web.uploads import Uploads
from videoprism_mlx.models import DEMO_MODEL

Vector = npt.NDArray[np.float32]
Query = Mapping[str, str]

# The id of a video, and a moment as the page names it.
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MOMENT = re.compile(r"([A-Za-z0-9_-]{1,64}):([0-9]{1,9})")

EXAMPLES = (
    "a dog catches a frisbee",
    "someone pours coffee",
    "waves at sunset",
    "a goal is scored",
)
DRAWN_EXAMPLES = (
    "something spinning",
    "a yellow heart",
    "a pink square moves left",
    "a big blue star moves left at night",
)


class Unknown(InputError):
    """There is no such video, moment or upload."""


class Api:
    """The answers to the page, as values that JSON can hold. Safe to be used from threads."""

    def __init__(self, searcher: Searcher, limits: Limits, previews: Previews):
        self.searcher = searcher
        self.limits = limits
        self.previews = previews
        self.catalogue = Catalogue(searcher.tables)
        self.uploads = Uploads(searcher, limits)

    def status(self) -> dict[str, Any]:
        """How many videos there are, whether more are being added, and what one may ask for."""
        summary = self.catalogue.summary()
        model = self.searcher.tables.record.get("model", {})
        name = model.get("name") if isinstance(model, dict) else model
        return {
            "videos": summary.videos,
            "moments": summary.moments,
            "errors": summary.errors,
            "missing": summary.missing,
            "adding": self.catalogue.is_growing,
            "model": name,
            "examples": DRAWN_EXAMPLES if name == DEMO_MODEL else EXAMPLES,
            "uploadBytes": self.limits.upload_bytes,
            "previewLength": self.limits.preview_length,
        }

    def folders(self) -> dict[str, Any]:
        """The folders that searches can be limited to."""
        summary = self.catalogue.summary()
        named = {one: os.path.relpath(one, summary.root) for one in summary.folders}
        return {
            "folders": [
                {"path": one, "name": named[one], "videos": count}
                for one, count in summary.folders.items()
            ]
        }

    def newest(self) -> dict[str, Any]:
        """The newest videos, to look around."""
        summary = self.catalogue.summary()
        rows = self.catalogue.videos(summary.newest)
        found = [rows[one] for one in summary.newest if one in rows]
        middles = [(row["id"], max(row["moments"] - 1, 0) // 2) for row in found]
        self.catalogue.pictures(middles)  # All at once; the page will ask for each.
        return {
            "videos": [
                {**self._video(row), "number": number}
                for row, (_, number) in zip(found, middles, strict=True)
            ]
        }

    def search(self, query: Query) -> dict[str, Any]:
        """The moments that fit best."""
        count = number_of(query, "k", 24, self.limits.results)
        where, vector = self._where(query), self._vector(query)
        if vector is None:
            raise InputError("there is nothing to search for: say what happens in the video")
        self.catalogue.refresh()
        is_all = query.get("all") == "1"
        found = self.searcher.search(vector, k=count, where=where, moments=is_all)
        self.catalogue.pictures([(moment.id, moment.number) for moment in found])
        rows = self.catalogue.videos(moment.id for moment in found)
        return {
            "moments": [
                self._moment(moment, rows[moment.id]) for moment in found if moment.id in rows
            ],
            "more": len(found) == count and count < self.limits.results,
            "unknown": self._unknown(query),
        }

    def video(self, video_id: str, query: Query) -> dict[str, Any]:
        """A video and, if something is searched for, the score of each of its windows."""
        row = self.row(video_id)
        answer = {"video": {**self._video(row), "path": row["path"]}, "timeline": None}
        vector = self._vector(query)
        if vector is not None:
            found = self.searcher.scores(video_id, vector)
            answer["timeline"] = {
                "starts": rounded(found.starts),
                "ends": rounded(found.ends),
                "scores": rounded(found.cosines, 4),
            }
        return answer

    def row(self, video_id: str) -> Row:
        """The row of a video that can be searched. Raises Unknown if there is none."""
        row = self.catalogue.video(video_id) if ID.fullmatch(video_id) else None
        if row is None or row["status"] != OK:
            raise Unknown("there is no such video in the library")
        return row

    def picture(self, video_id: str, number: int) -> bytes:
        """The small picture of a moment. Raises Unknown if there is none."""
        self.row(video_id)
        [picture] = self.catalogue.pictures([(video_id, number)])
        if not picture:
            raise Unknown("there is no such moment in the library")
        return picture

    def _vector(self, query: Query) -> Vector | None:
        """What is searched for, as an embedding (D,): a moment, an upload or words."""
        if like := query.get("like"):
            found = MOMENT.fullmatch(like)
            if found is None:
                raise Unknown("there is no such moment in the library")
            if int(found[2]) >= self.row(found[1])["moments"]:
                raise Unknown("there is no such moment in the library")
            return self.searcher.moment_vector(found[1], int(found[2]))
        if key := query.get("upload"):
            kept = self.uploads.vector(key)
            if kept is None:
                raise Unknown("the file that was dropped is not kept any more; drop it again")
            return kept
        words = " ".join(query.get("q", "").split())
        return self._words(words) if words else None

    def _words(self, words: str) -> Vector:
        """The embedding (D,) of words. What they say is never taken for a path."""
        return combined(parse(words, files=False), self._part)

    def _unknown(self, query: Query) -> list[str]:
        """Words of a query that the model does not know."""
        if query.get("like") or query.get("upload"):
            return []
        texts = [str(part.text) for part in parse(query.get("q", ""), files=False)]
        return self.searcher.unknown_words(" ".join(texts))

    def _part(self, part: Part) -> Vector:
        return self.searcher.embed_text(str(part.text))

    def _where(self, query: Query) -> Where | None:
        """The filters. A folder has to be one of the library's: none is looked up on the disk."""
        folder = query.get("folder") or None
        if folder is not None and folder not in self.catalogue.summary().folders:
            raise InputError("there is no such folder in the library")
        after = date_of(query, "after")
        before = date_of(query, "before", days=1)
        longer, shorter = seconds_of(query, "longer"), seconds_of(query, "shorter")
        where = Where(folder, after, before, longer, shorter)
        return None if where == Where() else where

    def _video(self, row: Row) -> dict[str, Any]:
        """What the page shows of a video."""
        folder, name = os.path.split(row["path"])
        root = self.catalogue.summary().root
        inside = os.path.relpath(folder, root) if root else folder
        names = ("id", "duration", "width", "height", "date", "codec", "moments")
        return {
            **{one: row[one] for one in names},
            "take": str(row["take"]),  # Numbers of scripts have fewer digits.
            "name": shown_name(name),
            "folder": "" if inside == "." else shown_name(inside),
            "type": media_type(row["path"]),
            "size": row["size"],
        }

    def _moment(self, moment: Moment, row: Row) -> dict[str, Any]:
        """What the page shows of a moment."""
        return {
            **self._video(row),
            "number": moment.number,
            "start": round(moment.start, 3),
            "end": round(moment.end, 3),
            "score": round(moment.score, 4),
        }


def shown_name(name: str) -> str:
    """A name as text. Bytes that are not UTF-8 become question marks."""
    return os.fsencode(name).decode("utf-8", "replace")


def rounded(values: Sequence[float] | npt.NDArray[Any], digits: int = 3) -> list[float]:
    """Numbers with few digits, for JSON."""
    return [round(float(one), digits) for one in values]


def number_of(query: Query, name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most`."""
    given = query.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,6}", given) or not 1 <= int(given) <= most:
        raise InputError(f"{name} has to be a whole number from 1 to {most}")
    return int(given)


def seconds_of(query: Query, name: str) -> float | None:
    """A number of seconds, or None."""
    given = query.get(name)
    if not given:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", given):
        raise InputError(f"{name} has to be a number of seconds")
    return float(given)


def date_of(query: Query, name: str, days: int = 0) -> float | None:
    """The second at which a day begins: the one that is given, or some days after it. Or None."""
    given = query.get(name)
    if not given:
        return None
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", given):
        raise InputError(f"{name} has to be a date such as 2024-05-31")
    begin = parse_date(given)
    return (datetime.fromtimestamp(begin) + timedelta(days=days)).timestamp() if days else begin
