"""Runs the official Flax model and saves what it computes, for the parity suite.

Needs the official package on PYTHONPATH, with jax, flax, einops and einshape beside this one:

    python tests/reference/generate.py                 all small models, again
    python tests/reference/generate.py --full-size     the full-size one, again
    python tests/reference/generate.py CHECKPOINT.npz --config NAME|FILE -o ACTIVATIONS.npz
                                                       for `convert --verify` on your own

See convert/verify.py for what is in an activations file.
"""

import argparse
import json
import shutil
import sys
import tempfile
import types
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from videoprism_mlx.convert import draw_checkpoint
from videoprism_mlx.convert.flax import given_config, matching_config
from videoprism_mlx.convert.npz import Archive
from videoprism_mlx.convert.standin import CAP_REACHING_GAIN
from videoprism_mlx.convert.verify import OUTPUT, distance, least_cosine, named_outputs
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.models import get_config

try:
    import tensorflow  # noqa: F401 - the official package opens files through it
except ImportError:
    stub = types.ModuleType("tensorflow")
    stub.io = types.ModuleType("tensorflow.io")
    stub.io.gfile = types.SimpleNamespace(GFile=open)
    stub.Tensor = stub.Variable = stub.RaggedTensor = type("Tensor", (), {})
    sys.modules |= {"tensorflow": stub, "tensorflow.io": stub.io}

import jax
import optax
from flax.traverse_util import unflatten_dict
from jax import numpy as jnp
from videoprism import encoders

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.resolve().parent.parent / "examples"))
import check_parity as demo  # noqa: E402

SEED = 2024
FULL_SIZE = "videoprism_lvt_public_v1_base"

ENCODER = dict(
    model="FactorizedEncoder",
    patch_size=6,
    pos_emb_shape=[4, 3, 3],
    model_dim=24,
    num_spatial_layers=2,
    num_temporal_layers=2,
    num_heads=4,
    mlp_dim=40,
    atten_logit_cap=50.0,
)
CLIP = ENCODER | dict(
    model="FactorizedVideoCLIP",
    num_temporal_layers=1,
    num_auxiliary_layers=2,
    vocabulary_size=64,
    num_unimodal_layers=2,
)
TEXT = dict(
    model="TextEncoder",
    vocabulary_size=64,
    num_class_tokens=1,
    model_dim=24,
    num_layers=2,
    mlp_dim=40,
    num_heads=4,
    atten_logit_cap=50.0,
)
CLASSIFIER = dict(
    model="FactorizedVideoClassifier",
    encoder_params={key: value for key, value in ENCODER.items() if key != "model"},
    num_classes=7,
)
MODELS = {
    "encoder": ENCODER,
    "encoder_primer_hybrid": ENCODER | dict(norm_policy="primer_hybrid"),
    "encoder_post": ENCODER | dict(norm_policy="post"),
    "encoder_post_skip": ENCODER | dict(norm_policy="post_skip"),
    "encoder_without_cap": ENCODER | dict(atten_logit_cap=0.0),
    "encoder_oblong_table": ENCODER | dict(pos_emb_shape=[5, 4, 2], num_heads=2, patch_size=4),
    "clip": CLIP,
    "clip_primer_hybrid": CLIP | dict(norm_policy="primer_hybrid", num_auxiliary_layers=1),
    "clip_post": CLIP | dict(norm_policy="post", num_auxiliary_layers=0),
    "clip_post_skip": CLIP | dict(norm_policy="post_skip", num_auxiliary_layers=0),
    "clip_not_causal": CLIP | dict(enable_causal_atten=False, atten_logit_cap=0.0),
    "classifier": CLASSIFIER,
    "text": TEXT | dict(num_class_tokens=2, enable_per_dim_scale=True),
    "text_odd_width": TEXT | dict(model_dim=21, num_heads=3, num_class_tokens=0),
    "encoder_mild": ENCODER,
    "clip_mild": CLIP,
    "classifier_mild": CLASSIFIER,
    "demo": demo.CONFIG,
}
SEEDS = {"demo": demo.SEED}
# Where logits reach the cap, rounding grows: parameters rounded to bfloat16 turn some outputs by
# more than half precision should. These are the models it is held to, and gradients as well.
GAINS = {"encoder_mild": 1.0, "clip_mild": 1.0, "classifier_mild": 1.0}


