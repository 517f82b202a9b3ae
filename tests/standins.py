"""Stand-ins for what the snippets of the docs name: released models, videos, lists of videos.

Every configuration keeps its name and its kind, and gets very small. Downloads are answered with
checkpoints drawn from a seed. So everything runs as it does for a reader, within seconds and
without a network.
"""

import json
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import media
import numpy as np
import pytest
from conftest import train_sentencepiece
from PIL import Image

import videoprism_mlx as vp
from videoprism_mlx import models
from videoprism_mlx.check import clip, published
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.hub import cache as hub_cache
from videoprism_mlx.hub import upload as uploads
from videoprism_mlx.library import table
from videoprism_mlx.tokenizers import C4_EN_VOCABULARY_SIZE

SMALL = dict(
    pos_emb_shape=(4, 4, 4),
    model_dim=64,  # Groups of 64 weights divide it.
    num_spatial_layers=1,
    num_temporal_layers=1,
    num_heads=4,
    mlp_dim=64,
)
SMALL_TEXT = dict(num_unimodal_layers=1, num_auxiliary_layers=1)

CAPTIONS = ["a red ball jumps", "a grey cat sleeps", "a blue kite falls", "a green car runs"]
CLASSES = ["playing drums", "sitting"]

# The scheduler of the docs, and their shared disk, on the first machine and on the others.
ADDRESS = "tcp://mac1:8786"
DISK, DISK_ON_WORKERS = "/Volumes/nas", "/mnt/nas"
DISTANCE = "distance/output/0"


