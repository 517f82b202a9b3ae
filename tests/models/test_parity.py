"""Ours against the saved activations of the official Flax model. See reference/generate.py."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from conftest import CASES, MODELS, REFERENCE
from mlx import nn
from mlx.utils import tree_flatten

import videoprism_mlx as vp
from videoprism_mlx.convert.npz import Archive
from videoprism_mlx.convert.rules import Layout, Leaf
from videoprism_mlx.convert.verify import (
    FACTOR,
    FLOOR,
    OUTPUT,
    distance,
    least_cosine,
    longest_sum,
    named_outputs,
    replay,
    saved_inputs,
)
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.runtime import rounding
from videoprism_mlx.training.classifier import trained_parameters
from videoprism_mlx.training.losses import classification_loss, contrastive_gradients
from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.training.state import Parameters

# Gradients are sums over all positions, which cancel: the order of summing tells more there.
GRADIENT_FACTOR = 2 * FACTOR

Converted = Callable[[str], Path]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_module_and_output_is_as_close_to_float64_as_flax(
    name: str, case: str, converted: Converted
) -> None:
    compared = vp.convert.verify(vp.load_model(converted(name)), REFERENCE / name / f"{case}.npz")
    differing = [each for each in compared if not each.agrees]
    assert not differing, f"the first to differ is {differing[0]}; then {differing[1:]}"
    assert any(each.path.startswith(OUTPUT) for each in compared)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_same_outputs_come_back_in_the_same_shapes(
    name: str, case: str, converted: Converted
) -> None:
    with np.load(REFERENCE / name / f"{case}.npz") as saved:
        expected = {
            key.removeprefix("float32/"): saved[key].shape
            for key in saved.files
            if key.startswith("float32/")
        }
        ours = replay(vp.load_model(converted(name)), saved_inputs(saved))
    assert {key: ours[key].shape for key in ours if key.startswith(OUTPUT)} == expected


@pytest.mark.parametrize(("name", "case"), CASES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_points_the_same_way(
    name: str, case: str, dtype: str, converted: Converted
) -> None:
    model = vp.load_model(converted(name), dtype=dtype)
    with np.load(REFERENCE / name / f"{case}.npz") as saved:
        arguments = saved_inputs(saved)
        ours = replay(model, arguments)
        for key in (key for key in saved.files if key.startswith("cosine/")):
            path = key.removeprefix("cosine/")
            cosine = least_cosine(ours[path], saved[f"float64/{path}"])
            # Where logits reach the cap, parameters rounded to bfloat16 turn some rows further,
            # whatever is done with them. Flax itself is at 0.9891 there: see the next test.
            least = 0.989 if dtype == "bfloat16" and "mild" not in name else 0.999
            assert cosine >= least, f"{path}: {cosine:.5f}"


def test_bfloat16_is_no_worse_than_that_of_flax(converted: Converted) -> None:
    ratios = []
    for name, case in CASES:
        model = vp.load_model(converted(name), dtype="bfloat16")
        with np.load(REFERENCE / name / f"{case}.npz") as saved:
            ours = replay(model, saved_inputs(saved))
            for key in (key for key in saved.files if key.startswith("cosine/")):
                path = key.removeprefix("cosine/")
                turned = 1 - least_cosine(ours[path], saved[f"float64/{path}"])
                ratios.append(turned / (1 - float(saved[key])))
    assert np.exp(np.log(ratios).mean()) < 1


@pytest.mark.parametrize(
    "name", [name for name in MODELS if (REFERENCE / name / "gradients.npz").exists()]
)
def test_gradients_are_those_of_jax(name: str, converted: Converted) -> None:
    model = vp.load_model(converted(name)).train()
    layout = Layout(model.config)
    with np.load(REFERENCE / name / "gradients.npz") as saved:
        inputs = saved_inputs(saved)
        inputs.pop("return_intermediate", None)
        cotangents = [
            mx.array(saved[f"cotangent/{i}"])
            for i in range(sum(key.startswith("cotangent/") for key in saved.files))
        ]

        def loss(model: nn.Module) -> mx.array:
            result = model(**inputs)
            outputs = result[:-1] if isinstance(result, tuple) else [result]
            return sum((a * b).sum() for a, b in zip(outputs, cotangents, strict=True))

        _, tree = nn.value_and_grad(model, loss)(model)
        gradients = {path: np.array(array) for path, array in tree_flatten(tree)}
        for key, group in layout.groups.items():
            layers = [flax_gradient(each, gradients[each.name], layout.heads) for each in group]
            ours = np.stack(layers) if group[0].layer is not None else layers[0]
            reference = saved[f"float64/{key}"]
            assert ours.shape == reference.shape
            allowed = GRADIENT_FACTOR * max(float(saved[f"distance/{key}"]), FLOOR)
            assert distance(ours, reference) <= allowed, key


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, path.stem.removeprefix("training_"))
        for name in MODELS
        for path in sorted((REFERENCE / name).glob("training_*.npz"))
    ],
)
@pytest.mark.parametrize("at_once", [4, 3])
def test_a_step_of_training_is_that_of_optax(
    name: str, kind: str, at_once: int, converted: Converted
) -> None:
    model = vp.load_model(converted(name))
    layout = Layout(model.config)
    with np.load(REFERENCE / name / f"training_{kind}.npz") as saved:
        inputs = saved_inputs(saved)
        if kind == "contrastive":
            recipe = Recipe(learning_rate=1e-3, weight_decay=0.1)
            parameters = {
                "model": model.trainable_parameters(),
                "log_scale": mx.array(-np.log(0.07), mx.float32),
            }
            texts = (inputs["text_token_ids"], inputs["text_paddings"])
            pixels = 255 * inputs["inputs"]
            loss, gradients = contrastive_gradients(model, parameters, pixels, *texts, at_once)
        else:
            recipe = Recipe(learning_rate=1e-3)
            tokens, _ = model.encoder(inputs["inputs"])
            parameters = {"model": trained_parameters(model)}

            def loss_of(parameters: Parameters) -> mx.array:
                model.update(parameters["model"])
                return classification_loss(model, tokens, mx.array(inputs["targets"]))

            loss, gradients = mx.value_and_grad(loss_of)(parameters)
        after = recipe.optimizer(1).apply_gradients(gradients, parameters)

        assert abs(loss.item() - float(saved["float64/loss"])) <= 1e-5 * float(
            saved["float64/loss"]
        )
        ours = {"gradient": gradients, "after": after}
        keys = [key for key in saved.files if key.startswith(tuple(ours))]
        largest = max(np.abs(saved[key]).max() for key in keys if key.startswith("gradient"))
        assert {key.partition("/")[2] for key in keys} == set(
            flax_arrays(parameters, layout, "after")
        )
        for key in keys:
            what, _, path = key.partition("/")
            array = flax_arrays(ours[what], layout, what)[path]
            assert array.shape == saved[key].shape
            # The gradient of a key's bias is all but nothing. Then it is rounding, and so is the
            # direction of Adam's first step, which is as long as the learning rate.
            expected = np.abs(saved[f"gradient/{path}"])
            scale = max(expected.max(), 1e-3 * largest)
            if what == "gradient":
                np.testing.assert_allclose(
                    array, saved[key], rtol=0, atol=1e-4 * scale, err_msg=key
                )
            else:
                clear = expected > 1e-3 * scale
                np.testing.assert_allclose(array[clear], saved[key][clear], atol=2e-6, err_msg=key)
                np.testing.assert_allclose(array, saved[key], atol=2.1e-3, err_msg=key)


def flax_arrays(tree: Parameters, layout: Layout, what: str) -> dict[str, np.ndarray]:
    """Parameters, or gradients with regard to them, by key and in the layout of Flax."""
    arrays = {path: np.array(array) for path, array in tree_flatten(tree["model"])}
    result = {"params/log_scale": np.array(tree["log_scale"])} if "log_scale" in tree else {}
    for key, group in layout.groups.items():
        if group[0].name in arrays:
            layers = [
                flax_gradient(each, arrays[each.name], layout.heads)
                if what == "gradient"
                else each.rule.to_flax(arrays[each.name], layout.heads)
                for each in group
            ]
            result[key] = np.stack(layers) if group[0].layer is not None else layers[0]
    return result


def flax_gradient(each: Leaf, gradient: np.ndarray, heads: int) -> np.ndarray:
    """A gradient in Flax's layout. An offset from one, which `scale` is, has none."""
    return gradient if each.rule.flax_leaf == "scale" else each.rule.to_flax(gradient, heads)


