"""Says how likely each of some labels is for a video, without training.

It needs a video-text model (videoprism_lvt_*).

python examples/classify_video.py clip.mp4 "playing drums" "sitting" "a concert"
"""

import argparse
import dataclasses

import videoprism_mlx as vp
from videoprism_mlx.errors import EXPECTED, in_words
from videoprism_mlx.features.processor import PROMPT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("video", help="a video file, or a folder of images")
    parser.add_argument("labels", nargs="+", help="what it may show")
    parser.add_argument(
        "--model", default="videoprism_lvt_public_v1_base", help="the model's name or directory"
    )
    options = parser.parse_args()

    model, processor = vp.load(options.model)
    processor = dataclasses.replace(processor, template=PROMPT)  # "a video of {}."
    labels = vp.embed_texts(model, processor, options.labels)  # (Q, D)
    [result] = vp.encode(model, processor, [options.video])
    chances = vp.probabilities(labels @ result.features["embedding"])  # (Q,), their sum is one
    for place in chances.argsort()[::-1]:
        print(f"{chances[place]:6.1%}  {options.labels[place]}")


if __name__ == "__main__":
    try:
        main()
    except EXPECTED as error:
        raise SystemExit(f"error: {in_words(error)}") from None
