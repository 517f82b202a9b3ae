"""A library that is searched many times: its model is loaded once.

Shapes: D width of an embedding.
"""

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import LibraryError
from videoprism_mlx.features.encode import encode
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.features.text import embed_texts
from videoprism_mlx.library.filters import Where
from videoprism_mlx.library.model import load_recorded
from videoprism_mlx.library.moment import Moment
from videoprism_mlx.library.search import Scores, scores, search
from videoprism_mlx.library.search.nearest import moments_of
from videoprism_mlx.library.search.query import Part, combined, parse
from videoprism_mlx.library.storage import storage_errors
from videoprism_mlx.library.table import OK, Tables, quoted
from videoprism_mlx.video.sampling import check_times, checked_span
from videoprism_mlx.video.source import open_source

# How many embeddings of texts and clips are kept.
KEPT = 256

# A longer span of a video is searched for by this many windows of it, spread evenly.
MOST_CLIPS = 8

Vector = npt.NDArray[np.float32]

Loaded = tuple[VideoPrismModel, Processor]

# What `parse` takes, or the embedding (D,) of something.
Query = str | Sequence[str] | Vector


class Searcher:
    """Searches a library, from several threads if need be.

    Opening it reads no model. The first query loads it: of the weights, those are read that the
    query needs, the text encoder's for a text.
    """

    def __init__(
        self,
        where: str | Path | None = None,
        tables: Tables | None = None,
        load: Callable[[], Loaded] | None = None,
    ):
        self.tables = tables or Tables.open(where)
        self._load_model = load or (
            lambda: load_recorded(self.tables.record, where=self.tables.where)
        )
        # One query at a time uses the model, in a thread of its own: MLX reads weights in the
        # thread that has loaded them.
        self._worker = ThreadPoolExecutor(1, "searcher")
        self._loaded: Loaded | None = None
        self._known: OrderedDict[Hashable, Vector] = OrderedDict()

    def search(
        self,
        query: Query,
        k: int = 10,
        where: Where | None = None,
        moments: bool = False,
    ) -> list[Moment]:
        """The best `k` videos or, with `moments`, moments, for a query or an embedding (D,).

        See `query.parse` for what a query may say, and `search` for what is found.
        """
        vector = self.vector_of(query)
        self.tables.refresh()
        return search(self.tables, vector, k, where, moments)

    def scores(self, video_id: str, query: Query) -> Scores:
        """How well each window of a video fits a query."""
        vector = self.vector_of(query)
        self.tables.refresh()
        return scores(self.tables, video_id, vector)

    def vector_of(self, query: Query) -> Vector:
        """The embedding (D,) of a query, or the one given."""
        return query if isinstance(query, np.ndarray) else self.embed(query)

    def embed(self, query: str | Sequence[str]) -> Vector:
        """The embedding (D,) of a query, of length one."""
        return combined(parse(query), self._embed_part)

    def _embed_part(self, part: Part) -> Vector:
        if part.path is None:
            return self.embed_text(str(part.text))
        return self.embed_video(part.path, part.start, part.end)

    def embed_text(self, text: str) -> Vector:
        """The embedding (D,) of a text, of length one."""
        return self._worker.submit(self._recall, text, lambda: self._embed_words(text)).result()

    def _embed_words(self, text: str) -> Vector:
        [embedding] = embed_texts(*self._load(), [text])
        return cast(Vector, embedding)

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that the model was not trained on. Of large models, none is known."""
        if self._loaded is None or self._loaded[1].known_words is None:
            return []
        return self._loaded[1].known_words.unknown([text])

    def embed_video(
        self, path: str | Path, start: float | None = None, end: float | None = None
    ) -> Vector:
        """The embedding (D,) of a video or picture, of length one; of the span, if there is one.

        A span that is longer than a window of the library is the average of several windows.
        """
        check_times(start, end)
        stat = Path(path).expanduser().stat()
        key = (str(path), start, end, stat.st_size, stat.st_mtime_ns)
        embed = functools.partial(self._embed_clips, path, start, end)
        return self._worker.submit(self._recall, key, embed).result()

    def _embed_clips(self, path: str | Path, start: float | None, end: float | None) -> Vector:
        model, processor = self._load()
        window, fps = (self.tables.record["preprocessing"][name] for name in ("window", "fps"))
        firsts = starts(path, processor, window / fps, start, end)
        # Read as the windows of the library, and as those videos that are shorter.
        rate = fps if firsts else None
        processor = dataclasses.replace(processor, num_frames=window, fps=rate)
        spans: list[tuple[float | None, float | None]] = [(first, None) for first in firsts]
        rows = []
        for begin, stop in spans or [(start, end)]:
            options: dict[str, Any] = dict(features=["embedding"], start=begin, end=stop)
            [encoded] = encode(model, processor, [path], **options)
            rows.append(encoded.features["embedding"])
        total = np.sum(rows, axis=0, dtype=np.float64)
        return cast(Vector, (total / np.linalg.norm(total)).astype(np.float32))

    def moment_vector(self, id: str, number: int) -> Vector:
        """The embedding (D,) of window `number` of a video, to find more like it."""
        return np.array(self._moment(id, number, "embedding"), np.float32)

    def picture(self, id: str, number: int) -> bytes:
        """The picture of window `number` of a video, a JPEG."""
        return bytes(self._moment(id, number, "picture") or b"")

    def _moment(self, id: str, number: int, column: str) -> Any:
        rows = self.tables.current(f"id = {quoted(id)} AND status = {quoted(OK)}", ["id", "take"])
        found: list[Any] = []
        if rows:
            condition = f"{moments_of(rows)} AND number = {int(number)}"
            with storage_errors(self.tables.where):
                asked = self.tables.moments.search().where(condition)
                found = asked.select([column]).limit(1).to_list()
        if not found:
            raise LibraryError(
                f"the library {self.tables.where} has no moment {number} of a video {id!r}"
            )
        return found[0][column]

    def _load(self) -> Loaded:
        if self._loaded is None:
            self._loaded = self._load_model()
        return self._loaded

    def _recall(self, key: Hashable, embed: Callable[[], Vector]) -> Vector:
        """The embedding (D,) that is kept for a key or, if there is none, what `embed` gives."""
        if key not in self._known:
            self._known[key] = embed()
        self._known.move_to_end(key)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return self._known[key]


def starts(
    path: str | Path, processor: Processor, window: float, start: float | None, end: float | None
) -> list[float]:
    """When windows of `window` seconds begin that are spread over a span of a video.

    There are none if the span is shorter than a window.
    """
    with closing(open_source(path, decoding=processor.decoding)) as opened:
        early = min(1e-3, opened.interval / 4)
        begin, stop = checked_span(opened, start, end, early)
        stop = min(stop, float(opened.times[-1]) + opened.interval)
    if stop - begin < window - early:
        return []
    count = min(round((stop - begin) / window), MOST_CLIPS)
    firsts: list[float] = np.linspace(begin, max(stop - window, begin), max(count, 1)).tolist()
    return firsts
