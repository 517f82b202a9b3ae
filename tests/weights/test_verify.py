"""Drawn checkpoints, and comparing a model with saved activations."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from conftest import REFERENCE, reference_config

import videoprism_mlx as vp
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.weights.directory import WEIGHTS_FILE

CHECKPOINT = REFERENCE / "clip" / "checkpoint.npz"
CONFIG = reference_config("clip")


def weights(directory: Path) -> dict[str, np.ndarray]:
    return {
        name: np.array(array.astype(mx.float32))
        for name, array in mx.load(str(directory / WEIGHTS_FILE)).items()
    }


def test_drawing_is_the_same_in_both_layouts_and_on_every_run(tmp_path: Path) -> None:
    scanned = vp.convert.draw_checkpoint(CONFIG, tmp_path / "a.npz", seed=3)
    unscanned = vp.convert.draw_checkpoint(CONFIG, tmp_path / "b.npz", seed=3, scan=False)
    again = vp.convert.draw_checkpoint(CONFIG, tmp_path / "c.npz", seed=3)
    assert sha256(scanned) == sha256(again)
    for name, checkpoint in (("a", scanned), ("b", unscanned)):
        vp.convert.flax_to_mlx(checkpoint, tmp_path / name, CONFIG)
    np.testing.assert_equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_verify_names_the_first_module_that_differs(converted: Callable[[str], Path]) -> None:
    model = vp.load_model(converted("encoder"))
    layer = model.spatial_encoder.transformers_stack.x_layers[1]
    layer.self_attention.key.weight = layer.self_attention.key.weight * 1.0001
    compared = vp.convert.verify(model, REFERENCE / "encoder" / "plain.npz")
    first = next(each.path for each in compared if not each.agrees)
    assert first == "spatial_encoder/transformers_stack/x_layers_1/self_attention/key"


def test_verify_with_the_activations_of_another_model(converted: Callable[[str], Path]) -> None:
    model = vp.load_model(converted("encoder_primer_hybrid"))
    with pytest.raises(ValueError, match="activations that this model lacks"):
        vp.convert.verify(model, REFERENCE / "encoder" / "plain.npz")


def test_verify_with_what_is_no_activations_file(
    converted: Callable[[str], Path], tmp_path: Path
) -> None:
    model = vp.load_model(converted("encoder"))
    with pytest.raises(ValueError, match="contains no saved activations"):
        vp.convert.verify(model, REFERENCE / "encoder" / "checkpoint.npz")
    whole = (REFERENCE / "encoder" / "plain.npz").read_bytes()
    for spoilt in (b"", b"hello", whole[:5000]):
        (tmp_path / "x.npz").write_bytes(spoilt)
        with pytest.raises(ValueError, match=r"x.npz is damaged, .*expected saved activations"):
            vp.convert.verify(model, tmp_path / "x.npz")
