"""Saves gradients of the official model, and single training steps."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optax
from cases import SEED, text, video

from videoprism_mlx.convert.official import cast_floats, flax_model, libraries, read_variables
from videoprism_mlx.convert.verify import distance

jax, jnp = libraries().jax, libraries().numpy


def cotangents(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Fixed random weights for the outputs of a model. The loss is their weighted sum."""
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
            arrays = {
                k: cast_floats(v, dtype) for k, v in inputs.items() if isinstance(v, np.ndarray)
            }

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


# For these models, a training step with each of the losses is saved.
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

    In a classifier, the encoder is frozen. In the video-text model everything is trained, with a
    learned temperature, and with weight decay for matrices.
    """
    inputs = training_inputs(kind, config.get("num_classes", 0))
    saved = {f"input/{key}": array for key, array in inputs.items()}
    for dtype in (np.float64, np.float32):
        with jax.enable_x64(dtype == np.float64):
            variables = read_variables(checkpoint, dtype, scan=True)
            params = dict(variables["params"])
            frozen = {"encoder": params.pop("encoder")} if kind != "contrastive" else {}
            optimizer = optax.adam(LEARNING_RATE)
            if kind == "contrastive":
                params["log_scale"] = jnp.asarray(-np.log(TEMPERATURE), dtype)
                decayed = jax.tree.map_with_path(is_matrix, params)
                optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, mask=decayed)
            arrays = {key: cast_floats(array, dtype) for key, array in inputs.items()}
            loss = training_loss(flax_model(config, dtype, scan=True), kind, arrays, frozen)
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


def training_loss(
    model: Any, kind: str, inputs: Mapping[str, np.ndarray], frozen: Mapping[str, Any]
) -> Callable[[Any], Any]:
    """The loss as a function of the trained parameters."""
    arrays = dict(inputs)
    targets = arrays.pop("targets", None)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels

    def loss(params: Any) -> Any:
        params = dict(params)
        scale = params.pop("log_scale", None)
        first, second, *_ = model.apply({"params": params | frozen}, **arrays)
        if kind == "softmax":
            return cross_entropy(first, targets).mean()
        if kind == "sigmoid":
            return optax.sigmoid_binary_cross_entropy(first, targets).mean()
        logits = jnp.exp(scale) * first @ second.T
        both_ways = [
            cross_entropy(each, jnp.arange(len(each))).mean() for each in (logits, logits.T)
        ]
        return sum(both_ways) / 2

    return loss


def is_matrix(path: Any, leaf: Any) -> bool:
    """Whether a parameter is a matrix in MLX, not a bias or a scale. Its layers may be stacked."""
    names = [part.key for part in path]
    return names[-1] not in ("b", "bias", "scale", "per_dim_scale", "log_scale")
