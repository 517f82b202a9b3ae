"""Trains the small model that ships, from random weights.

python examples/train_demo_model.py OUTPUT

It draws clips with captions, trains a tokenizer on the captions, and trains the model with
`train_retrieval`. The same seed gives the same model on the same machine. If it is stopped, the
same command continues it.
"""

import argparse
import csv
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import videoprism_mlx as vp  # Before mlx: on Linux it makes MLX use OpenBLAS.

import mlx.core as mx  # isort: skip
import numpy as np  # isort: skip
import numpy.typing as npt  # isort: skip
import sentencepiece  # isort: skip
from videoprism_mlx.demo.attributes import Clips, train_attributes
from videoprism_mlx.demo.captions import name_shapes, vocabulary
from videoprism_mlx.demo.scenes import draw_scenes, motion_sets, shape_sets
from videoprism_mlx.demo.world import clip_name, sentences, write_world
from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import EXPECTED, in_words
from videoprism_mlx.files.atomic import new_directory
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.tokenizers import WORDS_FILE

Floats = npt.NDArray[np.float64]

CLIPS, VALIDATION_CLIPS = 16_000, 200
CAPTIONS = 4  # Of each clip. The first says everything.

# First on captions that say everything: they teach colours fast. Then on all captions: those that
# say little teach motion.
FIRST = vp.Recipe(
    epochs=2, batch_size=64, learning_rate=1.5e-3, weight_decay=0.05, warmup=100, max_grad_norm=1
)
# Shapes are the hardest. They are learned last, with more captions that name little else.
THEN = dataclasses.replace(FIRST, epochs=30, lr_schedule="cosine")
LAST = dataclasses.replace(THEN, epochs=14, learning_rate=1e-3)
# In the end, each attribute by itself, on sets of clips that differ in shape or in motion alone,
# and in strange colours. A batch has 10 pairs, each of a set that differs in shape.
SETS, MOTION_SETS = 2400, 600
NAMING = dataclasses.replace(LAST, epochs=16, batch_size=10, warmup=50)