def video(batch: int, frames: int, size: int) -> np.ndarray:
    """Random frames (B, T, H, W, 3)."""
    random = np.random.RandomState(SEED + frames * 100 + size)
    return random.uniform(size=(batch, frames, size, size, 3)).astype(np.float32)


def text(padded: list[list[int]], vocabulary: int = 64) -> dict[str, np.ndarray]:
    """Random ids (B, L) with the given paddings, 1 where padded."""
    paddings = np.array(padded, np.float32)
    ids = np.random.RandomState(SEED).randint(0, vocabulary, paddings.shape).astype(np.int32)
    return dict(text_token_ids=ids, text_paddings=paddings)


def lone_text(padded: list[list[int]]) -> dict[str, np.ndarray]:
    """The same, under the names that the text encoder gives them."""
    return dict(zip(("inputs", "paddings"), text(padded).values(), strict=True))


ALL = dict(return_intermediate=True)
PADDED_FRAMES = np.array([[0, 0, 0, 1], [1, 0, 1, 0], [1, 1, 1, 1]], np.float32)
# Padding at the end, in the middle, at the start, everywhere and nowhere.
PADDED_TEXT = [
    [0, 0, 0, 1, 1, 1],
    [0, 1, 0, 0, 1, 0],
    [1, 1, 0, 0, 0, 0],
    [1, 1, 1, 1, 1, 1],
    [0, 0, 0, 0, 0, 0],
]

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "encoder": {
        "plain": dict(inputs=video(2, 4, 18), **ALL),
        "smaller": dict(inputs=video(1, 2, 12), **ALL),
        "larger": dict(inputs=video(1, 7, 30), **ALL),
        "one_frame_one_patch": dict(inputs=video(2, 1, 6)),
        "padded_frames": dict(inputs=video(3, 4, 18), frame_paddings=PADDED_FRAMES, **ALL),
        "padded_smaller": dict(
            inputs=video(2, 3, 12), frame_paddings=np.array([[0, 1, 0], [1, 1, 1]], bool)
        ),
    },
    "encoder_primer_hybrid": {
        "padded_frames": dict(inputs=video(3, 4, 18), frame_paddings=PADDED_FRAMES)
    },
    "encoder_post": {"padded_frames": dict(inputs=video(3, 4, 18), frame_paddings=PADDED_FRAMES)},
    "encoder_post_skip": {
        "padded_frames": dict(inputs=video(3, 4, 18), frame_paddings=PADDED_FRAMES)
    },
    "encoder_without_cap": {"plain": dict(inputs=video(1, 4, 18))},
    "encoder_oblong_table": {"plain": dict(inputs=video(1, 3, 12), **ALL)},
    "clip": {
        "plain": dict(inputs=video(2, 4, 18), **text(PADDED_TEXT), **ALL),
        "padded_not_normalized": dict(
            inputs=video(3, 4, 18),
            frame_paddings=PADDED_FRAMES,
            **text([[1] * 6, [0] * 6]),
            normalize=False,
            return_intermediate=np.array(["frame_embeddings", "spatial_features"]),
        ),
        "video_alone": dict(
            inputs=video(1, 6, 12), return_intermediate=np.array(["spatiotemporal_features"])
        ),
        "long_text_alone": text([[0] * 90 + [1] * 10, [1] * 3 + [0] * 97]),
        "short_text_alone": text([[0], [1]]),
    },
    "clip_primer_hybrid": {"plain": dict(inputs=video(1, 4, 18), **text(PADDED_TEXT))},
    "clip_post": {"plain": dict(inputs=video(1, 2, 12), **text(PADDED_TEXT), **ALL)},
    "clip_post_skip": {"plain": dict(inputs=video(1, 2, 12), **text(PADDED_TEXT))},
    "clip_not_causal": {"plain": dict(inputs=video(1, 2, 12), **text(PADDED_TEXT))},
    "classifier": {
        "plain": dict(inputs=video(2, 4, 18), **ALL),
        "padded_frames": dict(inputs=video(3, 4, 18), frame_paddings=PADDED_FRAMES),
    },
    "text": {"plain": lone_text(PADDED_TEXT)},
    "text_odd_width": {"plain": lone_text(PADDED_TEXT)},
    "encoder_mild": {"plain": dict(inputs=video(2, 4, 18), **ALL)},
    "clip_mild": {"plain": dict(inputs=video(2, 4, 18), **text(PADDED_TEXT), **ALL)},
    "classifier_mild": {"plain": dict(inputs=video(2, 4, 18), **ALL)},
    "demo": {"plain": dict(inputs=demo.draw_clip(), **demo.draw_text(), **ALL)},
}

