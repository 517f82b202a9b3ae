"""From files to embeddings: this package, the official demo, and Transformers, in turns.

    PYTHONPATH=/path/to/videoprism python -m benchmarks.pipeline [--clips 50] [--rounds 3]
        [--models tiny base "video-text base"] [--save]

The clips are H.264 of several sizes, of four seconds each, so that each is one pass of the model:
16 frames for the released models. Ours is `vp.Library.add` for a video-text model, and `vp.encode`
for an encoder. It is also compared with its own reading and its own model, each alone. The demo
reads with mediapy and computes with Flax, compiled, but does not insist on its aspect ratio;
Transformers reads with its video processor, by PyAV, and computes with PyTorch. All have the same
random weights. Each has its own process, which waits while another works. What is not installed is
left out.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers import Worker, make_flax, safe, transformers_model
from benchmarks.reading import run_ffmpeg
from benchmarks.timing import ratios, save
from benchmarks.work import MODELS
from videoprism_mlx.convert import draw_checkpoint, flax_to_mlx
from videoprism_mlx.errors import MissingLibraryError
from videoprism_mlx.models import DEMO_MODEL, get_config

Vectors = npt.NDArray[np.float32]

# Does the work once: seconds, and the vectors (clips, D) if it gives any.
Job = Callable[[], tuple[float, Vectors | None]]

OURS, READING, MODEL = "ours", "reading alone", "model alone"
DEMO, TRANSFORMERS = "official demo", "transformers"

SIZES = ("1280x720", "640x360", "1920x1080")
SECONDS, RATE = 4, 30
SOURCE = "testsrc2=size={}:rate={}:duration={},noise=alls=6:allf=t:all_seed={}"

# The clip with which a library is made, before the clock runs.
ONE_MORE = "one_more.mp4"

# The most that ours may take, as a multiple of the other: of the longer of reading and model, and
# of another's pipeline.
ALLOWED_ALONE, ALLOWED_OTHERS = 1.15, 1 / 1.5


def draw_all(folder: Path, count: int) -> list[Path]:
    """Test cards with noise, no two the same, in a folder of clips; and one more beside it."""
    (folder / "clips").mkdir()
    paths = [folder / "clips" / f"{number:03d}.mp4" for number in range(count)]
    for number, path in enumerate([folder / ONE_MORE, *paths]):
        source = SOURCE.format(SIZES[number % len(SIZES)], RATE, SECONDS, number)
        encoder = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"]
        run_ffmpeg("-f", "lavfi", "-i", source, *encoder, path)
    return paths


def clips_in(folder: Path) -> list[Path]:
    """The clips, in the order of their names."""
    return sorted(folder.glob("*.mp4"))


def timed(work: Callable[[], Vectors | None]) -> Job:
    """A job that only does this."""

    def job() -> tuple[float, Vectors | None]:
        started = time.perf_counter()
        vectors = work()
        return time.perf_counter() - started, vectors

    return job


def loaded(config: Mapping[str, Any], checkpoint: Path) -> Any:
    """Our model and its processor."""
    import mlx.core as mx

    import videoprism_mlx as vp

    with tempfile.TemporaryDirectory() as folder:
        model, processor = vp.load(flax_to_mlx(checkpoint, f"{folder}/model", config).output)
        mx.eval(model.parameters())
    return model, processor


def make_ours(config: Mapping[str, Any], checkpoint: Path, clips: list[Path]) -> Job:
    """This package."""
    import videoprism_mlx as vp

    model, processor = loaded(config, checkpoint)
    if not model.takes_text:

        def encoded(clips: list[Path]) -> Vectors:
            each = vp.encode(model, processor, clips)
            return np.stack([one.features["pooled"] for one in each])

        encoded(clips[:1])
        return timed(lambda: encoded(clips))

    def job() -> tuple[float, Vectors | None]:
        with tempfile.TemporaryDirectory() as folder:
            library = vp.Library(f"{folder}/library")
            one_more = clips[0].parents[1] / ONE_MORE
            library.add(one_more, (model, processor), progress=False)
            started = time.perf_counter()
            added = library.add(clips, progress=False)
            seconds = time.perf_counter() - started
            assert added.encoded == len(clips), added
            moments = library.tables().moments.search().limit(None).to_arrow().to_pydict()
            paths = {row["id"]: row["path"] for row in library.tables().rows()}
        named = {
            Path(paths[video]).name: vector
            for video, vector in zip(moments["video"], moments["embedding"], strict=True)
        }
        return seconds, np.array([named[clip.name] for clip in clips], np.float32)

    return job


def make_reading(config: Mapping[str, Any], checkpoint: Path, clips: list[Path]) -> Job:
    """Our reading, without the model."""
    from videoprism_mlx.features.pipeline import read_ahead
    from videoprism_mlx.library.indexing.ingest import AHEAD

    read = reader(config, checkpoint)

    def work() -> None:
        with read_ahead(read, clips, None, AHEAD) as pairs:
            for _ in pairs:
                pass

    return timed(work)


def make_model(config: Mapping[str, Any], checkpoint: Path, clips: list[Path]) -> Job:
    """Our model, without reading."""
    import mlx.core as mx

    from videoprism_mlx.features.encode import video_features
    from videoprism_mlx.features.pipeline import evaluated, rows_of

    model, _ = loaded(config, checkpoint)
    read = reader(config, checkpoint)
    arrays = [read(clip) for clip in clips]
    feature = model.default_feature

    def encoded(arrays: list[Vectors]) -> Vectors:
        groups = (
            [(None, rows_of(video_features(model, mx.array(array[None]), [feature]))[0])]
            for array in arrays
        )
        return np.stack([features[feature] for [(_, features)] in evaluated(groups)])

    encoded(arrays[:1])
    return timed(lambda: encoded(arrays))


def reader(config: Mapping[str, Any], checkpoint: Path) -> Callable[[Path], Vectors]:
    """What reads a clip (T, S, S, 3) as ours does."""
    from videoprism_mlx.library.indexing.windows import Chunk, pieces
    from videoprism_mlx.library.model import reading_of

    model, processor = loaded(config, checkpoint)
    if not model.takes_text:
        return processor.read  # type: ignore[no-any-return]
    reading = reading_of(processor)

    def read(path: Path) -> Vectors:
        chunks = [piece for piece in pieces(path, reading) if isinstance(piece, Chunk)]
        return np.concatenate([chunk.frames for chunk in chunks])

    return read


def make_demo(config: Mapping[str, Any], checkpoint: Path, clips: list[Path]) -> Job:
    """The official demo: mediapy, which runs FFmpeg, and Flax."""
    import imageio_ffmpeg
    import mediapy

    mediapy.set_ffmpeg(imageio_ffmpeg.get_ffmpeg_exe())
    forward = make_flax(config, checkpoint)
    frames, size = input_of(config)

    def encoded(clip: Path) -> Vectors:
        video = mediapy.read_video(clip)
        chosen = np.linspace(0, len(video), num=frames, endpoint=False, dtype=np.int32)
        resized = mediapy.resize_video(video[chosen], shape=(size, size))
        output = forward({"inputs": mediapy.to_float01(resized)[None]})["0"][0]
        return pooled(output)

    encoded(clips[0])  # It is compiled now.
    return timed(lambda: np.stack([encoded(clip) for clip in clips]))


def make_transformers(config: Mapping[str, Any], checkpoint: Path, clips: list[Path]) -> Job:
    """Transformers: its video processor, and PyTorch."""
    import torch
    import transformers
    from transformers.video_utils import load_video

    model = transformers_model(config, checkpoint)
    frames, size = input_of(config)
    # The settings of the processor of VideoPrism.
    processor = transformers.LlavaOnevisionVideoProcessor(
        size={"height": size, "width": size},
        do_normalize=False,
    )

    def encoded(clip: Path) -> Vectors:
        # As the processor does it with torchcodec, which needs FFmpeg's libraries on the system.
        video, _ = load_video(str(clip), num_frames=frames, backend="pyav")
        inputs = processor([video], return_tensors="pt")
        with torch.inference_mode():
            if "vocabulary_size" not in config:
                output = model(**inputs).last_hidden_state[0]
            else:
                output = model.get_video_features(**inputs).pooler_output[0]
        return pooled(output.numpy())

    encoded(clips[0])
    return timed(lambda: np.stack([encoded(clip) for clip in clips]))


def pooled(output: npt.NDArray[Any]) -> Vectors:
    """The embedding (D,), or the mean of tokens (N, D)."""
    return output.reshape(-1, output.shape[-1]).mean(axis=0)


def input_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """The number and size of the frames that a model takes."""
    frames, rows, _ = config["pos_emb_shape"]
    return frames, rows * config["patch_size"]


MAKERS = {
    OURS: make_ours,
    READING: make_reading,
    MODEL: make_model,
    DEMO: make_demo,
    TRANSFORMERS: make_transformers,
}


def work(name: str, given: str, checkpoint: str, folder: str) -> None:
    """The process of one of them. It does the work once for every line that it reads."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    clips = clips_in(Path(folder) / "clips")
    try:
        job = MAKERS[name](json.loads(given), Path(checkpoint), clips)
    except (ImportError, MissingLibraryError) as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)
        return
    print(json.dumps({}), file=answers, flush=True)
    for _ in sys.stdin:
        seconds, vectors = job()
        if vectors is not None:
            np.save(f"{folder}/{safe(name)}.npy", vectors)
        print(json.dumps({"seconds": seconds}), file=answers, flush=True)


