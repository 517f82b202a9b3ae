"""How videos become features in files: what is computed, and where it goes."""

import dataclasses
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import EXPECTED, InputError, in_words
from videoprism_mlx.features.embedding.spool import WindowSpool, windows_of
from videoprism_mlx.features.encode import encode, one_line
from videoprism_mlx.features.formats import json_line
from videoprism_mlx.features.pipeline import Features
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.features.resumable_store import FeatureStore, video_record
from videoprism_mlx.features.windows import Window, check_windowing, encode_windows
from videoprism_mlx.files.record import Record, made_with
from videoprism_mlx.progress import bar, write
from videoprism_mlx.video.sampling import check_times

# The name of each video: after its features are stored, or with the error of reading it.
Results = Iterator[tuple[str, Exception | None]]


class Sink(Protocol):
    """Takes features, with the record of their video: a `FeatureStore`, or `JsonLines`."""

    @property
    def is_ordered(self) -> bool:
        """Whether the videos have to come in their order."""

    def add(self, video: Record, features: Features) -> None:
        """Takes the features of a video."""

    def add_windows(self, video: Record, windows: Iterable[Window]) -> None:
        """Takes the features of a video's windows."""

    def spool(self) -> WindowSpool:
        """A place for features of windows until all of a video are there."""

    def add_spooled(self, video: Record, parts: Sequence[WindowSpool]) -> None:
        """As `add_windows`, of windows in such places."""


class Encoding(Protocol):
    """What computes features elsewhere."""

    def results(self, videos: Mapping[str, Path], sink: Sink) -> Results:
        """As `Job.results`."""

    def speeds(self) -> str:
        """How fast it is, for a bar."""


@dataclasses.dataclass
class JsonLines:
    """Writes features to an open text file as they come: a line for each video or window."""

    file: TextIO
    record: Record
    is_ordered: bool = True

    def add(self, video: Record, features: Features) -> None:
        """Writes the line of a video."""
        print(json_line(video, features, self.record), end="", file=self.file, flush=True)

    def add_windows(self, video: Record, windows: Iterable[Window]) -> None:
        """Writes a line for each window of a video."""
        for window in windows:
            self.add(video, window.arrays())

    def spool(self) -> WindowSpool:
        """In the system's folder for temporary files."""
        return WindowSpool(Path(tempfile.gettempdir()))

    def add_spooled(self, video: Record, parts: Sequence[WindowSpool]) -> None:
        """Writes a line for each window in these parts."""
        for arrays in windows_of(parts):
            self.add(video, arrays)


@dataclasses.dataclass(frozen=True)
class Windowing:
    """Frames of a window, frames from one to the next, and their rate; None for the video's own."""

    window: int
    stride: int
    fps: float | None

    @classmethod
    def of(
        cls, num_frames: int | None, window: int | None, stride: int | None, fps: float | None
    ) -> "Windowing | None":
        """None without a window. By default a window begins where the one before it ends.

        Raises InputError if one of these has no effect together with the others, or is wrong.
        """
        check_sampling(num_frames, window, stride, fps)
        if window is None:
            return None
        return cls(window, window if stride is None else stride, fps)


@dataclasses.dataclass(frozen=True)
class Span:
    """The part of each video that is used, in seconds; None for its beginning or end."""

    start: float | None = None
    end: float | None = None

    @classmethod
    def of(cls, start: float | None, end: float | None) -> "Span":
        """Raises InputError unless these are times, one after the other."""
        check_times(start, end)
        if end is not None and (start or 0) >= end:
            raise InputError(
                f"the span from {start or 0:g} to {end:g} s is empty; expected an end (--end) "
                "after the start (--start)"
            )
        return cls(start, end)

    def record(self) -> dict[str, float]:
        """The times that are given, for the record."""
        times = dataclasses.asdict(self)
        return {name: float(time) for name, time in times.items() if time is not None}


class Unusable(Exception):
    """The error of a video, as opposed to an error of the sink that takes its windows."""

    def __init__(self, error: Exception):
        super().__init__(error)
        self.error = error


# Opens what computes the features of videos elsewhere.
Elsewhere = Callable[[Mapping[str, Path]], AbstractContextManager[Encoding]]


