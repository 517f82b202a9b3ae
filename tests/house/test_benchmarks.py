"""The benchmarks count right, and compare what is the same work."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import quantizing
from conftest import reference_config

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import (  # noqa: E402
    cost,
    inference,
    library,
    peers,
    pipeline,
    quantization,
    scaling,
    timing,
    work,
)
from benchmarks.quantization import __main__ as all_ways  # noqa: E402
from videoprism_mlx import convert, models  # noqa: E402


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a reference model one that the benchmarks know by name."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{Path(__file__).parent}:{ROOT / 'tests'}")

    def name(reference: str) -> str:
        config = reference_config(reference)
        monkeypatch.setitem(models.CONFIGS, "videoprism_tiny", config)
        return "videoprism_tiny"

    return name


def test_products_and_bytes_are_counted() -> None:
    a, b = mx.zeros((5, 6, 7)), mx.zeros((5, 7, 8))
    counted = cost.cost_of(lambda a, b: mx.exp(a @ b).reshape(40, 6).T, {"a": a, "b": b})
    assert counted.flops == 2 * 5 * 6 * 7 * 8
    assert counted.primitives == 2 and counted.by_name == {"Matmul": 1, "Exp": 1}
    assert counted.bytes == 4 * (a.size + b.size + 3 * 5 * 6 * 8)
    assert counted.intensity == counted.flops / counted.bytes


@pytest.mark.parametrize("reference", ["encoder_mild", "clip_mild"])
def test_the_cost_of_a_model(reference: str, tiny: Callable[[str], str]) -> None:
    name = tiny(reference)
    model, inputs = work.model_of(name), work.inputs_of(name)
    ours, plain = cost.model_cost(model, inputs), cost.model_cost(model, inputs, plainly=True)
    layer = 2 * (4 * 24 * 24 + 2 * 24 * 40)  # FLOPs a token, and what attention adds.
    spatial = 2 * 36 * (layer + 2 * 2 * 9 * 24)
    temporal = (2 if reference == "encoder_mild" else 1) * 36 * (layer + 2 * 2 * 4 * 24)
    encoder = 2 * 36 * 108 * 24 + spatial + temporal
    if reference == "encoder_mild":
        assert ours.flops == plain.flops == encoder
    else:
        assert encoder < ours.flops < plain.flops
    assert ours.bytes < plain.bytes
    capped, masked = ours.by_name["capped exp"], ours.by_name.get("Tanh", 0)  # Texts are masked.
    assert capped > 0 and plain.by_name["Tanh"] == capped + masked


def test_texts_are_padded() -> None:
    texts = work.texts_of(100, [3, 8], padded=10)
    assert (texts["text_paddings"] == 0).sum(axis=1).tolist() == [3, 8]
    assert np.all((texts["text_token_ids"] > 0) == (texts["text_paddings"] == 0))


def test_ratios_are_of_each_turn() -> None:
    seconds = {"a": [1.0, 2.0, 9.0], "b": [2.0, 1.0, 3.0]}
    assert timing.ratios(seconds, "a", "b") == {"median": 2.0, "least": 0.5, "most": 3.0}


def test_inference_is_measured_and_drawn(tiny: Callable[[str], str], tmp_path: Path) -> None:
    row = inference.measure(tiny("clip_mild"), "float32", batch=2, rounds=2, rate=1e9)
    assert row["least"] <= row["seconds"] <= row["most"]
    assert row["clips_per_second"] == pytest.approx(2 / row["seconds"])
    assert 0 < row["weights_gb"] <= row["peak_gb"]
    inference.draw([row], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert inference.product_rate("float32", rounds=1) > 1e8


def test_scales_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "RESULTS", tmp_path / "results")
    scaling.draw("frames", "frames", [{"frames": 1, "seconds": 0.1, "peak_gb": 0.2}])
    assert (tmp_path / "results/scaling_frames.png").exists()
    point = scaling.measured(lambda: mx.eval(mx.zeros((100, 100)) + 1), 3)
    assert point["seconds"] > 0 and point["peak_gb"] > 0


def make_same(config: dict[str, Any], checkpoint: Path) -> peers.Forward:
    """A peer that does the same work."""
    return peers.make_mlx(config, checkpoint)


def make_other(config: dict[str, Any], checkpoint: Path) -> peers.Forward:
    """A peer that does not."""
    forward = peers.make_mlx(config, checkpoint)
    return lambda inputs: {name: array * 1.1 for name, array in forward(inputs).items()}


def make_missing(config: dict[str, Any], checkpoint: Path) -> peers.Forward:
    """A peer that is not installed."""
    raise ImportError("no such package")


@pytest.mark.slow
def test_peers_take_turns_and_are_compared(
    tiny: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"test_benchmarks:make_{kind}" for kind in ("same", "other", "missing")]
    figures = peers.compare(tiny("encoder_mild"), ["mlx", "mlx-plain", *names], rounds=2)
    assert list(figures) == ["mlx", "mlx-plain", *names[:2]]
    for row in figures.values():
        assert row["seconds"] > 0 and row["resident_gb"] > 0
        assert row["to_ours"]["least"] <= row["to_ours"]["median"] <= row["to_ours"]["most"]
    assert figures["mlx-plain"]["distance"] < 1e-5
    assert figures[names[0]]["distance"] == 0
    assert figures[names[1]]["distance"] == pytest.approx(0.1, rel=0.01)
    said = capsys.readouterr().err
    assert f"{names[1]} computes something else" in said
    assert f"{names[2]} is left out: no such package" in said


def test_a_library_is_filled_and_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "AT_ONCE", 4)
    monkeypatch.setattr(library, "QUERIES", 20)
    monkeypatch.setattr(library, "ONE_BY_ONE", 2)
    where = str(tmp_path / "library")
    filled = library.fill(where, 400, 16)
    assert filled["index_bytes_a_moment"] == 0 and filled["bytes_a_moment"] > library.PICTURE
    answer = library.search(where, 400, 16)
    assert answer.pop("found") == library.nearest(400, 16).tolist()
    assert all(value > 0 for value in answer.values())
    more = library.add_more(where, 400, 16)
    assert 0 < more["one_more_seconds"] <= more["one_more_slowest"]
    assert library.peak_bytes() > 1e7


def test_pipelines_give_the_same_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "SIZES", ("64x36", "48x48"))
    config = models.get_config(models.DEMO_MODEL)
    checkpoint = convert.draw_checkpoint(config, tmp_path / "checkpoint.npz", gain=1.0)
    clips = pipeline.draw_all(tmp_path, 2)
    seconds, vectors = pipeline.make_ours(config, checkpoint, clips)()
    assert seconds > 0 and vectors is not None and vectors.shape == (2, config["model_dim"])
    _, alone = pipeline.make_model(config, checkpoint, clips)()
    assert alone is not None and pipeline.alike(vectors, alone) == pytest.approx(1, abs=1e-5)
    seconds, nothing = pipeline.make_reading(config, checkpoint, clips)()
    assert seconds > 0 and nothing is None
    ours = {"to_the_longer_alone": {"median": 1.1}}
    slow = {"to_ours": {"median": 0.9}}
    assert pipeline.is_within({"ours": ours})
    assert not pipeline.is_within({"ours": ours, "transformers": slow})


def test_ways_to_store_a_model_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(models.CONFIGS, "videoprism_small", quantizing.CONFIG)
    load = quantization.quality.drawn_model("videoprism_small", tmp_path, 1.0)
    names = ["float32", "8 bits", "4 bits", "4 bits, 6 on average"]
    cosines = quantization.quality.compare(load, names, [0])
    assert list(cosines) == names[1:]
    assert cosines["8 bits"].keys() == {
        "spatial_features", "tokens", "frames", "pooled", "embedding", "text embedding"
    }  # fmt: skip
    for feature in cosines["8 bits"]:
        eight, six, four = (cosines[name][feature] for name in (names[1], names[3], names[2]))
        assert 1 > eight > four and eight > six, feature

    found = quantization.cost.compare("videoprism_small", load, names, rounds=1)
    whole, eight, four = (found[name] for name in names[:3])
    assert whole["bytes"] > eight["bytes"] > four["bytes"]
    assert eight["held"] == pytest.approx(eight["bytes"], rel=0.2)
    assert four["peak"] > four["held"] and eight["seconds"]["median"] > 0
    assert all_ways.merged({"a": {"b": 1}}, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}

    monkeypatch.setattr(quantization.search, "HELD_OUT", 6)
    monkeypatch.setattr(quantization.search, "SETS", 1)
    recall = quantization.search.compare(["float32", "8 bits"], [0])
    assert recall["float32"].keys() == {"text to video", "video to text", "motion"}
    assert all(value > 0.5 for each in recall.values() for value in each.values())
