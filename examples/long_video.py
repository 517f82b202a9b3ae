"""Finds the moments of a long video that fit a description best.

It needs a video-text model (videoprism_lvt_*).

python examples/long_video.py match.mp4 "a goal is scored" --fps 4
"""

import argparse

import numpy as np

import videoprism_mlx as vp
from videoprism_mlx.errors import EXPECTED, counted, in_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("video", help="a long video")
    parser.add_argument("query", help="what to look for")
    parser.add_argument(
        "--model", default="videoprism_lvt_public_v1_base", help="the model's name or directory"
    )
    parser.add_argument("--fps", type=float, default=4.0, help="frames to sample a second")
    parser.add_argument("--top", type=int, default=5, help="moments to print")
    options = parser.parse_args()

    model, processor = vp.load(options.model)
    [text] = vp.embed_texts(model, processor, [options.query])
    spans, cosines = [], []
    windows = vp.encode_windows(
        model, options.video, window=16, stride=4, fps=options.fps, processor=processor
    )
    for window in windows:  # Windows overlap, but each frame is encoded once.
        spans.append((window.start, window.end))
        cosines.append(float(text @ window.features["embedding"]))

    print(f"{counted(len(spans), 'window')}; the closest to {options.query!r}:")
    for place in np.argsort(cosines)[::-1][: options.top]:
        start, end = spans[place]
        print(f"  {start:8.1f} to {end:8.1f} s  {cosines[place]:6.3f}")


if __name__ == "__main__":
    try:
        main()
    except EXPECTED as error:
        raise SystemExit(f"error: {in_words(error)}") from None
