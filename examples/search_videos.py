"""Finds the videos in a folder that fit each description best.

It needs a video-text model (videoprism_lvt_*).

python examples/search_videos.py clips "a dog runs along the beach"
"""

import argparse

import numpy as np

import videoprism_mlx as vp
from videoprism_mlx.errors import EXPECTED, in_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="a folder of videos")
    parser.add_argument("queries", nargs="+", help="what to look for")
    parser.add_argument(
        "--model", default="videoprism_lvt_public_v1_base", help="the model's name or directory"
    )
    parser.add_argument("--top", type=int, default=5, help="videos to print")
    options = parser.parse_args()

    model, processor = vp.load(options.model)
    texts = vp.embed_texts(model, processor, options.queries)  # (Q, D), of length one
    videos = vp.find_videos([options.folder])  # short name: path
    names, embeddings = [], []
    results = vp.encode(model, processor, videos.values(), errors="yield")
    for name, result in zip(videos, results, strict=True):
        if result.error is not None:
            print(f"skipped: {in_words(result.error)}")
            continue
        names.append(name)
        embeddings.append(result.features["embedding"])
    if not names:
        raise SystemExit("none of the videos could be read")

    for query, cosines in zip(options.queries, texts @ np.stack(embeddings).T, strict=True):
        print(query)
        for place in np.argsort(-cosines)[: options.top]:
            print(f"  {cosines[place]:6.3f}  {names[place]}")


if __name__ == "__main__":
    try:
        main()
    except EXPECTED as error:
        raise SystemExit(f"error: {in_words(error)}") from None
