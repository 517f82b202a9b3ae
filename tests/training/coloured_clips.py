"""Clips of three colours, and classifiers that learn to tell them apart: fixtures and helpers."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import media
import numpy as np
from safetensors.numpy import load_file

from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.training.session import Trained

COLOURS = {"blue": (20, 30, 220), "green": (20, 200, 40), "red": (220, 30, 30)}

# Fast, and enough for the colours of clips.
RECIPE = Recipe(epochs=12, batch_size=4, learning_rate=0.02)
QUICK = dataclasses.replace(RECIPE, epochs=2)
Train = Callable[..., Trained]

OWN_FILES = ("config.json", "labels.json", "metrics.json", "model.safetensors", "processor.json")


def colour_clip(path: Path, colour: tuple[int, int, int], shade: float = 1.0) -> Path:
    """A short clip that gets brighter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    level = np.linspace(0.7, 1.0, 8)[:, None, None, None] * shade
    frames = np.broadcast_to(level * np.array(colour), (8, 32, 32, 3)).astype(np.uint8)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "32x32", "-r", "8", "-i", "-"]
    encoding = ["-c:v", "mpeg4", "-q:v", "2", "-threads", "1"]
    media.ffmpeg(*raw, *encoding, path, given=frames.tobytes())
    return path


def listed(path: Path, rows: list[tuple[Any, Any]], key: str = "file") -> Path:
    path.write_text(json.dumps([{key: file, "label_idx": label} for file, label in rows]))
    return path


def colour_rows(clips: Path) -> list[tuple[str, int]]:
    """The training clips and their classes."""
    return [
        (str(path), number)
        for number, name in enumerate(sorted(COLOURS))
        for path in sorted((clips / "train" / name).iterdir())
    ]


def contents(directory: Path) -> dict[str, bytes]:
    """What a run writes, but for the picture."""
    names = [*OWN_FILES, *(f"training/{n}.safetensors" for n in ("last", "best"))]
    return {name: (directory / name).read_bytes() for name in [*names, "training/metrics.jsonl"]}


def numbers_of(directory: Path) -> dict[str, np.ndarray]:
    return load_file(directory / "model.safetensors")


def contents_of_model(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def pooled_by_hand(head: dict[str, np.ndarray], tokens: np.ndarray, heads: int) -> np.ndarray:
    """A classifier's pooler, in float64, as its description has it."""
    prefix = "atten_pooler.pooling_attention"
    head = {name: array.astype(np.float64) for name, array in head.items()}

    def projected(name: str, inputs: np.ndarray) -> np.ndarray:
        weight, bias = head[f"{prefix}.{name}.weight"], head[f"{prefix}.{name}.bias"]
        return inputs @ weight.T + bias

    query = projected("query", head[f"{prefix}_query"]).reshape(heads, -1)
    width = query.shape[1]
    softplus = np.log1p(np.exp(head[f"{prefix}.per_dim_scale.per_dim_scale"]))
    query = query * 1.442695041 / np.sqrt(width) * softplus
    keys = projected("key", tokens).reshape(*tokens.shape[:2], heads, width)
    values = projected("value", tokens).reshape(keys.shape)
    logits = np.einsum("hd,bshd->bhs", query, keys)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    attended = np.einsum("bhs,bshd->bhd", weights, values).reshape(len(tokens), -1)
    pooled = projected("post", attended)
    centred = pooled - pooled.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    norm = f"{prefix}_layer_norm"
    return normed * head[f"{norm}.weight"] + head[f"{norm}.bias"]


def logits_by_hand(head: dict[str, np.ndarray], tokens: np.ndarray, heads: int) -> np.ndarray:
    pooled = pooled_by_hand(head, tokens.astype(np.float64), heads)
    return pooled @ head["projection.linear.weight"].T + head["projection.linear.bias"]


def loss_by_hand(logits: np.ndarray, targets: np.ndarray) -> float:
    """As Optax has it."""
    if targets.ndim == 1:
        log_sums = np.log(np.exp(logits).sum(-1))
        return float((log_sums - logits[np.arange(len(targets)), targets]).mean())
    likely = 1 / (1 + np.exp(-logits))
    return float(-(targets * np.log(likely) + (1 - targets) * np.log(1 - likely)).mean())


class Stop(KeyboardInterrupt):
    pass
