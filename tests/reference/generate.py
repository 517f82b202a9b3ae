"""Runs the official Flax model and saves what it computes, for the parity tests.

The official package must be on PYTHONPATH, and jax, flax, optax, einops and einshape installed:

    python tests/reference/generate.py                 all small models, again
    python tests/reference/generate.py --full-size     the full-size one, again
    python tests/reference/generate.py --check         what `videoprism-mlx check` replays
    python tests/reference/generate.py --no-layers     the shapes of models without layers
    python tests/reference/generate.py CHECKPOINT.npz --config NAME|FILE -o ACTIVATIONS.npz
                                                       for `convert --verify` on your own

See convert/verify.py for the content of an activations file.
"""

import argparse
import json
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from activations import save_activations
from cases import (
    ALL,
    CASES,
    DIFFERENTIATED,
    GAINS,
    MODELS,
    NO_LAYERS,
    PADDED_TEXT,
    SEED,
    SEEDS,
    lone_text,
    text,
    video,
)
from training import TRAINED, save_gradients, save_training_step

from videoprism_mlx.convert import draw_checkpoint, mlx_to_flax
from videoprism_mlx.convert.flax import given_config, matching_config
from videoprism_mlx.convert.npz import Archive
from videoprism_mlx.convert.official import flax_model, libraries, run_outputs
from videoprism_mlx.convert.standin import CAP_REACHING_GAIN
from videoprism_mlx.convert.verify import distance
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.models import DEMO_MODEL, SHIPPED, get_config

HERE = Path(__file__).parent
FULL_SIZE = "videoprism_lvt_public_v1_base"


def generate(names: list[str]) -> None:
    """Writes the folders of these models again."""
    for name in names:
        config = MODELS[name]
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        seed = SEEDS.get(name, zlib.crc32(name.encode()))
        gain = GAINS.get(name, CAP_REACHING_GAIN)
        checkpoint = draw_checkpoint(config, folder / "checkpoint.npz", seed, gain=gain)
        for case, inputs in CASES[name].items():
            save_activations(config, checkpoint, inputs, folder / f"{case}.npz", name != "demo")
        if name in DIFFERENTIATED:
            save_gradients(config, checkpoint, CASES[name]["plain"], folder / "gradients.npz")
        for kind in TRAINED.get(name, ()):
            save_training_step(config, checkpoint, kind, folder / f"training_{kind}.npz")
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{name}: {len(CASES[name])} cases, {size / 1e6:.2f} MB", flush=True)


def generate_full_size() -> None:
    """Runs the video-text base model on a drawn checkpoint and saves a sample of its outputs."""
    arguments = dict(inputs=video(1, 16, 288), **text([[0] * 8 + [1] * 56, [0] * 64], 32_000))
    config = get_config(FULL_SIZE)
    arrays: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = draw_checkpoint(config, Path(directory) / "flax.npz", SEED)
        arrays["sha256"] = np.array(sha256(checkpoint))
        reference, single = (
            run_outputs(config, checkpoint, arguments, dtype) for dtype in (np.float64, np.float32)
        )
    for path, array in reference.items():
        arrays[f"float64/{path}"] = sample(array)
        arrays[f"distance/{path}"] = distance(sample(single[path]), sample(array))
        print(f"{path}: {arrays[f'distance/{path}']:.1e}")
    np.savez_compressed(HERE / "full_size.npz", **arrays)


def sample(features: np.ndarray) -> np.ndarray:
    """Every 127th token of features (B, S, D), which touches every frame; embeddings whole."""
    return features[:, ::127] if features.ndim == 3 and features.shape[1] > 127 else features


def own_activations(checkpoint: Path, config: str | None, output: Path) -> None:
    """Writes the activations of another checkpoint for a random clip and text."""
    if config is None:
        with Archive(checkpoint) as archive:
            chosen = matching_config(archive.shapes, checkpoint)
    else:
        chosen = given_config(config)
    inputs: dict[str, Any] = {}
    vision = chosen.get("encoder_params", chosen)
    if "patch_size" in vision:
        frames, rows, _ = vision["pos_emb_shape"]
        inputs |= dict(inputs=video(1, frames, rows * vision["patch_size"]), **ALL)
    if chosen["model"] == "FactorizedVideoCLIP":
        inputs |= text([[0] * 8 + [1] * 56, [0] * 64], chosen["vocabulary_size"])
    if chosen["model"] == "TextEncoder":
        inputs |= lone_text([[0] * 8 + [1] * 56, [0] * 64])
    save_activations(chosen, checkpoint, inputs, output)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