@dataclasses.dataclass(frozen=True)
class Job:
    """How videos become features."""

    model: VideoPrismModel
    processor: Processor
    features: Sequence[str]
    batch_size: int
    windowing: Windowing | None
    partial: bool
    span: Span = Span()

    def preprocessing(self) -> dict[str, Any]:
        """How videos are sampled and resized, for the record."""
        if self.windowing is None:
            return self.processor.preprocessing(partial=self.partial, **self.span.record())
        sampling = dataclasses.asdict(self.windowing)
        sizing, decoding = self.processor.sizing(), self.processor.decoding.record()
        more = {"partial": self.partial, **self.span.record()}
        return {**sampling, **sizing, **more, **decoding}

    def write(
        self,
        output: Path | TextIO,
        file_format: str | None,
        identity: Record,
        videos: Mapping[str, Path],
        overwrite: bool,
        progress: bool,
        elsewhere: Elsewhere | None = None,
    ) -> dict[str, str]:
        """As `run`, for the videos whose features the output lacks.

        `identity` is the model's, for the record.
        """
        preprocessing, names = self.preprocessing(), list(self.features)
        record = made_with(model=identity, preprocessing=preprocessing, features=names)
        if not isinstance(output, Path):
            return self.run(videos, JsonLines(output, record), progress, elsewhere)
        store = FeatureStore(output, record, file_format)
        with store.opened(overwrite):
            wanted = whole_batches(videos, store.missing(videos), self.batch_size)
            skipped = self.run(wanted, store, progress, elsewhere)
            store.finish(list(videos))
        return skipped

    def run(
        self,
        videos: Mapping[str, Path],
        sink: Sink,
        progress: bool,
        elsewhere: Elsewhere | None = None,
    ) -> dict[str, str]:
        """Gives the features of the videos to the sink. Returns the skipped ones, and why.

        They are computed here or, if there are any videos, in what `elsewhere` opens for them.
        """
        if elsewhere is None or not videos:
            return self._run(videos, self.results(videos, sink, progress), progress)
        with elsewhere(videos) as encoding:
            results = encoding.results(videos, sink)
            return self._run(videos, results, progress, encoding.speeds)

    def _run(
        self,
        videos: Mapping[str, Path],
        results: Results,
        progress: bool,
        speeds: Callable[[], str] = str,
    ) -> dict[str, str]:
        skipped = {}
        with bar(
            unit="video", total=len(videos), show=progress and bool(videos), leave=True
        ) as shown:
            for name, error in results:
                if error is not None:
                    skipped[name] = in_words(error)
                    if progress:
                        write(f"skipped: {one_line(videos[name], error)}")
                if said := speeds():
                    shown.set_postfix_str(said, refresh=False)
                shown.update()
        return skipped

    def results(self, videos: Mapping[str, Path], sink: Sink, progress: bool) -> Results:
        """Gives the features to the sink, one video after the other."""
        if self.windowing is None:
            return self._store_clips(videos, sink)
        return self._store_windows(videos, sink, progress)

    def _store_clips(self, videos: Mapping[str, Path], sink: Sink) -> Results:
        """The name of each video: after its features are stored, or with the reading error."""
        records: dict[str, dict[str, Any]] = {}

        def recorded() -> Iterator[Path]:
            """Each path, after the version of its file is recorded. The file may change later."""
            for name, path in videos.items():
                with suppress(*EXPECTED):  # Reading the file will raise this again.
                    records[name] = video_record(name, path)
                yield path

        results = encode(
            self.model,
            self.processor,
            recorded(),
            self.batch_size,
            self.features,
            errors="yield",
            partial=self.partial,
            **dataclasses.asdict(self.span),
        )
        for (name, path), encoded in zip(videos.items(), results, strict=True):
            record = records.pop(name, None)
            if encoded.error is None:
                # A file that appeared just now has no record yet.
                sink.add(record or video_record(name, path), encoded.features)
            yield name, encoded.error

    def _store_windows(self, videos: Mapping[str, Path], sink: Sink, progress: bool) -> Results:
        """As `_store_clips`, with the features of windows."""
        for name, path in videos.items():
            error = None
            try:
                record = video_record(name, path)
            except EXPECTED as missing:
                yield name, missing
                continue
            try:
                sink.add_windows(record, self._windows(path, progress))
            except Unusable as unusable:
                error = unusable.error
            yield name, error

    def _windows(self, path: Path, progress: bool) -> Iterator[Window]:
        """The windows of a video. Raises Unusable if it cannot be read."""
        assert self.windowing is not None
        with bar(unit="window", show=progress) as shown:
            try:
                for window in encode_windows(
                    self.model,
                    path,
                    **dataclasses.asdict(self.windowing),
                    processor=self.processor,
                    features=self.features,
                    partial=self.partial,
                    **dataclasses.asdict(self.span),
                ):
                    shown.total = window.count
                    shown.update()
                    yield window
            except EXPECTED as error:
                raise Unusable(error) from error


def check_sampling(
    num_frames: int | None, window: int | None, stride: int | None, fps: float | None
) -> None:
    """Raises InputError if one of these has no effect together with the others, or is wrong."""
    if window is not None:
        check_windowing(window, window if stride is None else stride, fps)
        if num_frames is not None:
            raise InputError(
                "num_frames (--frames) has no effect with window (--window), which sets the number "
                "of frames; leave num_frames out"
            )
        return
    for name, value in (("stride", stride), ("fps", fps)):
        if value is not None:
            raise InputError(
                f"{name} (--{name}) is only for windows; give window (--window) as well"
            )


def whole_batches(
    videos: Mapping[str, Path], missing: Collection[str], batch_size: int
) -> dict[str, Path]:
    """The missing videos, and all others of the batches that they are in.

    Rounding depends on the batch, and must not depend on where an earlier run was stopped.
    """
    names, wanted = list(videos), set(missing)
    batches = [names[i : i + batch_size] for i in range(0, len(names), batch_size)]
    return {name: videos[name] for batch in batches if wanted & set(batch) for name in batch}
