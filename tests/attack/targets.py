"""What is attacked: a file of each kind, and how the package reads it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import media
import mlx.core as mx
import numpy as np
from conftest import REFERENCE, reference_config
from mlx.utils import tree_flatten

import videoprism_mlx as vp
from videoprism_mlx.convert.npz import Archive
from videoprism_mlx.convert.verify import read_activations
from videoprism_mlx.datasets.captions import read_captions
from videoprism_mlx.datasets.labels import read_labels, read_names
from videoprism_mlx.errors import FeatureFileError
from videoprism_mlx.features.formats import FORMATS, read_features, read_record, write_features
from videoprism_mlx.features.formats.rows import Rows
from videoprism_mlx.features.processor import processor_for
from videoprism_mlx.features.resumable_store import FeatureStore
from videoprism_mlx.files.checksum import with_checksum
from videoprism_mlx.tokenizers import SentencePieceTokenizer
from videoprism_mlx.training.state import Progress, RunFiles
from videoprism_mlx.weights.adapters import base_model
from videoprism_mlx.weights.labels import load_labels

SMALL = reference_config("encoder") | dict(num_spatial_layers=1, num_temporal_layers=0)
RECORD = {"version": "1", "model": {"name": "a"}, "features": ["embedding", "frames"]}
VIDEOS = [{"name": f"{n}.mp4", "path": f"/v/{n}.mp4", "bytes": n, "modified": n} for n in range(3)]
PARAMETERS = {"head": {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}}


@dataclasses.dataclass(frozen=True)
class Target:
    """A file of a kind. If it is `exact`, reading it gives the one right result or an error."""

    path: Path
    read: Callable[[], Any]
    exact: bool = False


Make = Callable[[Path], Target]


def checkpoint(folder: Path, compressed: bool = False) -> Target:
    path = folder / "flax.npz"
    vp.convert.draw_checkpoint(SMALL, path)
    if compressed:
        with np.load(path) as saved:
            arrays = dict(saved)
        np.savez_compressed(path, **arrays)

    def read() -> Any:
        with Archive(path) as archive:
            return {key: archive.read(key) for key in archive.headers}

    return Target(path, read, exact=True)


def converted_checkpoint(folder: Path) -> Target:
    """As `checkpoint`, all the way to a model directory, which must not appear."""
    import shutil

    target = checkpoint(folder)

    def read() -> Any:
        try:
            vp.convert.flax_to_mlx(target.path, folder / "m", SMALL)
            return dict(mx.load(str(folder / "m" / "model.safetensors")))
        finally:
            shutil.rmtree(folder / "m", ignore_errors=True)

    return Target(target.path, read, exact=True)


def activations(folder: Path) -> Target:
    path = folder / "plain.npz"
    path.write_bytes((REFERENCE / "text" / "plain.npz").read_bytes())
    return Target(path, lambda: read_activations(path), exact=True)


def features(folder: Path, file_format: str) -> Target:
    path = folder / f"out.{file_format}"
    random = np.random.RandomState(0)
    arrays = {name: random.randn(3, 8).astype(kind) for name, kind in
              (("embedding", np.float32), ("pooled", np.float16))}  # fmt: skip
    rows = {name: Rows.of(array) for name, array in arrays.items()}
    write_features(path, file_format, rows, {**RECORD, "videos": VIDEOS})

    def read() -> Any:
        found = read_record(path), read_features(path)
        if len(found[0]["videos"]) != len(VIDEOS):  # A line is missing as a whole, which is usual.
            raise FeatureFileError(f"{path} is short")
        return found

    return Target(path, read, exact=True)


def model_directory(folder: Path) -> Path:
    vp.convert.draw_checkpoint(SMALL, folder / "flax.npz")
    vp.convert.flax_to_mlx(folder / "flax.npz", folder / "m", SMALL)
    return folder / "m"


def loaded(directory: Path) -> dict[str, mx.array]:
    return dict(tree_flatten(vp.load_model(directory).parameters()))


def weights(folder: Path) -> Target:
    directory = model_directory(folder)
    return Target(directory / "model.safetensors", lambda: loaded(directory), exact=True)


def of_transformers(folder: Path, kind: str, name: str) -> Target:
    """A file of a model of Transformers, which is converted. It has no checksums."""
    import shutil

    shutil.copytree(REFERENCE / "transformers" / kind, folder / "theirs")

    def read() -> Any:
        try:
            return vp.convert.transformers_to_mlx(folder / "theirs", folder / "m")
        finally:
            shutil.rmtree(folder / "m", ignore_errors=True)

    return Target(folder / "theirs" / name, read)


def config(folder: Path) -> Target:
    directory = model_directory(folder)
    return Target(directory / "config.json", lambda: loaded(directory), exact=True)


def quantized(folder: Path, name: str) -> Target:
    config = SMALL | dict(model_dim=32, mlp_dim=32)
    vp.save_model(vp.quantize(vp.get_model(config), group_size=32), folder / "q")
    return Target(folder / "q" / name, lambda: loaded(folder / "q"), exact=True)


def adapters(folder: Path, name: str) -> Target:
    directory = model_directory(folder)
    vp.save_adapters(vp.add_adapters(vp.load_model(directory), 2), folder / "a", directory)
    model = vp.load_model(directory)

    def read() -> Any:
        adapted = vp.load_adapters(model, folder / "a")
        found = {key: one for key, one in tree_flatten(adapted.parameters()) if "lora" in key}
        vp.fuse_adapters(adapted)
        model.directory = directory
        base_model(folder / "a")
        return found

    return Target(folder / "a" / name, read, exact=name.endswith(".safetensors"))


def record(folder: Path) -> Target:
    def read() -> Any:
        with FeatureStore(folder / "out", RECORD).opened():
            pass

    store = FeatureStore(folder / "out", RECORD)
    with store.opened():
        store.add(VIDEOS[0], {"embedding": np.ones(4, np.float32)})
    return Target(folder / "out" / "record.json", read)


def labels(folder: Path) -> Target:
    path = folder / "labels.json"
    content = {"labels": ["cat", "dog", "a kite"], "multi_label": False}
    path.write_text(json.dumps(with_checksum(content)))
    return Target(path, lambda: load_labels(folder, 3))


def processor(folder: Path) -> Target:
    directory = model_directory(folder)
    model = vp.load_model(directory)
    processor_for(model).save(directory)
    return Target(directory / "processor.json", lambda: processor_for(model, directory))


def training_state(folder: Path) -> Target:
    tree = {"head": {"weight": mx.array(PARAMETERS["head"]["weight"])}}
    optimizer = {"step": mx.array(3), "head": {"m": mx.ones((2, 3))}}
    files = RunFiles(folder)
    progress = Progress(1, history=({"epoch": 1, "loss": 0.5},), checksum="x")
    files.keep(RECORD, tree, optimizer, progress)
    (folder / "metrics.jsonl").unlink()

    def read() -> Any:
        parameters, state, reached = files.restore(RECORD, tree, optimizer)
        return dict(tree_flatten([parameters, state])), reached

    return Target(folder / "last.safetensors", read, exact=True)


def tokenizer(folder: Path) -> Target:
    import sentencepiece

    words = [f"a {colour} {thing}." for colour in ("red", "blue") for thing in ("cat", "car")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_prefix=str(folder / "t"), vocab_size=15, minloglevel=2
    )
    (folder / "t.vocab").unlink()
    path = folder / "t.model"
    return Target(path, lambda: SentencePieceTokenizer(path).to_int("a red kite é"))


def image(folder: Path, ending: str) -> Target:
    path = folder / f"image.{ending}"
    cv2.imwrite(str(path), media.frame(5, 32, 24))
    return Target(path, lambda: vp.read_video(path, 1, size=18))


def video(folder: Path, name: str) -> Target:
    path = media.write(folder / name, 6, arguments=["-c:v", "mpeg4", "-bitexact"])
    return Target(path, lambda: vp.read_video(path, 4, size=18))


ROWS = [{"file": f"clip{n}.mp4", "label_idx": n % 2, "caption": f"a {n}"} for n in range(4)]
TABLE = "file,label_idx,label,caption\n" + "".join(
    f'clip{n}.mp4,{n % 2},{"ab"[n % 2]},"one, {n}"\n' for n in range(4)
)


def listing(folder: Path, ending: str, read: Callable[[Path], Any]) -> Target:
    path = folder / f"list.{ending}"
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    path.write_text({"csv": TABLE, "json": json.dumps(ROWS), "jsonl": lines,
                     "txt": "a cat\na dog\na kite\n"}[ending])  # fmt: skip
    return Target(path, lambda: read(path))


def features_in(file_format: str) -> Make:
    return lambda folder: features(folder, file_format)


# The kinds, and the files of each kind. In the default run, the files of a kind share its inputs.
TARGETS: dict[str, dict[str, Make]] = {
    "checkpoint": {
        "plain": checkpoint,
        "compressed": lambda folder: checkpoint(folder, compressed=True),
    },
    "activations": {"npz": activations},
    "features": {name: features_in(name) for name in FORMATS},
    "safetensors": {
        "model": weights,
        "quantized": lambda folder: quantized(folder, "model.safetensors"),
        "adapters": lambda folder: adapters(folder, "adapters.safetensors"),
        "training": training_state,
        "transformers": lambda folder: of_transformers(folder, "text", "model.safetensors"),
    },
    "json": {
        "config": config,
        "quantization": lambda folder: quantized(folder, "config.json"),
        "adapter_config": lambda folder: adapters(folder, "adapter_config.json"),
        "record": record,
        "labels": labels,
        "processor": processor,
        "transformers": lambda folder: of_transformers(folder, "clip", "config.json"),
        "index": lambda folder: of_transformers(folder, "clip", "model.safetensors.index.json"),
        "tokenizer": lambda folder: of_transformers(folder, "text", "tokenizer.json"),
        "video_processor": lambda folder: of_transformers(folder, "clip", "processor_config.json"),
    },
    "tokenizer": {"model": tokenizer},
    "image": {
        "png": lambda folder: image(folder, "png"),
        "jpg": lambda folder: image(folder, "jpg"),
        "tif": lambda folder: image(folder, "tif"),
        "bmp": lambda folder: image(folder, "bmp"),
        "webp": lambda folder: image(folder, "webp"),
    },
    "video": {
        "mp4": lambda folder: video(folder, "clip.mp4"),
        "mkv": lambda folder: video(folder, "clip.mkv"),
        "avi": lambda folder: video(folder, "clip.avi"),
    },
    "list": {
        "captions.csv": lambda folder: listing(folder, "csv", read_captions),
        "captions.json": lambda folder: listing(folder, "json", read_captions),
        "labels.csv": lambda folder: listing(folder, "csv", read_labels),
        "labels.jsonl": lambda folder: listing(folder, "jsonl", read_labels),
        "names.txt": lambda folder: listing(folder, "txt", read_names),
    },
}

FILES = [(kind, name) for kind, files in TARGETS.items() for name in files]
