"""What the models say of themselves: configuration, type, towers, features."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from conftest import reference_config
from mlx.utils import tree_flatten

import videoprism_mlx as vp
from videoprism_mlx.encoders import VideoPrismModel

NAMES = ("encoder", "clip", "classifier", "text")


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_is_the_given_one(name: str) -> None:
    model = vp.get_model(reference_config(name))
    assert model.has_config and model.config == reference_config(name)


def test_a_model_made_without_one_has_no_configuration() -> None:
    model = vp.TextEncoder(model_dim=24, num_layers=1, mlp_dim=40, num_heads=4)
    assert not model.has_config
    with pytest.raises(vp.VideoPrismError, match="expected a model from get_model"):
        _ = model.config


def test_changing_what_config_returns_changes_nothing_else() -> None:
    given = reference_config("classifier")
    model = vp.get_model(given)
    expected = reference_config("classifier")
    given["encoder_params"]["num_heads"] = 1
    model.config["encoder_params"]["num_heads"] = 2
    model.config["num_classes"] = 3
    model.encoder.config["num_heads"] = 4
    assert model.config == expected
    assert model.encoder.config == {"model": "FactorizedEncoder", **expected["encoder_params"]}


@pytest.mark.parametrize("name", ["clip", "classifier"])
def test_the_encoder_inside_builds_from_its_own_configuration(name: str) -> None:
    encoder = vp.get_model(reference_config(name)).video_encoder
    again = vp.get_model(encoder.config)
    shapes = [
        {path: array.shape for path, array in tree_flatten(each.parameters())}
        for each in (encoder, again)
    ]
    assert shapes[0] == shapes[1]


def same(first: VideoPrismModel, second: VideoPrismModel) -> None:
    """Asserts that two models are of one class and have equal parameters and configurations."""
    assert type(first) is type(second) and first.config == second.config
    arrays = [dict(tree_flatten(each.parameters())) for each in (first, second)]
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(np.array(array), np.array(arrays[1][name]), err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles_keep_everything(name: str, converted: Callable[[str], Path]) -> None:
    model = vp.load_model(converted(name))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        same(model, copied)
        assert copied.directory == model.directory
        copied.describe(reference_config(name) | {"source": "another"})
        assert model.config == reference_config(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_is_no_part_of_the_module_tree(name: str) -> None:
    model = vp.get_model(reference_config(name))
    paths = [path for path, _ in tree_flatten(dict(model), is_leaf=lambda _: False)]
    assert not [path for path in paths if "settings" in path or "config" in path]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype(name: str, dtype: str) -> None:
    assert vp.get_model(reference_config(name), dtype=dtype).dtype == getattr(mx, dtype)


def test_what_each_kind_of_model_can_do() -> None:
    said = {}
    for name in NAMES:
        model = vp.get_model(reference_config(name))
        said[name] = (model.towers, model.takes_text, model.num_classes, model.default_feature)
    assert said == {
        "encoder": (("video",), False, None, "pooled"),
        "clip": (("video", "text"), True, None, "embedding"),
        "classifier": (("video",), False, 7, "pooled"),
        "text": (("text",), False, None, "pooled"),
    }


@pytest.mark.parametrize("name", ["encoder", "clip", "classifier"])
def test_derive_gives_the_features_it_names(name: str) -> None:
    model = vp.get_model(reference_config(name))
    assert tuple(model.derive(mx.zeros((1, 36, 24)), 4)) == model.feature_names


def test_a_text_encoder_says_what_to_load_instead() -> None:
    model = vp.get_model(reference_config("text"))
    with pytest.raises(vp.VideoPrismError, match="TextEncoder has no video encoder; load a model"):
        _ = model.video_encoder
    with pytest.raises(vp.VideoPrismError, match="TextEncoder takes no video; load a model"):
        model.derive(mx.zeros((1, 4, 24)), 4)
