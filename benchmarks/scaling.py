"""How cost grows with frames, resolution, batch, text length and the length of a video.

    python -m benchmarks.scaling [--only frames texts] [--rounds 3] [--save]

Each figure is the median of several passes. Weights and inputs are random.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np
import numpy.typing as npt

import videoprism_mlx as vp
from benchmarks.timing import RESULTS, in_turns, save
from benchmarks.work import TEXT_PADDED, inputs_of, model_of, texts_of
from videoprism_mlx import encoders

ENCODER, VIDEO_TEXT = "base", "video-text base"

FRAMES, SIZES, BATCHES = (1, 2, 4, 8, 16, 32), (144, 216, 288, 432), (1, 2, 4, 8)
VOCABULARY, LENGTHS, QUERIES = 32_000, (4, 8, 16, 32, 64), 64
SECONDS, FPS = (2, 4, 8, 16), 8

# How many queries, the least and the most of their tokens, and how many times faster they must be
# than with all of their padding.
MANY, SHORT, SPEEDUP = 1000, (5, 12), 5.0

Point = dict[str, float]


def measured(work: Callable[[], object], rounds: int) -> Point:
    """The seconds and the peak memory of some work."""
    mx.clear_cache()
    mx.reset_peak_memory()
    seconds = in_turns({"work": work}, rounds)["work"]
    return {"seconds": statistics.median(seconds), "peak_gb": mx.get_peak_memory() / 1e9}


def encoder_at(axis: str, values: Iterable[int], rounds: int) -> list[Point]:
    """The cost of the encoder for each number of frames, pixels of a side, or clips."""
    model, points = model_of(ENCODER), []
    for value in values:
        inputs = {
            key: mx.array(array) for key, array in inputs_of(ENCODER, **{axis: value}).items()
        }
        work = lambda inputs=inputs: mx.eval(model(**inputs)[0])  # noqa: E731
        points.append({axis: value, **measured(work, rounds)})
    return points


def text_lengths(rounds: int) -> list[Point]:
    """The cost of texts of each length in tokens, all with the same padded length."""
    model, points = model_of(VIDEO_TEXT), []
    for length in LENGTHS:
        texts = texts_of(VOCABULARY, [length] * QUERIES)
        work = lambda texts=texts: mx.eval(model(**texts)[1])  # noqa: E731
        points.append({"length": length, **measured(work, rounds)})
    return points


def many_texts(rounds: int) -> dict[str, float]:
    """The time of many short queries, compared with computing all of their padding."""
    model = model_of(VIDEO_TEXT)
    lengths = np.random.RandomState(2).randint(*SHORT, MANY)
    texts = texts_of(VOCABULARY, lengths)

    class Tokenized:
        """Stands for a processor. Its texts are numbers."""

        @staticmethod
        def tokenize(numbers: list[int]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
            return texts["text_token_ids"][numbers], texts["text_paddings"][numbers]

    def embed() -> npt.NDArray[Any]:
        vectors: npt.NDArray[Any] = vp.embed_texts(model, Tokenized(), range(MANY))
        return vectors

    def padded() -> npt.NDArray[Any]:
        """The same with all of the padding."""
        with patch.object(encoders, "shared_padding", lambda paddings: 0):
            return embed()

    seconds = in_turns({"short": embed, "padded": padded}, rounds)
    np.testing.assert_allclose(embed(), padded(), atol=1e-4)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    return {**medians, "speedup": medians["padded"] / medians["short"]}


def video_lengths(rounds: int) -> list[Point]:
    """The cost of overlapping windows for videos of each length in seconds."""
    model, points = model_of(ENCODER), []
    for length in SECONDS:
        frames = np.random.RandomState(0).randint(0, 256, (length * FPS, 288, 288, 3))
        frames = frames.astype(np.uint8)

        def work(frames: npt.NDArray[Any] = frames) -> None:
            for _ in vp.encode_windows(model, frames, 16, 8, features=["pooled"]):
                pass

        points.append({"video_seconds": length, **measured(work, rounds)})
    return points


SCALES: dict[str, tuple[str, Callable[[int], list[Point]]]] = {
    "frames": ("frames", lambda rounds: encoder_at("frames", FRAMES, rounds)),
    "resolution": ("pixels of a side", lambda rounds: encoder_at("size", SIZES, rounds)),
    "batch": ("clips at once", lambda rounds: encoder_at("batch", BATCHES, rounds)),
    "texts": (f"tokens, padded to {TEXT_PADDED}", text_lengths),
    "video": (f"seconds of video at {FPS} frames, in windows of 16 by 8", video_lengths),
}


def draw(name: str, label: str, points: list[Point]) -> None:
    """Draws the seconds and memory of all points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    at = [next(iter(point.values())) for point in points]
    for axes, key, title in zip(
        figure.subplots(1, 2), ("seconds", "peak_gb"), ("seconds", "peak memory, GB"), strict=True
    ):
        axes.plot(at, [point[key] for point in points], "o-", color="#0072b2")
        axes.set(xlabel=label, title=title, xlim=(0, None), ylim=(0, None))
        axes.grid(color="#e6e6e2")
        axes.spines[["top", "right"]].set_visible(False)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / f"scaling_{name}.png", dpi=100)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[*SCALES, "queries"], metavar="SCALE")
    parser.add_argument("--rounds", type=int, default=3, help="measured passes")
    parser.add_argument(
        "--save", action="store_true", help="write the figures and plots to benchmarks/results"
    )
    options = parser.parse_args()

    figures: dict[str, Any] = {}
    for name in options.only or [*SCALES, "queries"]:
        if name == "queries":
            figures[name] = many_texts(options.rounds)
            short, padded, speedup = figures[name].values()
            print(f"{MANY} short queries: {short:.1f} s, padded {padded:.1f} s: {speedup:.1f} x")
            continue
        label, measure = SCALES[name]
        figures[name] = points = measure(options.rounds)
        print(f"{name}, by {label}:")
        for point in points:
            print("   " + ", ".join(f"{key} {value:.3g}" for key, value in point.items()))
        if options.save:
            draw(name, label, points)
    if options.save:
        save("scaling", "python -m benchmarks.scaling", figures)
    if "queries" in figures:
        return 0 if figures["queries"]["speedup"] >= SPEEDUP else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
