"""Draws the frames of a video beside their features as colours.

python examples/feature_maps.py clip.mp4 -o maps.png
"""

import argparse

from PIL import Image

import videoprism_mlx as vp
from videoprism_mlx.errors import EXPECTED, in_words
from videoprism_mlx.features.maps import map_features
from videoprism_mlx.pictures import draw_features, feature_colours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("video", help="a video file, or a folder of images")
    parser.add_argument("-o", "--output", default="maps.png", help="the .png file to write")
    parser.add_argument(
        "--model", default="videoprism_public_v1_base", help="the model's name or directory"
    )
    options = parser.parse_args()

    model, processor = vp.load(options.model)
    # Frames (T, H, W, 3), features (T, rows, columns, D), and times (T,) in seconds.
    maps = map_features(model, processor, options.video, steady=True)
    colours = feature_colours(maps.features)
    sheet = draw_features(maps.frames, colours, maps.times, names=maps.names)
    Image.fromarray(sheet).save(options.output)
    print(options.output)


if __name__ == "__main__":
    try:
        main()
    except EXPECTED as error:
        raise SystemExit(f"error: {in_words(error)}") from None