def draw(folder: Path, seed: int, clips: int) -> dict[str, Path]:
    """Draws clips, and writes lists of them: one for each stage, and one to validate on.

    The lists are "complete" (captions that say everything), "all", "shapes" (half of all, and two
    captions about the shapes of each clip) and "val". None of the scenes is held out.
    """
    scenes = draw_scenes(clips, seed)
    train, val = folder / "train", folder / "val"
    if not train.exists():
        write_world(train, scenes, seed, captions=1, partial=CAPTIONS - 1)
    if not val.exists():
        held = draw_scenes(VALIDATION_CLIPS, seed + 1, distinct=True)
        write_world(val, held, seed + 1)
    with open(train / "captions.csv", newline="", encoding="utf-8") as file:
        heading, *rows = csv.reader(file)
    complete, partial = rows[::CAPTIONS], rows[1::CAPTIONS]
    about_shapes: list[Sequence[str]] = []
    random = np.random.default_rng([seed, 6])
    for (name, _), scene in zip(complete, scenes, strict=True):
        for motions in (False, True):
            about_shapes.append((name, name_shapes(scene, random, motions)))
    lists: dict[str, list[Sequence[str]]] = {
        "complete": [*complete],
        "shapes": [*complete, *partial, *about_shapes],
    }
    for name, listed in lists.items():
        with open(train / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([heading, *listed])
    return {
        "complete": train / "complete.csv",
        "all": train / "captions.csv",
        "shapes": train / "shapes.csv",
        "val": val / "captions.csv",
    }


def waves(count: int) -> Floats:
    """Three smooth functions of a position: (count, 3)."""
    place = (np.arange(count) + 0.5) / count * 2 - 1
    return np.stack([place, np.cos(np.pi * place), np.sin(np.pi * place)], axis=1)


def smooth_filters(size: int, count: int) -> Floats:
    """The `count` cosine waves of lowest frequency over a patch: (count, size * size)."""
    pixels, numbers = np.arange(size)[:, None] + 0.5, np.arange(size)
    cosines = np.cos(np.pi * pixels * numbers / size)
    pairs = sorted(((u, v) for u in numbers for v in numbers), key=lambda pair: (sum(pair), pair))
    filters = [np.outer(cosines[:, u], cosines[:, v]) * (1 + u + v) for u, v in pairs[:count]]
    return np.stack([each.ravel() / np.abs(cosines).mean() / size**2 for each in filters])


def begin_smoothly(model: VideoPrismModel, seed: int) -> None:
    """Sets the filters and positions of a model to random mixtures of smooth functions.

    A model that starts from white noise learns colours fast, but motion only after a long time.
    """
    random = np.random.default_rng(seed)
    encoder = model.video_encoder
    frames, rows, columns = encoder.pos_emb_shape
    width = encoder.spatial_ln.weight.size

    def mixed(features: Floats) -> mx.array:
        mixture = random.standard_normal((features.shape[1], width)) / features.shape[1] ** 0.5
        return mx.array((features @ mixture).astype(np.float32))

    places = [np.repeat(waves(rows), columns, axis=0), np.tile(waves(columns), (rows, 1))]
    encoder.spatial_pos_emb.weight = mixed(1.2 * np.concatenate(places, axis=1))
    encoder.temporal_pos_emb.weight = mixed(1.2 * waves(frames))

    filters = np.kron(smooth_filters(encoder.patch_size, width // 3), np.eye(3))
    rotation, _ = np.linalg.qr(random.standard_normal((width, width)))
    weight = (rotation @ filters).astype(np.float32)
    encoder.patch_projection.linear.weight = mx.array(weight)
    encoder.patch_projection.linear.bias = mx.array(-0.5 * weight.sum(axis=1))  # Grey becomes 0.


def untrained(folder: Path, seed: int) -> Path:
    """A model directory with random weights, and a tokenizer trained on the captions."""
    config = vp.models.get_config(DEMO_MODEL)
    if not (folder / "tokenizer").exists():
        with new_directory(folder / "tokenizer") as made:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=map(vp.canonicalize_text, sentences(8000, seed)),
                model_prefix=str(made / "spm"),
                vocab_size=config["vocabulary_size"],
                hard_vocab_limit=False,
                normalization_rule_name="identity",
                pad_id=0,
                eos_id=1,
                unk_id=2,
                bos_id=-1,
                minloglevel=2,
            )
    if not (folder / "start").exists():
        mx.random.seed(seed)
        model = vp.get_model(config)
        begin_smoothly(model, seed)
        vp.save_model(model, folder / "start", folder / "tokenizer" / "spm.model")
    return folder / "start"


def name_attributes(
    model: Path, options: argparse.Namespace
) -> tuple[VideoPrismModel, dict[str, Any]]:
    """Trains a model on sets of clips that differ in one attribute, and on clips of two things."""
    output, seed = options.output, options.seed
    sets = shape_sets(SETS, seed)
    alike = {
        "sets": [scene for each in sets for scene in each],
        "motions": [s for each in motion_sets(MOTION_SETS, seed, held_out=False) for s in each],
    }
    for number, (name, scenes) in enumerate(alike.items()):
        if not (output / name).exists():
            write_world(output / name, scenes, seed + 2 + number)
    drawn = {
        **{name: (output / name, scenes) for name, scenes in alike.items()},
        "others": (output / "train", draw_scenes(options.clips, seed)),
        "val": (output / "val", draw_scenes(VALIDATION_CLIPS, seed + 1, distinct=True)),
    }
    clips = {}
    for name, (folder, scenes) in drawn.items():
        chosen = [i for i, each in enumerate(scenes) if name != "others" or len(each.things) == 2]
        paths = [folder / clip_name(number) for number in chosen]
        clips[name] = Clips(paths, [scenes[number] for number in chosen])
    recipe = dataclasses.replace(NAMING, seed=seed)
    return train_attributes(model, sets, clips, output / "attributes", recipe, output / "frames")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="a folder for clips, runs and models")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other models")
    parser.add_argument("--clips", type=int, default=CLIPS, help="clips to train on")
    options = parser.parse_args()
    started = time.perf_counter()
    lists = draw(options.output, options.seed, options.clips)
    model = untrained(options.output, options.seed)
    stages = (("first", "complete", FIRST), ("then", "all", THEN), ("last", "shapes", LAST))
    for name, data, recipe in stages:
        tuned = vp.train_retrieval(
            model,
            lists[data],
            options.output / name,
            lists["val"],
            recipe=dataclasses.replace(recipe, seed=options.seed),
            tuning=vp.Tuning(micro_batch_size=recipe.batch_size),
            save_every=100,
            cache=options.output / "frames",
        )
        model = tuned.directory
    trained, metrics = name_attributes(tuned.directory, options)
    tokenizer = options.output / "tokenizer" / "spm.model"
    if not (options.output / "model").exists():
        vp.save_model(trained, options.output / "model", tokenizer)
    if not (options.output / "shipped").exists():
        shipped = vp.load_model(
            options.output / "model", dtype="float16"
        )  # Half the size, to ship.
        vp.save_model(shipped, options.output / "shipped", tokenizer)
        words = "\n".join(vocabulary()) + "\n"
        (options.output / "shipped" / WORDS_FILE).write_text(words, encoding="utf-8")
    record = {"seed": options.seed, "clips": options.clips, **metrics}
    record |= {"minutes": round((time.perf_counter() - started) / 60, 1)}
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    try:
        main()
    except EXPECTED as error:
        raise SystemExit(f"error: {in_words(error)}") from None
