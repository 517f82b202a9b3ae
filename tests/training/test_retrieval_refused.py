"""What a video-text model cannot be fine-tuned on."""

import dataclasses
import json
import logging
import os
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from captioned_clips import RECIPE, Tune, write_rows

import videoprism_mlx as vp
from videoprism_mlx.errors import TrainingError
from videoprism_mlx.training import retrieval
from videoprism_mlx.training.losses import contrastive_gradients
from videoprism_mlx.training.retrieval import Tuning
from videoprism_mlx.training.session import Trained

pytest_plugins = ["classifier_fixtures", "retrieval_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")


def test_another_configuration_does_not_go_on(tune: Tune) -> None:
    tune()
    with pytest.raises(TrainingError, match=r"recipe.learning_rate was 0.003 and is now 0.1"):
        tune(recipe=dataclasses.replace(RECIPE, learning_rate=0.1))
    with pytest.raises(TrainingError, match=r"tuning.towers was .*video.*text.* and is now"):
        tune(tuning=Tuning(towers=("text",), at_once=3))


def test_a_loss_that_is_no_number_stops_the_run(
    tune: Tune, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = 0

    def spoilt(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        loss, gradients = contrastive_gradients(*arguments)
        return (loss * float("nan") if calls == 3 else loss), gradients

    monkeypatch.setattr(retrieval, "contrastive_gradients", spoilt)
    with pytest.raises(TrainingError, match=r"the loss is nan .* step 1 of epoch 3.*good state"):
        tune(recipe=dataclasses.replace(RECIPE, epochs=4))
    lines = (tmp_path / "out/training/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    state = mx.load(str(tmp_path / "out/training/last.safetensors"))
    assert all(mx.isfinite(each.astype(mx.float32)).all() for each in state.values())


def test_other_videos_or_words_are_another_configuration(
    searchable: Path, pairs: Path, tmp_path: Path
) -> None:
    own = tmp_path / "pairs"
    shutil.copytree(pairs.parent, own)
    options = dict(recipe=RECIPE, cache=tmp_path / "cache")

    def tune() -> Trained:
        return vp.train_retrieval(searchable, own / "pairs.csv", tmp_path / "out", **options)

    tune()
    (own / "1.mp4").write_bytes((own / "2.mp4").read_bytes())
    with pytest.raises(TrainingError, match=r"pairs\.train was \w+ and is now \w+"):
        tune()


def test_a_batch_of_one_has_nothing_to_learn(tune: Tune) -> None:
    with pytest.raises(ValueError, match="batch_size is 1; expected 2 or more"):
        tune(recipe=dataclasses.replace(RECIPE, batch_size=1))


def test_a_damaged_frame_is_named(tune: Tune, tmp_path: Path) -> None:
    tune("first")
    damaged = next((tmp_path / "cache").rglob("*.npy"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(ValueError, match=re.escape(str(damaged))):
        tune("second")


def test_few_files_are_open_at_a_time(searchable: Path, pairs: Path, tmp_path: Path) -> None:
    rows = [("video", "caption")]
    for number in range(60):
        shutil.copy(pairs.parent / f"{number % 5}.mp4", tmp_path / f"{number}.mp4")
        rows.append((f"{number}.mp4", f"number {number}"))
    listed = write_rows(tmp_path / "many.csv", rows)
    used = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 40
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    model, processor = vp.load(searchable)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 30, hard))
        recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=60)
        cache = tmp_path / "cache"
        vp.train_retrieval(searchable, listed, tmp_path / "out", recipe=recipe, cache=cache)
        vp.evaluate_retrieval(model, processor, vp.read_captions(listed), cache=cache)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_bad_videos(
    tune: Tune, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes((pairs.parent / "0.mp4").read_bytes()[:500])
    rows = [("video", "caption"), ("gone.mp4", "a cat"), (str(broken), "a dog")]
    rows += [(str(pairs.parent / f"{n}.mp4"), f"the {n}") for n in range(3)]
    listed = write_rows(tmp_path / "list.csv", rows)
    quick = dataclasses.replace(RECIPE, epochs=1)
    with pytest.raises(ValueError, match=r"2 of 5 videos cannot be used"):
        tune(data=listed, recipe=quick)
    said = capsys.readouterr().err
    assert "gone.mp4" in said and "broken.mp4" in said
    tuned = tune(data=listed, recipe=quick, skip_bad=True)
    assert len(tuned.skipped) == 2
    too_few = write_rows(tmp_path / "few.csv", rows[:4])
    with pytest.raises(ValueError, match=r"1 video"):
        tune("few", data=too_few, skip_bad=True)


def test_bad_videos_of_both_lists_are_named_before_it_stops(
    tune: Tune, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        ("video", "caption"),
        (str(pairs.parent / "0.mp4"), "the 0"),
        ("gone.mp4", "a cat"),
    ]
    training = write_rows(tmp_path / "train.csv", [*rows, (str(pairs.parent / "1.mp4"), "the 1")])
    validation = write_rows(tmp_path / "val.csv", [rows[0], ("lost.mp4", "a dog")])
    with pytest.raises(ValueError, match="2 of 4 videos cannot be used"):
        tune(data=training, val=validation)
    said = capsys.readouterr().err
    assert "gone.mp4" in said and "lost.mp4" in said
    with pytest.raises(ValueError, match=r"none of the 1 video of .*val.csv can be used"):
        tune(data=training, val=validation, skip_bad=True)


@pytest.mark.parametrize("caption", ["", "   "])
def test_an_empty_caption(caption: str, tune: Tune, tmp_path: Path) -> None:
    listed = write_rows(tmp_path / "list.csv", [("video", "caption"), ("a.mp4", caption)])
    with pytest.raises(ValueError, match=r"list.csv, line 2: the caption is .*expected a text"):
        tune(data=listed)


def test_validating_on_what_is_trained_on(
    tune: Tune, pairs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        tune(val=pairs, recipe=dataclasses.replace(RECIPE, epochs=1))
    assert "5 of 5 videos to validate on are trained on as well" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(towers=()), "expected one or more of video, text"),
        (dict(towers=("audio",)), "expected one or more of video, text"),
        (dict(at_once=0), "micro_batch_size is 0"),
        (dict(layers=2), "give a rank as well"),
        (dict(dtype="int8"), "int8"),
    ],
)
def test_tunings_that_mean_nothing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tuning(**settings)


def test_a_model_without_text(tune: Tune, converted: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="cannot compare videos with texts"):
        tune(model=converted("encoder_mild"))