def shrink_models(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Makes every named model very small, and answers what is asked of the Hub."""
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(cache / "cache"))
    for name, config in models.CONFIGS.items():
        if name == models.DEMO_MODEL:
            continue
        if "encoder_params" in config:
            small = config | {"encoder_params": config["encoder_params"] | SMALL}
        else:
            small = config | SMALL | (SMALL_TEXT if "vocabulary_size" in config else {})
        monkeypatch.setitem(models.CONFIGS, name, small)

    def download(repo_id: str, filename: str, **_: Any) -> str:
        checkpoint = cache / "hub" / filename
        if not checkpoint.exists():
            name = models.canonical_name(repo_id)
            assert name is not None
            vp.convert.draw_checkpoint(name, checkpoint)
        return str(checkpoint)

    def download_model(repo_id: str, **_: Any) -> str:
        directory = cache / "hub" / repo_id.replace("/", "--")
        if not directory.exists() and repo_id.endswith("adapters"):
            base = "videoprism_lvt_public_v1_base"
            vp.save_adapters(vp.add_adapters(vp.load_model(base), 2), directory, base)
        elif not directory.exists():
            vp.save_model(vp.get_model("videoprism_lvt_v1_base"), directory)
        return str(directory)

    def commit(target: uploads.Target, files: Any, card: str, kind: str, _: Any) -> Any:
        names = ("README.md", *files)
        address = f"https://huggingface.co/{target.repository}"
        return uploads.Uploaded(target.repository, kind, target.branch, "0" * 40, address, names, 1)

    monkeypatch.setattr(table, "default_place", lambda: cache / "library")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download_model)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: None)
    # Nobody's own downloads are pruned by a test.
    monkeypatch.setattr(hub_cache, "hub_contents", lambda: iter(()))
    monkeypatch.setattr(uploads, "require_account", lambda _: "you")
    monkeypatch.setattr(uploads, "commit", commit)


def write_tokenizer(path: Path, scratch: Path) -> None:
    """A tokenizer that passes for c4_en: a small one, filled up with pieces that never occur."""
    content = train_sentencepiece(scratch, bos_id=-1).read_bytes()
    count = vp.load_text_tokenizer(scratch / "tiny.model").vocab_size
    for number in range(count, C4_EN_VOCABULARY_SIZE):
        # One more piece in the words of Protocol Buffers: its text and its score.
        text = f"<never {number}>".encode()
        piece = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", -100)
        content += b"\x0a" + bytes([len(piece)]) + piece
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def publish_figures(monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
    """Takes a video for the official clip, and what a model computes from it for published."""
    clip.kept().parent.mkdir(exist_ok=True)
    shutil.copyfile(video, clip.kept())
    monkeypatch.setattr(clip, "SHA256", sha256(video))
    name = "videoprism_lvt_public_v1_base"
    frames = vp.read_video(video, num_frames=4, size=72, resample="lanczos")
    prompts = [f"a video of {text}." for text in published.TEXTS]
    tokens = vp.tokenize_texts(vp.load_text_tokenizer("c4_en"), prompts)
    seen, said, _ = vp.load_model(name)(frames[None], *tokens)
    figures = {
        "video embeddings": np.array(seen)[:, :9].tolist(),
        "text embeddings": np.array(said)[:, :3].tolist(),
    }
    monkeypatch.setitem(published.FIGURES, name, figures)


def write_videos(folder: Path) -> None:
    """Every video that a snippet names."""
    small = dict(size=(64, 48), frames=12)
    for name in ("clip.mp4", "a.mp4", "b.mov"):
        media.write(folder / name, **small)
    media.write(folder / "match.mp4", frames=40, fps=10, size=(64, 48))
    for name in ("clips", "new", "frames"):
        (folder / name).mkdir()
    for number in range(4):
        shown = range(5 * number, 5 * number + 12)
        media.write(folder / "clips" / f"{number}.mp4", shown, size=(64, 48))
    media.write(folder / "new" / "first.mp4", **small)
    for number in range(5):
        Image.fromarray(media.frame(number)).save(folder / "frames" / f"frame_{number}.png")


def write_lists(folder: Path) -> None:
    """Every list of videos that a snippet names."""
    videos = [f"clips/{number}.mp4" for number in range(4)]
    captioned = [f"{video},{said}" for video, said in zip(videos, CAPTIONS, strict=True)]
    for name in ("pairs.csv", "val.csv", "msrvtt_1ka.csv"):
        (folder / name).write_text("\n".join(["video,caption", *captioned]))
    labelled = [f"{video},{CLASSES[number % 2]}" for number, video in enumerate(videos)]
    (folder / "k400_val.csv").write_text("\n".join(["video,label", *labelled]))
    entries = [{"file": video, "label_idx": number % 2} for number, video in enumerate(videos)]
    for name in ("train.json", "val.json", "test.json"):
        (folder / name).write_text(json.dumps(entries))
    (folder / "names.txt").write_text("\n".join(CLASSES))
    (folder / "prompts.txt").write_text("a video of {}.\na clip of {}.")


def write_checkpoints(folder: Path) -> None:
    """Checkpoints under the names that snippets give them, and activations to verify one with."""
    giant = "videoprism_v1_giant"
    vp.convert.draw_checkpoint(giant, folder / "mine.npz")
    vp.convert.draw_checkpoint(models.DEMO_MODEL, folder / "CHECKPOINT.npz")
    (folder / "mine.json").write_text(json.dumps(models.get_config(giant)))
    vp.convert.flax_to_mlx(folder / "mine.npz", folder / "kept" / "mine", giant)
    inputs = np.random.default_rng(0).random((1, 4, 72, 72, 3), np.float32)
    features, _ = vp.load_model(folder / "kept" / "mine")(inputs)
    saved = {"input/inputs": inputs, "float64/output/0": np.array(features), DISTANCE: 1e-6}
    np.savez(folder / "activations.npz", **saved)


def save_classifier(folder: Path) -> None:
    """The classifier that another page has trained."""
    classifier = vp.load_classifier("videoprism_public_v1_base", len(CLASSES))
    vp.save_model(classifier, folder / "my-classifier")


@contextmanager
def scheduler() -> Iterator[Callable[[str], str]]:
    """Dask's scheduler with a worker in this process, which knows the small models.

    Yields what replaces, in a text, the address of a scheduler, and a shared disk by this folder.
    """
    from distributed import LocalCluster

    options = dict(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp")
    with LocalCluster(**options, dashboard_address=":0", worker_dashboard_address=":0") as cluster:

        def replaced(text: str) -> str:
            text = text.replace(ADDRESS, cluster.scheduler_address)
            return text.replace(DISK, str(Path.cwd())).replace(DISK_ON_WORKERS, str(Path.cwd()))

        yield replaced


class Texts:
    """A data loader of texts, in one batch."""

    def __init__(self, texts: list[str]):
        self.dataset = [{"text": text} for text in texts]

    def __iter__(self) -> Iterator[dict[str, list[str]]]:
        yield {"text": [item["text"] for item in self.dataset]}


def replace_mteb(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for MTEB, which is large, and whose tasks are downloads: it encodes two texts."""

    def evaluate(model: Any, tasks: list[str]) -> dict[str, float]:
        first, second = model.encode(Texts(CLASSES))
        return dict.fromkeys(tasks, float(first @ second))

    module: Any = ModuleType("mteb")
    module.__spec__ = ModuleSpec("mteb", None)
    module.get_tasks, module.evaluate = (lambda tasks: tasks), evaluate
    monkeypatch.setitem(sys.modules, "mteb", module)
