"""`videoprism-mlx embed`: the features of many videos, into files."""

import argparse
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared
from videoprism_mlx.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from videoprism_mlx.features.encode import Window
    from videoprism_mlx.features.processor import Processor
    from videoprism_mlx.features.store import FeatureStore

STDOUT = "-"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "embed",
        help="videos to features, into one file or a file a video",
        description="Writes the features of videos. A run that was stopped goes on where it was "
        "when it is started again; a video that cannot be read is named, skipped, and counted in "
        "the end, with exit code 1.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="files, folders (with all below), glob patterns"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        help="OUT.npz, OUT.safetensors or OUT.jsonl for one file; else a folder with a file for "
        "each video; - prints JSON lines",
    )
    parser.add_argument(
        "--format", choices=("npz", "safetensors", "jsonl"), help="of the files in a folder"
    )
    parser.add_argument(
        "--features",
        help="some of tokens,frames,pooled,embedding; by default embedding, or pooled "
        "where the model has none",
    )
    shared.add_model(parser)
    shared.add_frames(parser)
    shared.add_reading(parser)
    parser.add_argument("--window", type=int, metavar="N", help="embed N frames at a time")
    parser.add_argument("--stride", type=int, metavar="N", help="from window to window (N frames)")
    parser.add_argument("--fps", type=float, help="frames sampled a second (default: all)")
    parser.add_argument("--batch-size", type=int, default=1, help="videos at once (default: 1)")
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.features.encode import check_features
    from videoprism_mlx.features.store import FeatureStore
    from videoprism_mlx.video.find import find_videos

    check_options(options)
    videos = find_videos(options.paths)
    model, processor, directory = shared.load(options)
    features = check_features(model, options.features and options.features.split(","))
    record = describe(options, model, processor, directory, features)
    encode = partial(embed, options, model, processor, features)
    if options.output == STDOUT:
        require_vectors(features)
        skipped = encode(Printer(record), videos)
    else:
        store = FeatureStore(Path(options.output), record, options.format)
        if store.format == "jsonl":
            require_vectors(features)
        with store.opened():
            missing = store.missing(videos)
            try:
                skipped = encode(store, whole_batches(videos, missing, options.batch_size))
            except KeyboardInterrupt:
                print("what is done is kept; the same command goes on from here", file=sys.stderr)
                raise
            store.finish(list(videos))
    return report(options, len(videos), skipped)


def check_options(options: argparse.Namespace) -> None:
    """That every option that is given has an effect, and can have it."""
    from videoprism_mlx.features.encode import check_windowing

    if options.batch_size < 1:
        raise InputError(f"--batch-size is {options.batch_size}; expected 1 or more")
    if options.window is not None:
        stride = shared.given(options.stride, options.window)
        check_windowing(options.window, stride, options.fps)
    if options.window is None:
        for name in ("stride", "fps"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name} is about windows; say with --window of how many frames")
    elif options.num_frames is not None:
        raise InputError("--frames has no meaning with --window, which says how many; leave it out")
    if options.output == STDOUT and (options.json or options.format not in (None, "jsonl")):
        raise InputError("-o - prints JSON lines, and nothing else; leave out --json and --format")


def require_vectors(features: Sequence[str]) -> None:
    """That there is one vector for each feature, as JSON lines hold them."""
    for name in {"tokens", "frames"} & set(features):
        raise InputError(f"JSON lines hold one vector a video, not {name}; name an npz instead")


def describe(
    options: argparse.Namespace,
    model: Any,
    processor: "Processor",
    directory: Path,
    features: Sequence[str],
) -> dict[str, Any]:
    """How the features are made: what a run must share with the output it adds to."""
    from videoprism_mlx.files.record import made_with
    from videoprism_mlx.weights.identity import ModelIdentity

    preprocessing = processor.preprocessing(partial=options.partial)
    if options.window is not None:
        stride = shared.given(options.stride, options.window)
        sampling = {"window": options.window, "stride": stride, "fps": options.fps}
        preprocessing = {**sampling, **processor.sizing(), "partial": options.partial}
    identity = ModelIdentity(model, directory, options.model, options.adapters)
    return made_with(
        model=identity.record("name", "class", "weights", "adapters", "dtype"),
        preprocessing=preprocessing,
        features=list(features),
    )


