"""Names, configurations and what they build."""

import io
import json

import mlx.core as mx
import numpy as np
import pytest
from conftest import REFERENCE, reference_config
from mlx import nn
from mlx.utils import tree_flatten

import videoprism_mlx as vp
from videoprism_mlx import models
from videoprism_mlx.convert.rules import Layout

SHAPES = {
    path.name.removesuffix(".shapes.json"): json.loads(path.read_text())
    for path in (REFERENCE / "shapes").glob("*.json")
}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_every_parameter_of_the_official_trees(name: str) -> None:
    config, _, classes = name.partition("_400")
    model = vp.get_model(config, num_classes=400 if classes or "_vc_" in name else None)
    layout = Layout(model.config)
    expected = layout.expected(layout.groups)
    assert expected == {key: tuple(shape) for key, shape in SHAPES[name].items()}


def test_there_are_shapes_of_every_size_and_family() -> None:
    assert len(SHAPES) == 7


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("videoprism_public_v1_base", 114_365_184),
        ("videoprism_public_v1_large", 353_965_056),
        ("videoprism_lvt_public_v1_base", 247_623_424),
        ("videoprism_lvt_public_v1_large", 579_877_120),
    ],
)
def test_the_released_models_have_the_published_size(name: str, parameters: int) -> None:
    arrays = tree_flatten(vp.get_model(name).parameters())
    assert sum(array.size for _, array in arrays) == parameters


def test_has_model() -> None:
    assert vp.has_model("videoprism_public_v1_base")
    assert vp.has_model("google/videoprism-lvt-large-f8r288")
    assert vp.has_model("videoprism_lvt_v1_giant")
    assert not vp.has_model("google/videoprism-huge")
    assert not vp.has_model("videoprism")


@pytest.mark.parametrize("size", ["base", "large", "giant"])
def test_every_configuration_builds(size: str) -> None:
    assert isinstance(vp.get_model(f"videoprism_v1_{size}"), vp.FactorizedEncoder)
    assert isinstance(vp.get_model(f"videoprism_lvt_v1_{size}"), vp.FactorizedVideoCLIP)
    classifier = vp.get_model(f"videoprism_vc_v1_{size}", num_classes=12)
    assert isinstance(classifier, vp.FactorizedVideoClassifier)
    assert classifier.projection.linear.weight.shape[0] == 12


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'videoprism_public_v1_base'"):
        vp.get_model("videoprism_publik_v1_base")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lvt_base", "videoprism_lvt_public_v1_base"),
        ("videoprism_large", "videoprism_public_v1_large"),
        ("videoprism_v1_gaint", "videoprism_v1_giant"),
        ("tiny", None),
    ],
)
def test_models_with_weights_are_named(name: str, meant: str | None) -> None:
    with pytest.raises(ValueError) as caught:
        vp.get_model(name)
    said = str(caught.value)
    assert (f"no model is called {name!r} (did you mean {meant!r}?)" in said) == (meant is not None)
    assert all(each in said for each in [*models.RELEASES, models.DEMO_MODEL])
    assert "google/" not in said and len(said) < 400


def test_a_config_in_the_official_keywords_builds() -> None:
    config = reference_config("clip") | {"scan": True, "source": {"file": "x.npz"}}
    model = vp.get_model(config)
    assert isinstance(model, vp.FactorizedVideoCLIP)
    assert "scan" not in model.config and "source" not in model.config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_head": 4}, "no setting 'num_head' .did you mean 'num_heads'"),
        ({"model": "FactorizedEncode"}, "expected one of FactorizedEncoder"),
        ({"num_heads": "4"}, "num_heads is '4'; expected a whole number"),
        ({"num_heads": 5}, "width of 24 cannot be split over 5 heads"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"norm_policy": "before"}, "norm_policy is 'before'; expected one of pre"),
        ({"pos_emb_shape": [4, 3]}, "expected three whole numbers"),
        ({"atten_logit_cap": True}, "expected a number"),
        ({"atten_logit_cap": float("inf")}, "is inf; expected a number, 0 or above"),
        ({"atten_logit_cap": -1.0}, "is -1.0; expected a number, 0 or above"),
        ({"mlp_dim": 2**70}, "expected a whole number"),
        ({"model": ["FactorizedEncoder"]}, "expected one of FactorizedEncoder"),
        ({3: 4}, "no setting '3'"),
    ],
)
def test_a_bad_setting_is_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vp.get_model(reference_config("encoder") | change)


