"""The parameters of a configuration, without its layers; and models that have no layers."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conftest import REFERENCE, reference_config

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.errors import CheckpointError
from videoprism_mlx.models import CONFIGS, build, get_config
from videoprism_mlx.weights.outline import outline, parameter_shapes

# What Flax makes for models with empty stacks of layers, by tests/reference/generate.py.
NO_LAYERS = json.loads((REFERENCE / "no_layers.json").read_text())
MANY = {f"num_{kind}_layers": 1000 for kind in ("spatial", "temporal", "auxiliary", "unimodal")}


@pytest.mark.parametrize("config", [*CONFIGS, *(one["config"] for one in NO_LAYERS)], ids=str)
def test_the_outline_is_that_of_the_whole_model(config: Any) -> None:
    config = get_config(config)
    expected = parameter_shapes(build(config))
    assert list(outline(config).shapes.items()) == list(expected.items())


def test_it_leaves_the_random_numbers_alone() -> None:
    drawn = []
    for look in (lambda: None, lambda: outline(get_config("videoprism_lvt_v1_base"))):
        mx.random.seed(2**40 + 7)
        mx.random.normal((3,))
        look()
        drawn.append(mx.random.normal((3,)).tolist())
    assert drawn[0] == drawn[1]


def test_a_thousand_layers_are_refused_at_once(
    converted: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They took 8 to 18 s to build. Here, names are compared: 0.5 s."""
    checkpoint, config = REFERENCE / "clip" / "checkpoint.npz", reference_config("clip") | MANY
    vp.convert.flax_to_mlx(checkpoint, tmp_path / "m", reference_config("clip"))
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))

    def info() -> None:
        assert main(["info", str(tmp_path / "m")]) == 2
        raise CheckpointError(capsys.readouterr().err)

    for use in (
        lambda: vp.load_model(tmp_path / "m"),
        lambda: vp.load(tmp_path / "m"),
        lambda: vp.convert.flax_to_mlx(checkpoint, tmp_path / "n", config),
        lambda: vp.convert.mlx_to_flax(tmp_path / "m", tmp_path / "x.npz"),
        info,
    ):
        started = time.process_time()
        with pytest.raises(
            CheckpointError, match=r"does not fit the model, [\d,]+ parameters are wr"
        ):
            use()
        assert time.process_time() - started < 2


@pytest.mark.parametrize("saved", NO_LAYERS, ids=lambda saved: saved["config"]["model"])
def test_stacks_without_layers_are_exported_as_flax_has_them(saved: Any, tmp_path: Path) -> None:
    mx.random.seed(3)
    vp.save_model(vp.get_model(saved["config"]), tmp_path / "m")
    vp.convert.mlx_to_flax(tmp_path / "m", tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as archive:
        arrays = {key: [str(archive[key].dtype), *archive[key].shape] for key in archive.files}
    assert arrays == saved["arrays"]
    assert any(0 in shape for shape in arrays.values())

    vp.convert.flax_to_mlx(tmp_path / "x.npz", tmp_path / "again", saved["config"])
    vp.convert.mlx_to_flax(tmp_path / "again", tmp_path / "z.npz")  # In the layout it came from.
    assert (tmp_path / "z.npz").read_bytes() == (tmp_path / "x.npz").read_bytes()
    vp.convert.mlx_to_flax(tmp_path / "m", tmp_path / "y.npz", scan=False)
    vp.convert.flax_to_mlx(tmp_path / "y.npz", tmp_path / "unscanned", saved["config"])
    weights = (tmp_path / "m" / "model.safetensors").read_bytes()
    for name in ("again", "unscanned"):
        assert (tmp_path / name / "model.safetensors").read_bytes() == weights
    with np.load(tmp_path / "y.npz") as archive:
        assert all(array.size for array in dict(archive).values())


def test_an_empty_stack_of_another_shape(tmp_path: Path) -> None:
    config = NO_LAYERS[0]["config"]
    checkpoint = vp.convert.draw_checkpoint(config, tmp_path / "x.npz")
    with np.load(checkpoint) as archive:
        arrays = dict(archive)
    key = next(key for key, array in arrays.items() if not array.size)
    arrays[key] = np.zeros((0, 5), np.float32)
    np.savez(tmp_path / "y.npz", **arrays)
    with pytest.raises(CheckpointError, match=r"1 parameter is wrong: .* shape \(0, 5\)"):
        vp.convert.flax_to_mlx(tmp_path / "y.npz", tmp_path / "m", config)
