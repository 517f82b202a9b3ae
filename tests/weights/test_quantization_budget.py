"""A budget of bits: what a layer costs, which layers are kept, and what is recorded."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from quantizing import CLASSIFIER, ENCODER, PATCHES, directory, parameters, same_parameters

import videoprism_mlx as vp
from videoprism_mlx.weights.directory import read_config
from videoprism_mlx.weights.quantize.budget import (
    average_bits,
    drawn_texts,
    kept_at_most,
    layer_costs,
    read_clips,
)
from videoprism_mlx.weights.quantize.layers import packings_of
from videoprism_mlx.weights.quantize.model import plan
from videoprism_mlx.weights.quantize.settings import Packing, layers_in

FEW, MANY = Packing(64, 4), Packing(64, 8)
RANDOM = np.random.RandomState(0)
VIDEOS = [RANDOM.randint(0, 256, (5, 18, 18, 3)).astype(np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directory(tmp_path_factory.mktemp("dense"))


def test_the_cost_of_a_layer(dense: Path) -> None:
    model = vp.load_model(dense)
    before = parameters(model)
    clips = read_clips(model, VIDEOS)
    assert [clip.shape for clip in clips] == 3 * [(4, 18, 18, 3)]
    video = "vision_encoder.temporal_encoder.transformers_stack.x_layers.0.self_attention.post"
    text = "text_encoder.unimodal_transformer.x_layers.1.ff_layer.ffn_layer1.linear"
    costs = layer_costs(model, {video: FEW, text: FEW}, clips)
    assert same_parameters(model, vp.load_model(dense))

    ids = drawn_texts(64)
    texts = dict(text_token_ids=ids, text_paddings=np.zeros(ids.shape))
    for path, index, inputs in ((video, 0, {"inputs": np.stack(clips)}), (text, 1, texts)):
        whole = np.array(model(**inputs)[index], np.float64)
        settings = FEW._asdict()
        rounded = mx.dequantize(*mx.quantize(before[f"{path}.weight"], **settings), **settings)
        other = vp.load_model(dense)
        other.load_weights([(f"{path}.weight", rounded)], strict=False)
        moved = np.array(other(**inputs)[index], np.float64) - whole
        expected = ((moved**2).sum(-1) / (whole**2).sum(-1)).mean()
        assert expected > 1e-6
        assert costs[path] == pytest.approx(expected, rel=1e-2)


def test_the_layers_that_cost_most_are_kept(dense: Path) -> None:
    model = vp.load_model(dense)
    packings = plan(model)
    shapes = layers_in({name: array.shape for name, array in parameters(model).items()})
    random = np.random.RandomState(1)
    costs = {path: float(random.uniform()) for path, each in packings.items() if each}
    sizes = {path: int(np.prod(shapes[path])) for path in costs}
    for budget in (4, 4.3, 5, 6.5, 8):
        chosen = kept_at_most(model, packings, costs, budget)
        kept = {path for path, each in chosen.items() if each == MANY}
        bits = sum(sizes[path] * (8 if path in kept else 4) for path in sizes)
        assert average_bits(model, chosen) == bits / sum(sizes.values()) <= budget
        # Nothing that costs more for its size would have fitted instead of what was kept.
        left = budget * sum(sizes.values()) - bits
        for path in costs.keys() - kept:
            worth = costs[path] / sizes[path]
            cheaper = [one for one in kept if costs[one] / sizes[one] < worth]
            assert 4 * sizes[path] > left + 4 * sum(sizes[one] for one in cheaper)
        assert chosen[PATCHES] is None
    assert kept_at_most(model, packings, costs, 4) == packings


def test_quantized_within_a_budget(dense: Path, tmp_path: Path) -> None:
    said: dict[str, Any] = {"contrastive_vision_pooler": 6, "text_encoder.token_emb": False}
    model = vp.quantize(vp.load_model(dense), layers=said, budget_bits=5, calibration=VIDEOS)
    packings = packings_of(model)
    assert {Packing(64, 6), FEW, MANY, None} == set(packings.values())
    assert packings["contrastive_vision_pooler.pooling_attention.key"] == Packing(64, 6)
    again = vp.quantize(vp.load_model(dense), layers=said, budget_bits=5, calibration=VIDEOS)
    assert same_parameters(model, again)

    vp.save_model(model, tmp_path / "q")
    found = read_config(tmp_path / "q")["quantization"]
    assert found["budget_bits"] == 5 and found["calibration"]["videos"] == 3
    kept = {path for path, each in packings.items() if each == MANY}
    assert {path for path, each in found.items() if isinstance(each, dict) and
            each.get("bits") == 8} == kept  # fmt: skip
    loaded = vp.load_model(tmp_path / "q")
    assert packings_of(loaded) == packings
    vp.save_model(loaded, tmp_path / "again")
    assert read_config(tmp_path / "again")["quantization"] == found
    vp.save_model(vp.dequantize(loaded), tmp_path / "d")
    assert "quantization" not in read_config(tmp_path / "d")


def test_it_is_better_than_chance(dense: Path) -> None:
    """At the same size, the chosen layers are a better choice than those that cost least."""
    whole = vp.load_model(dense)
    clips = np.stack(read_clips(whole, VIDEOS))
    packings = plan(whole)
    costs = layer_costs(whole, {path: each for path, each in packings.items() if each}, clips)
    errors = []
    for sign in (1, -1):
        model = vp.load_model(dense)
        signed = {path: sign * cost for path, cost in costs.items()}
        chosen = kept_at_most(whole, packings, signed, 5)
        said = {path: False if each is None else each.bits for path, each in chosen.items()}
        vp.quantize(model, layers=said)
        errors.append(float(((model(clips)[0] - whole(clips)[0]) ** 2).sum()))
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize(
    "config",
    [
        dict(model="FactorizedEncoder", **ENCODER),
        CLASSIFIER,
        dict(model="TextEncoder", vocabulary_size=64, model_dim=64, num_layers=1, num_heads=4,
             mlp_dim=64),
    ],
)  # fmt: skip
def test_of_each_kind_of_model(config: dict[str, Any], tmp_path: Path) -> None:
    model = vp.load_model(directory(tmp_path, config))
    vp.quantize(model, 4, 32, budget_bits=5.5, calibration=VIDEOS[:1])
    assert {each.bits for each in packings_of(model).values() if each} == {4, 8}


def test_a_budget_above_what_is_said(dense: Path) -> None:
    model = vp.load_model(dense)
    with pytest.raises(vp.VideoPrismError, match=r"budget_bits is 5; expected .*before any is ke"):
        vp.quantize(model, layers={"vision_encoder": 8}, budget_bits=5, calibration=VIDEOS)
    assert not any(packings_of(model).values())