def alike(one: Vectors, other: Vectors) -> float:
    """The mean cosine of the vectors (clips, D)."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / lengths).mean())


def compare(model: str, names: list[str], count: int, rounds: int) -> dict[str, Any]:
    """Does the work in turns, and compares the times and the vectors."""
    config = get_config({"tiny": DEMO_MODEL, **MODELS}.get(model, model))
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        checkpoint = draw_checkpoint(config, folder / "checkpoint.npz", gain=1.0)
        draw_all(folder, count)
        workers = []
        for name in names:
            worker = Worker(name, config, checkpoint, folder, "benchmarks.pipeline")
            if worker.missing:
                print(f"{name} is left out: {worker.missing}", file=sys.stderr)
                continue
            workers.append(worker)
        seconds: dict[str, list[float]] = {worker.peer: [] for worker in workers}
        for _ in range(rounds):
            for worker in workers:
                seconds[worker.peer].append(worker.run()["seconds"])
        for worker in workers:
            worker.close()
        vectors = {
            name: np.load(path)
            for name in seconds
            if (path := folder / f"{safe(name)}.npy").is_file()
        }
    longer = [max(pair) for pair in zip(seconds[READING], seconds[MODEL], strict=True)]
    figures: dict[str, Any] = {"clips": count, "rounds": rounds}
    for name, each in seconds.items():
        figures[name] = {"seconds": statistics.median(each)}
        if name in (DEMO, TRANSFORMERS):
            figures[name] |= {"to_ours": ratios(seconds, OURS, name)}
        if name != OURS and name in vectors:
            figures[name]["cosine"] = alike(vectors[OURS], vectors[name])
    both = {OURS: seconds[OURS], "longer": longer}
    figures[OURS]["to_the_longer_alone"] = ratios(both, OURS, "longer")
    return figures


def is_within(figures: Mapping[str, Any]) -> bool:
    """Whether the figures are as aimed at."""
    others = [figures[name] for name in (DEMO, TRANSFORMERS) if name in figures]
    return figures[OURS]["to_the_longer_alone"]["median"] <= ALLOWED_ALONE and all(
        other["to_ours"]["median"] <= ALLOWED_OTHERS for other in others
    )


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = ["tiny", "base", "video-text base"]
    parser.add_argument("--models", nargs="+", default=names, metavar="NAME")
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3, help="measured turns")
    parser.add_argument("--save", action="store_true", help="keep the figures")
    options = parser.parse_args()
    figures = {}
    for model in options.models:
        figures[model] = compare(model, list(MAKERS), options.clips, options.rounds)
        print(f"{model}: {json.dumps(figures[model], indent=2)}", flush=True)
    if options.save:
        save("pipeline", "python -m benchmarks.pipeline", figures)
    return 0 if all(map(is_within, figures.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