def whole_batches(
    videos: Mapping[str, Path], missing: Collection[str], batch_size: int
) -> dict[str, Path]:
    """The missing videos with those of the same batch, so that no rounding depends on a stop."""
    names, wanted = list(videos), set(missing)
    batches = [names[i : i + batch_size] for i in range(0, len(names), batch_size)]
    return {name: videos[name] for batch in batches if wanted & set(batch) for name in batch}


class Unusable(Exception):
    """A video that cannot be used; anything else that goes wrong is not the video's fault."""


def embed(
    options: argparse.Namespace,
    model: Any,
    processor: "Processor",
    features: Sequence[str],
    sink: "FeatureStore | Printer",
    videos: Mapping[str, Path],
) -> dict[str, str]:
    """Gives the sink the features of the videos. Returns what is wrong with the skipped ones."""
    from tqdm import tqdm

    from videoprism_mlx.errors import EXPECTED
    from videoprism_mlx.features.encode import encode, encode_windows
    from videoprism_mlx.features.store import video_record

    def windows(path: Path) -> Iterator["Window"]:
        settings = dict(window=options.window, stride=options.stride, fps=options.fps)
        with tqdm(unit="window", disable=None, leave=False) as inner:
            try:
                for window in encode_windows(
                    model,
                    path,
                    **settings,
                    processor=processor,
                    features=features,
                    partial=options.partial,
                ):
                    inner.total = window.count
                    inner.update()
                    yield window
            except EXPECTED as error:
                raise Unusable(error) from error

    skipped: dict[str, str] = {}
    with tqdm(total=len(videos), unit="video", disable=None) as bar:

        def skip(name: str, error: BaseException) -> None:
            skipped[name] = str(error)
            bar.clear()
            shared.complain(videos[name], error)

        if options.window is None:
            records: dict[str, dict[str, Any]] = {}

            def recorded() -> Iterator[Path]:
                """Each path, after what it is at has been noted: it may change from then on."""
                for name, path in videos.items():
                    with suppress(OSError):  # Reading it will say so.
                        records[name] = video_record(name, path)
                    yield path

            results = encode(
                model,
                processor,
                recorded(),
                options.batch_size,
                features,
                errors="yield",
                partial=options.partial,
            )
            for name, encoded in zip(videos, results, strict=True):
                if encoded.error is not None:
                    skip(name, encoded.error)
                else:
                    sink.add(records.pop(name), encoded.features)
                bar.update()
        else:
            for name, path in videos.items():
                try:
                    sink.add_windows(video_record(name, path), windows(path))
                except (Unusable, FileNotFoundError, PermissionError) as error:
                    skip(name, error)
                bar.update()
    return skipped


class Printer:
    """Prints features as JSON lines, as they come."""

    def __init__(self, record: Mapping[str, Any]):
        self.record = record

    def add(self, video: Mapping[str, Any], features: Mapping[str, "np.ndarray"]) -> None:
        from videoprism_mlx.features.export import json_line

        print(json_line(video, features, self.record), end="", flush=True)

    def add_windows(self, video: Mapping[str, Any], windows: Iterable["Window"]) -> None:
        for window in windows:
            self.add(video, window.arrays())


def report(options: argparse.Namespace, videos: int, skipped: Mapping[str, str]) -> int:
    """Says how it went; 1 if a video was skipped."""
    done = videos - len(skipped)
    if options.json:
        shared.print_json({"output": options.output, "videos": done, "skipped": skipped})
    where = "embedded" if options.output == STDOUT or not done else f"in {options.output}"
    failed = f", {len(skipped)} skipped" if skipped else ""
    print(f"{done} of {videos} videos are {where}{failed}", file=sys.stderr)
    return 1 if skipped else 0