# Of these, the gradients with regard to every parameter are saved as well.
DIFFERENTIATED = ("encoder_mild", "clip_mild", "classifier_mild", "text")


def flax_model(config: Mapping[str, Any], dtype: Any, scan: bool = False) -> Any:
    """The official model of that configuration, computing in `dtype`."""
    keywords = dict(config)
    cls = getattr(encoders, keywords.pop("model"))
    if "pos_emb_shape" in keywords:
        keywords["pos_emb_shape"] = tuple(keywords["pos_emb_shape"])
    if "encoder_params" in keywords:
        params = keywords["encoder_params"]
        shape = tuple(params["pos_emb_shape"])
        keywords["encoder_params"] = params | {"pos_emb_shape": shape, "scan": scan}
    else:
        keywords["scan"] = scan
    # Parameters stay in float32 where activations are in less.
    return cls(**keywords, dtype=np.promote_types(dtype, np.float32), fprop_dtype=dtype)


def read_variables(checkpoint: Path, dtype: Any, scan: bool) -> dict[str, Any]:
    """The variables of a checkpoint of scanned stacks, for a scanned or an unscanned model."""
    flat = {}
    with Archive(checkpoint) as archive:
        for key in archive.headers:
            if "/x_layers_" in key:
                raise SystemExit(
                    f"{checkpoint} stores every layer apart; stack them first: convert it, and "
                    "back with videoprism_mlx.convert.mlx_to_flax(DIRECTORY, FILE, scan=True)"
                )
            array = archive.read(key).astype(dtype)
            if "/x_layers/" in key and not scan:
                for layer, values in enumerate(array):
                    flat[key.replace("/x_layers/", f"/x_layers_{layer}/")] = values
            else:
                flat[key] = array
    return unflatten_dict({tuple(key.split("/")): jnp.asarray(v) for key, v in flat.items()})


