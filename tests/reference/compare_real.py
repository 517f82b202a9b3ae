"""Flax against MLX on real weights and a real clip, in one table.

It needs what generate.py needs, and the weights: downloaded, or an official .npz.

    python tests/reference/compare_real.py videoprism_lvt_public_v1_base --video clip.mp4
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import videoprism_mlx as vp  # isort: split

import mlx.core as mx

from videoprism_mlx.convert.official import numpy_outputs, run_outputs
from videoprism_mlx.convert.verify import allowed_distance, distance, least_cosine, longest_sum
from videoprism_mlx.models import RELEASES, canonical_name, get_config
from videoprism_mlx.weights import hub

TEXTS = ["a video of a person playing drums.", "a video of water.", "a video of a dog running."]


def tokenize(tokenizer: str) -> dict[str, np.ndarray]:
    """Token ids and paddings of TEXTS, or random ones without a tokenizer."""
    try:
        ids, paddings = vp.tokenize_texts(vp.load_text_tokenizer(tokenizer), TEXTS)
    except ConnectionError as error:
        print(f"random token ids are used: {error}")
        paddings = (np.arange(64) >= np.array([[9], [5], [64]])).astype(np.float32)
        ids = np.random.RandomState(0).randint(3, 32_000, paddings.shape) * (paddings == 0)
    return dict(text_token_ids=ids.astype(np.int32), text_paddings=paddings)


def mlx_outputs(
    config: dict, checkpoint: Path, inputs: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], int]:
    """The outputs of our model, from the same checkpoint, converted; its longest sum."""
    with tempfile.TemporaryDirectory() as directory:
        result = vp.convert.flax_to_mlx(checkpoint, Path(directory) / "model", config)
        model = vp.load_model(result.output)
        returned = numpy_outputs(model(**inputs, return_intermediate=True))
        mx.clear_cache()
        return returned, longest_sum(model, inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", help="a released checkpoint's name or Hugging Face id")
    parser.add_argument("--video", type=Path, help="a clip; random frames if left out")
    parser.add_argument("--checkpoint", type=Path, help="the .npz, if not to be downloaded")
    parser.add_argument("--tokenizer", default="c4_en", help="c4_en, or the path of a .model")
    parser.add_argument(
        "--without-float64", action="store_true", help="half the memory and time, no yardstick"
    )
    options = parser.parse_args()

    name = canonical_name(options.name)
    config = get_config(options.name)
    if options.checkpoint is None and name not in RELEASES:
        parser.error(f"{options.name} has no published weights; give a --checkpoint")
    checkpoint = options.checkpoint or hub.download_checkpoint(name)
    vision = config.get("encoder_params", config)
    frames, rows, _ = vision["pos_emb_shape"]
    size = rows * vision["patch_size"]
    if options.video:
        video = vp.read_video(options.video, frames, size=size)[None]
    else:
        video = np.random.RandomState(0).uniform(size=(1, frames, size, size, 3))
    inputs = dict(inputs=video.astype(np.float32))
    if "vocabulary_size" in config:
        inputs |= tokenize(options.tokenizer)

    ours, terms = mlx_outputs(config, checkpoint, inputs)
    flax = run_outputs(config, checkpoint, inputs, np.float32)
    truth = None
    if not options.without_float64:
        truth = run_outputs(config, checkpoint, inputs, np.float64)

    print(f"{'relative distance of':30} MLX-Flax  Flax-f64   MLX-f64  ratio  cosine MLX-Flax")
    agrees = True
    for key, array in ours.items():
        columns = f"{distance(array, flax[key]):8.2e}" + 27 * " "
        if truth is not None:
            yardstick, own = distance(flax[key], truth[key]), distance(array, truth[key])
            columns = columns.rstrip() + f"  {yardstick:8.2e}  {own:8.2e}   {own / yardstick:4.2f}"
            agrees &= own <= allowed_distance(yardstick, terms)
        print(f"{key:30} {columns}  {least_cosine(array, flax[key]):.7f}")
    if not agrees:
        raise SystemExit("MLX is further from float64 than rounding explains")


if __name__ == "__main__":
    main()
