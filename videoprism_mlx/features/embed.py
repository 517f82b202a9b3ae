"""Writes the features of many videos to files, as `videoprism-mlx embed` does."""

import dataclasses
import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import EXPECTED, InputError, in_words
from videoprism_mlx.features.encode import check_features, encode, one_line
from videoprism_mlx.features.formats import VECTORS_ONLY, json_line
from videoprism_mlx.features.pipeline import Features
from videoprism_mlx.features.processor import (
    Needs,
    Processor,
    load_with_settings,
    model_name,
    require_count,
    with_settings,
)
from videoprism_mlx.features.resumable_store import (
    FeatureStore,
    check_format,
    require_format,
    require_vectors,
    video_record,
)
from videoprism_mlx.features.windows import Window, check_windowing, encode_windows
from videoprism_mlx.files.output import require_writable
from videoprism_mlx.files.record import Record, made_with
from videoprism_mlx.progress import bar, write
from videoprism_mlx.video.ffmpeg.decoding import Decoding
from videoprism_mlx.video.find import find_videos
from videoprism_mlx.video.sampling import check_times
from videoprism_mlx.video.source import require_one
from videoprism_mlx.weights.adapters import adapters_directory
from videoprism_mlx.weights.identity import ModelIdentity


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What `embed` did.

    `videos` are the names of the videos whose features are in the output, some perhaps from earlier
    calls. `skipped` says why the others are not. `output` is None if it was an open file.
    """

    output: Path | None
    videos: tuple[str, ...]
    skipped: dict[str, str]


def embed(
    paths: str | Path | Sequence[str | Path],
    output: str | Path | TextIO,
    model: str | Path | tuple[VideoPrismModel, Processor] | None = None,
    *,
    features: Collection[str] | None = None,
    format: str | None = None,
    num_frames: int | None = None,
    size: int | None = None,
    resize: str | None = None,
    resample: str | None = None,
    partial: bool = False,
    window: int | None = None,
    stride: int | None = None,
    fps: float | None = None,
    start: float | None = None,
    end: float | None = None,
    batch_size: int = 1,
    dtype: str | None = None,
    adapters: str | Path | None = None,
    decoding: Decoding | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Embedded:
    """Writes the features of many videos. A later call with the same arguments continues.

    `paths` are files, folders (with subfolders) and glob patterns. `output` is a file called
    *.npz, *.safetensors, *.jsonl or *.parquet; else a folder, in which each video gets a file of
    that `format`; or an open text file, such as sys.stdout, for JSON lines. A video that cannot be
    read is skipped. What is done is kept. With `overwrite`, an earlier output is removed first.

    `model`, `dtype` and `adapters` are as for `load`; `model` may also be what `load` returned.
    `num_frames`, `size`, `resize`, `resample` and `decoding` replace settings of its processor.
    `features` are as for `encode`. With `window`, and then `stride` and `fps`, there are features
    of each window, as from `encode_windows`, instead of features of each video. `start` and `end`,
    in seconds, are the span of each video that is used, also for its windows. `progress` shows a
    bar if stderr is a terminal, and prints a line for each skipped video to stderr.
    """
    require_count("batch_size", batch_size)
    windowing, span = Windowing.of(num_frames, window, stride, fps), Span.of(start, end)
    output = Path(output) if isinstance(output, str) else output
    check_output(output, format, features or (), overwrite)
    videos = find_videos([paths] if isinstance(paths, (str, Path)) else paths)
    reading: dict[str, Any] = dict(num_frames=num_frames, size=size, resize=resize)
    reading |= dict(resample=resample, decoding=decoding)
    needs = functools.partial(check_model_and_videos, features=features, videos=videos)
    loaded, processor, identity = prepare(model, dtype, adapters, needs, reading)
    names = check_features(loaded, features)
    job = Job(loaded, processor, names, batch_size, windowing, partial, span)
    record = made_with(model=identity, preprocessing=job.preprocessing(), features=names)
    if not isinstance(output, Path):
        skipped = job.run(videos, JsonLines(output, record), progress)
        return Embedded(None, without(videos, skipped), skipped)
    skipped = job.fill(FeatureStore(output, record, format), videos, overwrite, progress)
    return Embedded(output, without(videos, skipped), skipped)


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


def check_model_and_videos(
    model: VideoPrismModel,
    _: Processor,
    features: Collection[str] | None,
    videos: Mapping[str, Path],
) -> None:
    """Raises an error if the model lacks a feature, or would be downloaded for missing videos."""
    check_features(model, features)
    if model.directory is None:
        require_one(videos.values())


def check_output(
    output: Path | TextIO,
    file_format: str | None,
    features: Collection[str],
    overwrite: bool = False,
) -> None:
    """Raises an error if features cannot be written to this output in this format."""
    chosen = "jsonl"
    if isinstance(output, Path):
        chosen, is_one_file = check_format(output, file_format)
        require_writable(output, is_one_file)
        if not is_one_file and not overwrite:
            require_format(output, chosen)
    if chosen in VECTORS_ONLY:
        require_vectors(features, chosen)


def prepare(
    model: str | Path | tuple[VideoPrismModel, Processor] | None,
    dtype: str | None,
    adapters: str | Path | None,
    needs: Needs,
    settings: Mapping[str, Any],
) -> tuple[VideoPrismModel, Processor, dict[str, Any]]:
    """The model, its processor with these settings, and the model's identity for the record."""
    if isinstance(model, tuple):
        for name, value in (("dtype", dtype), ("adapters", adapters)):
            if value is not None:
                raise InputError(f"{name} has no effect on a model that is loaded; leave it out")
        loaded, processor = model[0], with_settings(model[1], model[0], **settings)
        # The model may have changed since it was read from its file.
        identity = ModelIdentity(loaded).record("class", "parameters", "dtype", "precision")
    else:
        folder = None if adapters is None else adapters_directory(adapters)
        model = model_name(model, folder)
        loaded, processor, directory = load_with_settings(
            model, dtype, adapters=folder, needs=needs, **settings
        )
        identity = ModelIdentity(loaded, directory, str(model), folder).record(
            "name", "class", "weights", "adapters", "dtype", "precision"
        )
    return loaded, processor, identity


