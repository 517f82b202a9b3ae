"""What a classifier cannot be trained on."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from coloured_clips import (
    COLOURS,
    Train,
    colour_clip,
    colour_rows,
    contents,
    contents_of_model,
    listed,
)

import videoprism_mlx as vp
from videoprism_mlx.errors import CheckpointError, OutputError, TrainingError

pytest_plugins = ["classifier_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")


def test_labels_out_of_range(train: Train, clips: Path, tmp_path: Path) -> None:
    rows = colour_rows(clips)
    data = listed(tmp_path / "train.json", [*rows, (rows[0][0], 3)])
    with pytest.raises(ValueError, match=r"train.json, entry 10: label_idx is 3; expected 0 to 2"):
        train(data=data, labels=["a", "b", "c"])
    val = listed(tmp_path / "val.json", [(rows[0][0], 7)])
    with pytest.raises(ValueError, match=r"val.json, entry 1: label_idx is 7; expected 0 to 2"):
        train(val=val)
    assert not (tmp_path / "out").exists()


def test_lists_of_two_kinds(train: Train, clips: Path, tmp_path: Path) -> None:
    rows = colour_rows(clips)
    data = listed(tmp_path / "train.json", [(file, [label]) for file, label in rows])
    val = listed(tmp_path / "val.json", rows)
    with pytest.raises(ValueError, match=r"a list of classes in .*train.json and one class in"):
        train(data=data, val=val)
    with pytest.raises(
        ValueError, match=r"gives classes by number and .* by name; give the names .* with labels"
    ):
        train(data=listed(tmp_path / "x.json", rows))
    nothing = listed(tmp_path / "nothing.json", [(rows[0][0], [])])
    with pytest.raises(ValueError, match=r"no video of .*nothing.json has a label"):
        train(data=data, val=nothing)


def test_a_classifier_without_a_number_of_classes(train: Train, tmp_path: Path) -> None:
    config = {"model": "FactorizedVideoClassifier", "encoder_params": {}}
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json: .* 'num_classes'"):
        train(model=tmp_path / "damaged")


@pytest.mark.parametrize("label", [0, [0], [], [0, 1]])
def test_one_class_alone(label: Any, train: Train, clips: Path, tmp_path: Path) -> None:
    data = listed(tmp_path / "train.json", [(file, label) for file, _ in colour_rows(clips)])
    with pytest.raises(ValueError, match="labels of the 9 videos to train on do not differ"):
        train(data=data, val=None)


def test_classes_without_a_video_are_named(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "videoprism_mlx"):
        train(labels=["blue", "puce", "green", "red", "mauve"])
    assert "no video to train on for 2 of 5 classes, which will not be learned: puce, mauve" in (
        caplog.text
    )


def test_validating_on_what_is_trained_on_is_told(
    train: Train,
    clips: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "videoprism_mlx"):
        train(val=clips / "train")
    assert "9 of 9 videos to validate on are trained on as well" in caplog.text


def test_bad_videos_are_all_named(
    train: Train,
    with_bad: dict[str, Path],
    tmp_path: Path,
    reads: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = dict(**with_bad, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"4 of 16 videos cannot be used.*--skip-bad"):
        train(**options)
    said = capsys.readouterr().err
    for name, why in (("empty", "is empty"), ("text", "is text"), ("gone", "no such file")):
        assert any(f"{name}.mp4" in line and why in line for line in said.splitlines())
    assert not (tmp_path / "out").exists()
    reads.clear()
    with pytest.raises(ValueError, match="4 of 16"):
        train(**options)
    assert set(reads) == {"empty.mp4", "text.mp4"}  # The others are kept.


def test_bad_videos_can_be_left_out(
    train: Train,
    with_bad: dict[str, Path],
    clips: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "videoprism_mlx"):
        trained = train("out", **with_bad, skip_bad=True)
    assert len(trained.skipped) == 4 and trained.metrics["skipped"] == trained.skipped
    assert trained.metrics["videos"] == {"training": 9, "validation": 3}
    # The one video of class 3 is among them.
    unseen = "no video to train on for 1 of 4 classes, which will not be learned: class 3"
    assert unseen in caplog.text
    rows = colour_rows(clips)
    good = train(
        "good",
        data=listed(tmp_path / "good.json", rows),
        val=listed(tmp_path / "good_val.json", rows[::4]),
        labels=[f"class {number}" for number in range(4)],
    )
    before, after = (contents(one.directory)["model.safetensors"] for one in (trained, good))
    assert before == after

    colour_clip(tmp_path / "empty.mp4", COLOURS["blue"])  # Mended, it would be another run.
    with pytest.raises(TrainingError, match=r"usable.training was"):
        train("out", **with_bad, skip_bad=True)


def test_no_video_that_can_be_used(train: Train, tmp_path: Path) -> None:
    data = listed(tmp_path / "train.json", [("gone.mp4", 0), ("lost.mp4", 1)])
    with pytest.raises(ValueError, match=r"none of the 2 videos of .*train.json can be used"):
        train(data=data, val=None, skip_bad=True)


def test_too_little_is_left(train: Train, clips: Path, tmp_path: Path) -> None:
    rows = [*colour_rows(clips)[:3], ("gone.mp4", 1)]
    with pytest.raises(ValueError, match="labels of the 3 videos to train on do not differ"):
        train(data=listed(tmp_path / "train.json", rows), val=None, skip_bad=True)


def test_an_output_that_holds_something_else(train: Train, backbone: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all I have")
    with pytest.raises(OutputError, match=r"other than a training run, such as thesis.txt"):
        train("mine")
    before = contents_of_model(backbone)
    with pytest.raises(OutputError, match=r"something other than a training run"):
        train(output=backbone)
    assert contents_of_model(backbone) == before


def test_features_that_are_no_numbers(
    train: Train, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = vp.load_model(backbone)
    model.temporal_ln.weight = mx.full(24, 1e30)
    vp.save_model(model, tmp_path / "wild")
    with pytest.raises(ValueError, match="12 of 12 videos cannot be used, as listed above"):
        train(model=tmp_path / "wild")
    assert "features of a video contain NaN or infinity" in capsys.readouterr().err


def test_without_matplotlib_the_training_ends_well(
    train: Train,
    with_pictures: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    trained = train()
    assert "pip install 'videoprism_mlx[pictures]'" in caplog.text
    assert not (trained.directory / "training" / "curves.png").exists()


def test_a_seed_beyond_those_of_a_new_head(train: Train, tmp_path: Path) -> None:
    """Other trainings take any seed: their random numbers are NumPy's."""
    recipe = vp.Recipe(epochs=1, seed=2**64)
    with pytest.raises(ValueError, match="seed is 18446744073709551616; expected a number below"):
        train(recipe=recipe)
    assert not (tmp_path / "out" / "config.json").exists()