@pytest.mark.parametrize("name", [None, 3, ["a"]])
def test_a_name_must_be_a_string(name: object) -> None:
    with pytest.raises(TypeError, match="expected a string"):
        vp.get_model(name)


def test_a_setting_that_must_be_there() -> None:
    config = reference_config("classifier")
    del config["num_classes"]
    with pytest.raises(ValueError, match="needs the setting 'num_classes'"):
        vp.get_model(config)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_is_that_of_parameters_and_outputs(dtype: str) -> None:
    model = vp.get_model(reference_config("encoder"), dtype=dtype)
    assert {array.dtype for _, array in tree_flatten(model.parameters())} == {getattr(mx, dtype)}
    features, _ = model(np.zeros((1, 2, 18, 18, 3)))
    assert features.dtype == getattr(mx, dtype)
    assert vp.get_model(reference_config("encoder"), dtype=getattr(mx, dtype)) is not None


def test_an_unknown_dtype() -> None:
    with pytest.raises(ValueError, match="dtype is 'int8'; expected one of float32"):
        vp.get_model("videoprism_v1_base", dtype="int8")


def test_fresh_weights_have_the_deviations_of_flax() -> None:
    mx.random.seed(0)
    model = vp.get_model(
        reference_config("encoder") | {"model_dim": 192, "mlp_dim": 384, "num_heads": 4}
    )
    layer = model.spatial_encoder.transformers_stack.x_layers[0]
    deviations = [
        (layer.ff_layer.ffn_layer1.linear, 192**-0.5),
        (layer.ff_layer.ffn_layer2.linear, 384**-0.5),
        (layer.self_attention.query, (4 * 192) ** -0.5),
        (layer.self_attention.post, (4 * 192) ** -0.5),
    ]
    for linear, expected in deviations:
        assert mx.std(linear.weight).item() == pytest.approx(expected, rel=0.05)
        assert not linear.bias.any().item()


def test_mlx_quantizes_the_model_untouched() -> None:
    mx.random.seed(0)
    config = reference_config("clip") | {"model_dim": 128, "mlp_dim": 256, "vocabulary_size": 100}
    model = vp.get_model(config)
    ids, paddings = np.array([[3, 7, 9]]), np.zeros((1, 3))
    video = np.random.RandomState(0).uniform(size=(1, 4, 18, 18, 3))
    before = model(video, ids, paddings)
    nn.quantize(model, group_size=64, bits=8)
    assert isinstance(model.text_encoder.token_emb, nn.QuantizedEmbedding)
    after = model(video, ids, paddings)
    for a, b in zip(before[:2], after[:2], strict=True):
        assert (a * b).sum().item() > 0.99


def test_the_model_compiles() -> None:
    model = vp.get_model(reference_config("clip"))
    video = mx.random.uniform(shape=(1, 4, 18, 18, 3))
    ids, paddings = mx.array([[3, 7, 9]]), mx.zeros((1, 3))
    plain = model(video, ids, paddings)[:2]
    compiled = mx.compile(lambda *inputs: model(*inputs)[:2])(video, ids, paddings)
    for a, b in zip(plain, compiled, strict=True):
        assert mx.allclose(a, b, atol=1e-5).item()


def test_the_tables_are_not_shared_with_what_they_build() -> None:
    config = models.get_config("videoprism_vc_v1_base")
    config["encoder_params"]["num_heads"] = 1
    assert models.get_config("videoprism_vc_v1_base")["encoder_params"]["num_heads"] == 12


@pytest.mark.parametrize("count", ["ten", 2.5, [3]])
def test_a_number_of_classes_that_is_none(count: object) -> None:
    with pytest.raises(vp.VideoPrismError, match=r"num_classes is .*; expected a whole number"):
        vp.get_model("videoprism_vc_v1_base", num_classes=count)
    assert vp.get_model("videoprism_vc_v1_base", num_classes=np.int64(3)).num_classes == 3


def test_models_that_are_built_leave_no_keys_waiting() -> None:
    """A chain of keys that are not computed yet grew with every model, until it was too deep."""
    mx.random.seed(0)
    for _ in range(3):
        vp.get_model(reference_config("encoder"))
    drawing = io.StringIO()
    mx.export_to_dot(drawing, mx.random.state[0])
    assert "RandomBits" not in drawing.getvalue()
