"""Writes the features of many videos to files, as `videoprism-mlx embed` does."""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError
from videoprism_mlx.features.embedding.job import Elsewhere, Job, Span, Windowing
from videoprism_mlx.features.encode import check_features
from videoprism_mlx.features.formats import VECTORS_ONLY
from videoprism_mlx.features.processor import (
    Needs,
    Processor,
    load_with_settings,
    model_name,
    require_count,
    with_settings,
)
from videoprism_mlx.features.resumable_store import (
    check_format,
    require_format,
    require_vectors,
)
from videoprism_mlx.files.output import require_writable
from videoprism_mlx.video.ffmpeg.decoding import Decoding
from videoprism_mlx.video.find import find_videos
from videoprism_mlx.video.source import require_one
from videoprism_mlx.weights.adapters import adapters_directory
from videoprism_mlx.weights.identity import ModelIdentity
from videoprism_mlx.workers.connect import Asked, reached
from videoprism_mlx.workers.places import Mapped

if TYPE_CHECKING:
    from distributed import Client


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
    client: "Client | str | int | None" = None,
    mapping: Mapped | None = None,
    send_files: bool = False,
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

    `client` shares the work among Dask's workers: a `distributed.Client`, a scheduler's address, or
    a number of processes here. `mapping` is where they find folders: {"/Volumes/nas": "/mnt/nas"}.
    With `send_files`, videos that they do not see are sent to them.
    """
    require_count("batch_size", batch_size)
    windowing, span = Windowing.of(num_frames, window, stride, fps), Span.of(start, end)
    output = Path(output) if isinstance(output, str) else output
    check_output(output, format, features or (), overwrite)
    videos = find_videos([paths] if isinstance(paths, (str, Path)) else paths)
    sizing = dict(size=size, resize=resize, resample=resample)
    reading = dict(num_frames=num_frames, decoding=decoding, **sizing)
    needs = functools.partial(check_model_and_videos, features=features, videos=videos)
    with reached(client, mapping, send_files, progress) as asked:
        loaded, processor, identity = prepare(model, dtype, adapters, needs, reading)
        names = check_features(loaded, features)
        job = Job(loaded, processor, names, batch_size, windowing, partial, span)
        elsewhere = on_workers(asked, job, stored(model, dtype, adapters))
        skipped = job.write(output, format, identity, videos, overwrite, progress, elsewhere)
    return Embedded(output if isinstance(output, Path) else None, without(videos, skipped), skipped)


def on_workers(
    asked: Asked | None, job: Job, found: tuple[str | Path | None, str | None]
) -> Elsewhere | None:
    """What lets workers compute the features of a job; None without workers."""
    if asked is None:
        return None
    from videoprism_mlx.features.embedding.machines import machines

    return functools.partial(machines, asked, job, found)


def stored(
    model: str | Path | tuple[VideoPrismModel, Processor] | None,
    dtype: str | None,
    adapters: str | Path | None,
) -> tuple[str | Path | None, str | None]:
    """The name and type under which workers find the very weights; None if they are in memory."""
    if isinstance(model, tuple) or adapters is not None:
        return None, None
    return model, dtype


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