def without(videos: Mapping[str, Path], skipped: Collection[str]) -> tuple[str, ...]:
    """The names of the videos that were not skipped."""
    return tuple(name for name in videos if name not in skipped)


def whole_batches(
    videos: Mapping[str, Path], missing: Collection[str], batch_size: int
) -> dict[str, Path]:
    """The missing videos, and all others of the batches that they are in.

    Rounding depends on the batch, and must not depend on where an earlier run was stopped.
    """
    names, wanted = list(videos), set(missing)
    batches = [names[i : i + batch_size] for i in range(0, len(names), batch_size)]
    return {name: videos[name] for batch in batches if wanted & set(batch) for name in batch}


class Sink(Protocol):
    """Takes features, with the record of their video: a `FeatureStore`, or `JsonLines`."""

    def add(self, video: Record, features: Features) -> None:
        """Takes the features of a video."""

    def add_windows(self, video: Record, windows: Iterable[Window]) -> None:
        """Takes the features of a video's windows."""


@dataclasses.dataclass
class JsonLines:
    """Writes features to an open text file as they come: a line for each video or window."""

    file: TextIO
    record: Record

    def add(self, video: Record, features: Features) -> None:
        """Writes the line of a video."""
        print(json_line(video, features, self.record), end="", file=self.file, flush=True)

    def add_windows(self, video: Record, windows: Iterable[Window]) -> None:
        """Writes a line for each window of a video."""
        for window in windows:
            self.add(video, window.arrays())


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

    def fill(
        self, store: FeatureStore, videos: Mapping[str, Path], overwrite: bool, progress: bool
    ) -> dict[str, str]:
        """As `run`, for the videos whose features the store lacks."""
        with store.opened(overwrite):
            wanted = whole_batches(videos, store.missing(videos), self.batch_size)
            skipped = self.run(wanted, store, progress)
            store.finish(list(videos))
        return skipped

    def run(self, videos: Mapping[str, Path], sink: Sink, progress: bool) -> dict[str, str]:
        """Gives the features of the videos to the sink. Returns the skipped ones, and why."""
        skipped = {}
        if self.windowing is None:
            results = self._store_clips(videos, sink)
        else:
            results = self._store_windows(videos, sink, progress)
        with bar(
            unit="video", total=len(videos), show=progress and bool(videos), leave=True
        ) as shown:
            for name, error in results:
                if error is not None:
                    skipped[name] = in_words(error)
                    if progress:
                        write(f"skipped: {one_line(videos[name], error)}")
                shown.update()
        return skipped

    def _store_clips(
        self, videos: Mapping[str, Path], sink: Sink
    ) -> Iterator[tuple[str, Exception | None]]:
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

    def _store_windows(
        self, videos: Mapping[str, Path], sink: Sink, progress: bool
    ) -> Iterator[tuple[str, Exception | None]]:
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
