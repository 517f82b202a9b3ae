"""Writes the features of a video, by frame and by patch, to a NumPy file.

python examples/extract_features.py clip.mp4 -o features.npz
"""

import argparse

import numpy as np

import videoprism_mlx as vp
from videoprism_mlx.errors import EXPECTED, in_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("video", help="a video file, or a folder of images")
    parser.add_argument("-o", "--output", default="features.npz", help="the .npz file to write")
    parser.add_argument(
        "--model", default="videoprism_public_v1_base", help="the model's name or directory"
    )
    options = parser.parse_args()

    model, processor = vp.load(options.model)
    [result] = vp.encode(model, processor, [options.video], features=["tokens"])
    tokens = result.features["tokens"]  # (T * N, D)

    side = processor.size // model.video_encoder.patch_size
    by_place = tokens.reshape(processor.num_frames, side, side, -1)
    np.savez(options.output, features=by_place)
    print(f"{options.output}: {by_place.shape}, frames, rows, columns, channels")


if __name__ == "__main__":
    try:
        main()
    except EXPECTED as error:
        raise SystemExit(f"error: {in_words(error)}") from None
