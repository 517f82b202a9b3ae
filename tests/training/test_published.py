"""The directory that a training leaves."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from coloured_clips import (
    contents_of_model,
    numbers_of,
)

import videoprism_mlx as vp
from videoprism_mlx.errors import CheckpointError
from videoprism_mlx.weights.directory import publish
from videoprism_mlx.weights.labels import Labels, load_labels

pytest_plugins = ["classifier_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")


def test_what_is_published_replaces_what_was(backbone: Path, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    (directory / "training").mkdir(parents=True)
    (directory / "training" / "state").write_text("kept")
    model = vp.load_model(backbone)
    publish(model, directory, {"labels.json": "one"}, source={"from": "here"})
    assert numbers_of(directory).keys() == numbers_of(backbone).keys()
    model.spatial_ln.weight = mx.zeros(24)
    publish(model, directory, {"labels.json": "two"})
    assert (directory / "labels.json").read_text() == "two"
    assert not numbers_of(directory)["spatial_ln.weight"].any()
    assert "source" not in json.loads((directory / "config.json").read_text())
    assert (directory / "training" / "state").read_text() == "kept"
    names = {path.name for path in directory.iterdir()}
    assert names == {"config.json", "model.safetensors", "labels.json", "training"}


def test_what_cannot_be_published_leaves_what_was(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = vp.load_model(backbone)
    publish(model, tmp_path / "out", {"labels.json": "one"})
    before = contents_of_model(tmp_path / "out")

    def full(*arguments: Any) -> None:
        raise RuntimeError("[write] Unable to write")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="make room"):
        patched.setattr(mx, "save_safetensors", full)
        publish(model, tmp_path / "out", {"labels.json": "two"})
    assert contents_of_model(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("{", "labels.json does not contain valid class names"),
        ("[]", "labels.json does not contain valid class names"),
        ('{"labels": ["a", "b"]}', "does not contain valid class names: 'multi_label'"),
        ('{"labels": ["a", 2], "multi_label": false}', "the name of class 1 is 2"),
        ('{"labels": ["a", "b"], "multi_label": false}', "names 2 classes; the model has 3"),
    ],
)
def test_labels_that_are_damaged(labels: str, message: str, tmp_path: Path) -> None:
    assert load_labels(tmp_path, 2) == Labels(("class 0", "class 1"))
    (tmp_path / "labels.json").write_text(labels)
    with pytest.raises(CheckpointError, match=message):
        load_labels(tmp_path, 3)