def plain_arguments(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a case as the official model takes them."""
    arguments = dict(inputs)
    wanted = arguments.get("return_intermediate")
    if isinstance(wanted, np.ndarray):
        arguments["return_intermediate"] = tuple(wanted.tolist())
    return arguments


def run(
    config: Mapping[str, Any], checkpoint: Path, inputs: Mapping[str, Any], dtype: Any
) -> dict[str, np.ndarray]:
    """What every module and the model itself return, by path."""
    with jax.enable_x64(dtype == np.float64):
        model = flax_model(config, dtype)
        variables = read_variables(checkpoint, dtype, scan=False)
        arguments = plain_arguments(inputs)
        arrays = {k: cast(v, dtype) for k, v in arguments.items() if isinstance(v, np.ndarray)}
        options = {k: v for k, v in arguments.items() if k not in arrays}

        @jax.jit
        def forward(variables: Any, arrays: Any) -> Any:
            return model.apply(
                variables,
                **arrays,
                **options,
                capture_intermediates=True,
                mutable=["intermediates"],
            )

        result, state = forward(variables, arrays)
        check_scanned(config, checkpoint, arrays, options, dtype, result)
        seen = dict(module_outputs(state["intermediates"]))
        return {path: np.asarray(array) for path, array in seen.items()} | numpy_outputs(result)


def run_outputs(
    config: Mapping[str, Any], checkpoint: Path, arrays: Mapping[str, np.ndarray], dtype: Any
) -> dict[str, np.ndarray]:
    """What the model in the published layout returns, intermediate outputs included, by name."""
    with jax.enable_x64(dtype == np.float64):
        model = flax_model(config, dtype, scan=True)
        variables = read_variables(checkpoint, dtype, scan=True)
        arrays = {key: cast(array, dtype) for key, array in arrays.items()}
        forward = jax.jit(lambda v, a: model.apply(v, **a, return_intermediate=True))
        return numpy_outputs(forward(variables, arrays))


def cast(array: np.ndarray, dtype: Any) -> np.ndarray:
    return array.astype(dtype) if array.dtype.kind == "f" else array


def numpy_outputs(result: Any) -> dict[str, np.ndarray]:
    """The model's outputs by name."""
    return {name: np.asarray(array) for name, array in named_outputs(result).items()}


def module_outputs(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Any:
    """(path, array) of each call of each module; dropout, which does nothing here, is left out."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from module_outputs(value, (*path, name))
        elif name == "__call__" and path and not path[-1].endswith("dropout"):
            for call, result in enumerate(value):
                array = result[0] if isinstance(result, tuple) else result
                yield "/".join(path) + (f"#{call}" if call else ""), array


def check_scanned(
    config: Any, checkpoint: Path, arrays: Any, options: Any, dtype: Any, expected: Any
) -> None:
    """That the model in the published layout, layers scanned, computes the same."""
    if dtype != np.float64:
        return
    model = flax_model(config, dtype, scan=True)
    variables = read_variables(checkpoint, dtype, scan=True)
    result = jax.jit(lambda v, a: model.apply(v, **a, **options))(variables, arrays)
    expected = numpy_outputs(expected)
    for name, array in numpy_outputs(result).items():
        # Its softmax is in float32 even so, and may be compiled to round otherwise.
        assert distance(array, expected[name]) < 1e-6, name


def save_activations(
    config: Mapping[str, Any],
    checkpoint: Path,
    inputs: Mapping[str, Any],
    output: Path,
    modules: bool = True,
) -> None:
    """Runs a case in both precisions and writes its activations file, modules or outputs alone."""
    reference = run(config, checkpoint, inputs, np.float64)
    single = run(config, checkpoint, inputs, np.float32)
    if not modules:
        reference = {path: array for path, array in reference.items() if path.startswith(OUTPUT)}
    half = run(config, checkpoint, inputs, jnp.bfloat16)
    arrays = {f"input/{key}": np.asarray(value) for key, value in inputs.items()}
    for path, array in reference.items():
        arrays[f"distance/{path}"] = np.float64(distance(single[path], array))
        if path.startswith(OUTPUT):
            arrays[f"float64/{path}"] = array
            arrays[f"float32/{path}"] = single[path]
            arrays[f"cosine/{path}"] = np.float64(least_cosine(half[path], array))
        else:  # Rounded to 24 bits, a thirtieth of the least distance that counts, it takes half.
            arrays[f"float64/{path}"] = array.astype(np.float32)
    np.savez_compressed(output, **arrays)


def cotangents(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Fixed weights for the outputs of a model: the loss is their weighted sum."""
    return [
        np.random.RandomState(SEED + i).standard_normal(shape).astype(np.float32)
        for i, shape in enumerate(shapes)
    ]


def save_gradients(
    config: Mapping[str, Any], checkpoint: Path, inputs: Mapping[str, Any], output: Path
) -> None:
    """Writes the gradients of a weighted sum of the outputs, by key in the checkpoint."""
    gradients = {}
    for dtype in (np.float64, np.float32):
        with jax.enable_x64(dtype == np.float64):
            model = flax_model(config, dtype, scan=True)
            variables = read_variables(checkpoint, dtype, scan=True)
            arrays = {k: cast(v, dtype) for k, v in inputs.items() if isinstance(v, np.ndarray)}

            def outputs(variables: Any, model: Any = model, arrays: Any = arrays) -> list[Any]:
                result = model.apply(variables, **arrays)
                return list(result[:-1]) if isinstance(result, tuple) else [result]

            weights = cotangents([array.shape for array in jax.eval_shape(outputs, variables)])

            def loss(variables: Any, f: Any = outputs, weights: Any = weights) -> Any:
                return sum((a * b).sum() for a, b in zip(f(variables), weights, strict=True))

            tree = jax.jit(jax.grad(loss))(variables)
            leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
            gradients[dtype] = {
                "/".join(part.key for part in path): np.asarray(leaf) for path, leaf in leaves
            }
    saved = {f"input/{key}": np.asarray(value) for key, value in inputs.items()}
    saved |= {f"cotangent/{i}": weight for i, weight in enumerate(weights)}
    for key, reference in gradients[np.float64].items():
        saved[f"float64/{key}"] = reference
        saved[f"distance/{key}"] = np.float64(distance(gradients[np.float32][key], reference))
    np.savez_compressed(output, **saved)


# One step of training each of these, from its plain case: what is trained, and on what.
TRAINED = {
    "classifier_mild": ("softmax", "sigmoid"),
    "clip_mild": ("contrastive",),
}
TRAINED_TEXT = [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1], [0] * 6, [0, 0, 0, 0, 1, 1]]
LEARNING_RATE, WEIGHT_DECAY, TEMPERATURE = 1e-3, 0.1, 0.07


def training_inputs(kind: str, classes: int) -> dict[str, np.ndarray]:
    """A batch to train on."""
    batch = dict(inputs=video(4, 4, 18))
    labels = np.array([3, 0, classes - 1, 3], np.int32)
    if kind == "softmax":
        return batch | dict(targets=labels)
    if kind == "sigmoid":
        hot = np.eye(classes, dtype=np.float32)
        return batch | dict(targets=hot[labels] + np.roll(hot[labels], 2, axis=1))
    return batch | text(TRAINED_TEXT)


def save_training_step(
    config: Mapping[str, Any], checkpoint: Path, kind: str, output: Path
) -> None:
    """Writes the loss, its gradients and the parameters after a step of Adam, by key.

    The classifiers' encoder is frozen; of the video-text model all is trained, with a learned
    temperature and with weight decay of matrices.
    """
    inputs = training_inputs(kind, config.get("num_classes", 0))
    saved = {f"input/{key}": array for key, array in inputs.items()}
    for dtype in (np.float64, np.float32):
        with jax.enable_x64(dtype == np.float64):
            model = flax_model(config, dtype, scan=True)
            variables = read_variables(checkpoint, dtype, scan=True)
            arrays = {key: cast(array, dtype) for key, array in inputs.items()}
            targets = arrays.pop("targets", None)
            params = dict(variables["params"])
            frozen = {"encoder": params.pop("encoder")} if kind != "contrastive" else {}
            if kind == "contrastive":
                params["log_scale"] = jnp.asarray(-np.log(TEMPERATURE), dtype)

            def loss(
                params: Any, model=model, arrays=arrays, targets=targets, frozen=frozen
            ) -> Any:
                params = dict(params)
                scale = params.pop("log_scale", None)
                first, second, *_ = model.apply({"params": params | frozen}, **arrays)
                if scale is None:
                    if kind == "softmax":
                        return optax.softmax_cross_entropy_with_integer_labels(
                            first, targets
                        ).mean()
                    return optax.sigmoid_binary_cross_entropy(first, targets).mean()
                logits = jnp.exp(scale) * first @ second.T
                return (
                    sum(
                        optax.softmax_cross_entropy_with_integer_labels(
                            each, jnp.arange(len(each))
                        ).mean()
                        for each in (logits, logits.T)
                    )
                    / 2
                )

            if kind == "contrastive":
                decayed = jax.tree.map_with_path(is_matrix, params)
                optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, mask=decayed)
            else:
                optimizer = optax.adam(LEARNING_RATE)
            value, gradients = jax.jit(jax.value_and_grad(loss))(params)
            updates, _ = optimizer.update(gradients, optimizer.init(params), params)
            saved[f"{np.dtype(dtype).name}/loss"] = np.asarray(value)
            if dtype == np.float32:
                continue
            after = optax.apply_updates(params, updates)
            for what, tree in (("gradient", gradients), ("after", after)):
                for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
                    key = "/".join(("params", *(part.key for part in path)))
                    saved[f"{what}/{key}"] = np.asarray(leaf, np.float32)
    np.savez_compressed(output, **saved)