@pytest.mark.parametrize("name", MODELS)
def test_the_drawn_weights_leave_nothing_untried(name: str) -> None:
    with Archive(REFERENCE / name / "checkpoint.npz") as archive:
        for key in archive.headers:
            array = archive.read(key)
            assert array.std() > 0.01, f"{key} is constant"
            assert abs(array.mean()) < 5 * array.std(), f"{key} is nearly constant"


def test_attention_logits_reach_the_cap(
    converted: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    largest: list[float] = []
    tanh = mx.tanh

    def watched(logits_over_cap: mx.array) -> mx.array:
        seen.append(mx.abs(logits_over_cap).max().item())
        return tanh(logits_over_cap)

    monkeypatch.setattr(mx, "tanh", watched)
    for name in ("encoder", "clip", "classifier", "text"):
        seen.clear()
        with np.load(REFERENCE / name / "plain.npz") as saved:
            replay(vp.load_model(converted(name)), saved_inputs(saved))
        largest.append(max(seen))
    assert min(largest) > 0.6 and max(largest) > 1, largest


@pytest.mark.slow
def test_the_full_size_video_text_model(tmp_path: Path) -> None:
    checkpoint = vp.convert.draw_checkpoint(
        "videoprism_lvt_public_v1_base", tmp_path / "flax.npz", seed=2024
    )
    with np.load(REFERENCE / "full_size.npz") as saved:
        assert sha256(checkpoint) == str(saved["sha256"]), "drawn otherwise than for Flax"
        vp.convert.flax_to_mlx(checkpoint, tmp_path / "model")
        checkpoint.unlink()
        model = vp.load_model(tmp_path / "model")

        pixels = np.random.RandomState(2024 + 1600 + 288).uniform(size=(1, 16, 288, 288, 3))
        paddings = np.array([[0] * 8 + [1] * 56, [0] * 64], np.float32)
        ids = np.random.RandomState(2024).randint(0, 32_000, paddings.shape)
        pixels = pixels.astype(np.float32)
        named = named_outputs(model(pixels, ids, paddings, return_intermediate=True))
        factor = 1.5 * rounding.growth(longest_sum(model, {"inputs": pixels}))
        expected = {key for key in saved.files if key.startswith("float64/")}
        assert expected == {f"float64/{path}" for path in named}
        for path, array in named.items():
            tokens = array[:, ::127] if array.ndim == 3 and array.shape[1] > 127 else array
            ours = distance(np.array(tokens), saved[f"float64/{path}"])
            assert ours <= factor * float(saved[f"distance/{path}"]), path