# The models of `videoprism-mlx check`, besides the one that ships: configuration and gain.
CHECKED = {
    "at_the_cap": (MODELS["encoder"], CAP_REACHING_GAIN),
    "mild": (MODELS["classifier"], 1.0),
}
CHECK_DATA = HERE.parents[1] / "videoprism_mlx/check/data"


def generate_check() -> None:
    """Writes what `videoprism-mlx check` replays: the outputs of small models."""
    with tempfile.TemporaryDirectory() as directory:
        for name, (config, gain) in CHECKED.items():
            checkpoint = draw_checkpoint(config, Path(directory) / f"{name}.npz", SEED, gain=gain)
            about = dict(config=config, seed=SEED, gain=gain)
            save_checked(config, checkpoint, dict(inputs=video(2, 4, 18)), name, about)
        checkpoint = Path(directory) / "shipped.npz"
        mlx_to_flax(SHIPPED[DEMO_MODEL], checkpoint)
        config = get_config(DEMO_MODEL)
        inputs = dict(inputs=video(1, 8, 64), **text(PADDED_TEXT, config["vocabulary_size"]))
        save_checked(config, checkpoint, inputs, "shipped", None)


def generate_no_layers() -> None:
    """Writes the parameters that Flax makes for scanned stacks without layers."""
    saved = []
    for config in NO_LAYERS:
        inputs = {} if config["model"] == "TextEncoder" else dict(inputs=video(1, 2, 18))
        if "vocabulary_size" in config:
            inputs |= text(PADDED_TEXT) if inputs else lone_text(PADDED_TEXT)
        jax, model = libraries().jax, flax_model(config, np.float32, scan=True)
        tree = jax.eval_shape(model.init, jax.random.PRNGKey(0), **inputs)
        flat = libraries().traverse_util.flatten_dict(tree, sep="/")
        arrays = {key: [str(one.dtype), *one.shape] for key, one in flat.items()}
        saved.append({"config": config, "arrays": arrays})
    lines = ",\n".join(map(json.dumps, saved))
    (HERE / "no_layers.json").write_text(f"[\n{lines}\n]\n")


def save_checked(
    config: dict[str, Any], checkpoint: Path, inputs: dict[str, Any], name: str, about: Any
) -> None:
    """Runs a model and writes its outputs to the package."""
    path = CHECK_DATA / f"{name}.npz"
    save_activations(config, checkpoint, inputs, path, modules=False)
    with np.load(path) as saved:
        arrays = {key: saved[key] for key in saved if not key.startswith("float32/")}
    np.savez_compressed(path, **arrays, about=np.array(json.dumps(about)))
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", nargs="?", type=Path, help="a Flax .npz, stacks scanned")
    parser.add_argument("--only", choices=MODELS, help="make one of the small models again")
    parser.add_argument("--config", help="a configuration's name, or the path of a config.json")
    parser.add_argument("-o", "--output", type=Path, help="the activations file to write")
    parser.add_argument("--full-size", action="store_true", help="make full_size.npz again")
    parser.add_argument("--check", action="store_true", help="make the data of `check` again")
    parser.add_argument("--no-layers", action="store_true", help="make no_layers.json again")
    arguments = parser.parse_args()
    if arguments.check:
        generate_check()
    elif arguments.no_layers:
        generate_no_layers()
    elif arguments.full_size:
        generate_full_size()
    elif arguments.checkpoint is None:
        generate([arguments.only] if arguments.only else list(MODELS))
    elif arguments.output is None:
        parser.error("say with -o where to write the activations")
    else:
        own_activations(arguments.checkpoint, arguments.config, arguments.output)


if __name__ == "__main__":
    main()