def is_matrix(path: Any, leaf: Any) -> bool:
    """Whether a parameter, whose layers may be stacked, is a matrix in MLX: no bias, no scale."""
    names = [part.key for part in path]
    return names[-1] not in ("b", "bias", "scale", "per_dim_scale", "log_scale")


def generate(names: list[str]) -> None:
    """Makes the folders of these models again."""
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
    """Features (B, S, D) of one token in 127, which meets every frame; embeddings as they are."""
    return features[:, ::127] if features.ndim == 3 and features.shape[1] > 127 else features


def own_activations(checkpoint: Path, config: str | None, output: Path) -> None:
    """Writes the activations of someone's own checkpoint on a random clip and text."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", nargs="?", type=Path, help="a Flax .npz, stacks scanned")
    parser.add_argument("--only", choices=MODELS, help="make one of the small models again")
    parser.add_argument("--config", help="a configuration's name, or the path of a config.json")
    parser.add_argument("-o", "--output", type=Path, help="the activations file to write")
    parser.add_argument("--full-size", action="store_true", help="make full_size.npz again")
    arguments = parser.parse_args()
    if arguments.full_size:
        generate_full_size()
    elif arguments.checkpoint is None:
        generate([arguments.only] if arguments.only else list(MODELS))
    elif arguments.output is None:
        parser.error("say with -o where to write the activations")
    else:
        own_activations(arguments.checkpoint, arguments.config, arguments.output)


if __name__ == "__main__":
    main()
