"""Draws the frames of a video beside their features as colours.

python examples/feature_maps.py clip.mp4 -o maps.png
"""

import argparse

import numpy as np
from PIL import Image

import videoprism_mlx as vp
from videoprism_mlx.pictures import draw_features, feature_colours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("video")
    parser.add_argument("-o", "--output", default="maps.png")
    parser.add_argument("--model", default="videoprism_public_v1_base")
    options = parser.parse_args()

    model, processor = vp.load(options.model)
    clip = processor.read(options.video)  # (T, S, S, 3), float32 in [0, 1]
    [result] = vp.encode(model, processor, [clip], features=["tokens"])
    tokens = result.features["tokens"]  # (T * N, D)

    side = round((len(tokens) / len(clip)) ** 0.5)
    colours = feature_colours(tokens.reshape(len(clip), side, side, -1))
    frames = (clip * 255).round().astype(np.uint8)
    Image.fromarray(draw_features(frames, colours)).save(options.output)
    print(options.output)


if __name__ == "__main__":
    main()
