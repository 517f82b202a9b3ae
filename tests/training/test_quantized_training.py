"""Training on quantized models: adapters, and the heads of classifiers."""

import dataclasses
from pathlib import Path

import mlx.core as mx
import pytest
from captioned_clips import RECIPE, Tune
from coloured_clips import QUICK, Train
from quantizing import CLASSIFIER, CONFIG, checkpoint, directory, parameters

import videoprism_mlx as vp
from videoprism_mlx.training.retrieval import Tuning
from videoprism_mlx.weights.directory import read_config
from videoprism_mlx.weights.quantize.files import quantize_to_directory

pytest_plugins = ["classifier_fixtures", "retrieval_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture
def quantized(tmp_path: Path, spm_model: Path) -> Path:
    """A quantized video-text model with a tokenizer."""
    flax = checkpoint(tmp_path)
    vp.convert.flax_to_mlx(flax, tmp_path / "dense", CONFIG, tokenizer=spm_model)
    return quantize_to_directory(tmp_path / "dense", tmp_path / "q", 4).output


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_adapters_are_trained(dtype: str, tune: Tune, pairs: Path, quantized: Path) -> None:
    tuning = Tuning(rank=2, micro_batch_size=2, dtype=dtype)
    recipe = dataclasses.replace(RECIPE, epochs=8, batch_size=5)
    tuned = tune(model=quantized, tuning=tuning, recipe=recipe, val=pairs)
    losses = [epoch["loss"] for epoch in tuned.history]
    assert losses[-1] < 0.9 * losses[0]
    base = vp.load_model(quantized)
    before = parameters(base)
    model = vp.load_adapters(base, tuned.directory)
    for name, array in before.items():  # In bfloat16 too, the scales stay as they were stored.
        assert mx.array_equal(parameters(model)[name], array).item(), name
    if dtype == "float32":
        model, processor = vp.load(quantized, adapters=tuned.directory)
        report = vp.evaluate_retrieval(model, processor, vp.read_captions(pairs))
        for key in ("text_to_video/recall@1", "video_to_text/recall@1"):
            assert report["metrics"][key] == tuned.metrics[key]


def test_packed_weights_cannot_be_trained(tune: Tune, quantized: Path) -> None:
    with pytest.raises(vp.VideoPrismError, match=r"is quantized, so only adapters can be trained"):
        tune(model=quantized, tuning=Tuning())


def test_the_head_of_a_classifier(train: Train, tmp_path: Path) -> None:
    dense = directory(tmp_path, CLASSIFIER | dict(num_classes=3))
    quantize_to_directory(dense, tmp_path / "q", 8, 32)
    base = parameters(vp.load_model(tmp_path / "q"))
    for model, output in ((tmp_path / "q", "first"), (tmp_path / "first", "second")):
        trained = train(output, model=model, recipe=QUICK, cache=tmp_path / "cache")
        found = parameters(vp.load_model(trained.directory))
        said = read_config(trained.directory)["quantization"]
        assert said["projection.linear"] is False
        for name, array in found.items():
            if name.startswith("encoder."):
                assert mx.array_equal(array, base[name]).item(), name
            else:
                assert array.dtype == mx.float32, name
