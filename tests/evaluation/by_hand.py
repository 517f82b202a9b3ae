"""Clips that differ, and what a model makes of them, worked out by hand."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import videoprism_mlx as vp
from videoprism_mlx.datasets.captions import Captioned
from videoprism_mlx.datasets.labels import Labelled
from videoprism_mlx.features.processor import Processor

Converted = Callable[[str], Path]

COUNT = 6

CAPTIONS = [
    ["a red cat runs", "the grey dog"],
    ["a blue ball jumps over the fence"],
    ["a green kite falls down", "a kite", "green"],
    ["the dog plays in the garden"],
    ["a red car", "car"],
    ["a grey cat sleeps"],
]
LABELS = [0, 2, 1, 0, 2, 2]
NAMES = ("red cat", "green kite", "blue_ball")


def of_video(searcher: tuple[Any, Processor], clips: Sequence[Path]) -> np.ndarray:
    """The videos' embeddings, made in another way."""
    encoded = vp.encode(*searcher, clips, batch_size=4)
    return np.stack([one.features["embedding"] for one in encoded])


def of_text(searcher: tuple[Any, Processor], text: str) -> np.ndarray:
    """The embedding of a text alone."""
    model, processor = searcher
    return np.array(model(**processor(texts=[text]))[1][0])


def brute_force(similarity: np.ndarray, owners: Sequence[int]) -> dict[str, float]:
    ranks: dict[str, list[int]] = {"text_to_video": [], "video_to_text": []}
    videos, texts = similarity.shape
    for text in range(texts):
        rank = 1
        for video in range(videos):
            if video != owners[text] and similarity[video, text] >= similarity[owners[text], text]:
                rank += 1
        ranks["text_to_video"].append(rank)
    for video in range(videos):
        own = [text for text in range(texts) if owners[text] == video]
        if own:
            best = min(
                1
                + sum(
                    similarity[video, other] >= similarity[video, text]
                    for other in range(texts)
                    if other not in own
                )
                for text in own
            )
            ranks["video_to_text"].append(best)
    result = {}
    for way, found in ranks.items():
        for most in (1, 5, 10):
            result[f"{way}/recall@{most}"] = sum(rank <= most for rank in found) / len(found)
        middle = sorted(found)[(len(found) - 1) // 2 : len(found) // 2 + 1]
        result[f"{way}/median_rank"] = sum(middle) / len(middle)
        result[f"{way}/mean_rank"] = sum(found) / len(found)
    return result


def pairs_of(clips: Sequence[Path]) -> list[Captioned]:
    return [Captioned(clip, tuple(said)) for clip, said in zip(clips, CAPTIONS, strict=True)]


def labelled(clips: Sequence[Path], labels: Sequence[Any] = LABELS) -> Labelled:
    multi_label = not isinstance(labels[0], int)
    each = tuple(tuple(one) if multi_label else (one,) for one in labels)
    return Labelled(tuple(clips), each, multi_label, NAMES)


def by_hand(scores: np.ndarray, labels: Sequence[int]) -> dict[str, float]:
    """Top-1, top-5 and mean class accuracy, one video after the other."""
    ranks = [1 + sum(row > row[label]) for row, label in zip(scores, labels, strict=True)]
    within = {label: [r == 1 for r, o in zip(ranks, labels) if o == label] for label in labels}  # noqa: B905
    return {
        "top1": np.mean([rank == 1 for rank in ranks]),
        "top5": np.mean([rank <= 5 for rank in ranks]),
        "mean_class_accuracy": np.mean([np.mean(right) for right in within.values()]),
    }


def logits_by_hand(classifier: tuple[Any, Processor], clips: Sequence[Path]) -> np.ndarray:
    model, processor = classifier
    return np.array(model(**processor(clips))[0])


def write_csv(path: Path, *rows: Sequence[Any]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path
