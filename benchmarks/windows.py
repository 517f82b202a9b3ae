"""The cost of overlapping windows, compared with encoding each window separately.

    python -m benchmarks.windows [--model videoprism_v1_base] [--save]

The weights and the video are random, which does not change the cost.
"""

import argparse
import sys

import mlx.core as mx
import numpy as np
import numpy.typing as npt

import videoprism_mlx as vp
from benchmarks.timing import in_turns, ratios, save

WINDOW = 16

# Stride, number of windows, and the allowed cost relative to separate windows. The first window has
# its full cost, so a few windows cost more each than many.
CASES = ((8, 12, 0.65), (1, 17, 0.35))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="videoprism_v1_base", help="a configuration's name")
    parser.add_argument("--size", type=int, default=288, help="pixels of a frame's side")
    parser.add_argument("--rounds", type=int, default=2, help="measured turns")
    parser.add_argument(
        "--save", action="store_true", help="write the figures to benchmarks/results"
    )
    options = parser.parse_args()

    model = vp.get_model(options.model)
    mx.eval(model.parameters())
    rng = np.random.default_rng(0)
    longest = max(WINDOW + stride * (count - 1) for stride, count, _ in CASES)
    video = rng.integers(0, 256, (longest, options.size, options.size, 3), dtype=np.uint8)
    figures, within = {}, True
    for stride, count, allowed in CASES:
        frames = video[: WINDOW + stride * (count - 1)]

        def windowed(frames: npt.NDArray[np.uint8] = frames, stride: int = stride) -> None:
            for _ in vp.encode_windows(model, frames, WINDOW, stride, features=["tokens"]):
                pass

        def one_window(frames: npt.NDArray[np.uint8] = frames) -> None:
            for _ in vp.encode_windows(model, frames[:WINDOW], WINDOW, features=["tokens"]):
                pass

        seconds = in_turns({"windowed": windowed, "one": one_window}, options.rounds)
        each = {key: value / count for key, value in ratios(seconds, "windowed", "one").items()}
        figures[f"stride {stride}"] = {"windows": count, **each, "allowed": allowed}
        within &= each["median"] <= allowed
        print(
            f"stride {stride} of {WINDOW}, {count} windows: {each['median']:.3f} of independent "
            f"windows ({each['least']:.3f} to {each['most']:.3f}; at most {allowed})"
        )
    if options.save:
        save("windows", "python -m benchmarks.windows", {"model": options.model, **figures})
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
