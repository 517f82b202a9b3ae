"""Tuning video-text models: the loss, its gradients, and what comes of a run."""

import csv
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

import media
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from safetensors.numpy import load_file

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.errors import TrainingError
from videoprism_mlx.evaluation.protocols import recalls
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.training import retrieval
from videoprism_mlx.training.retrieval import (
    START_TEMPERATURE,
    Tuned,
    Tuning,
    contrastive_gradients,
    contrastive_loss,
    prepare,
)
from videoprism_mlx.training.run import Parameters, Recipe, as_float32

RANDOM = np.random.RandomState(3)
CAPTIONS = (
    ("a red cat runs", "the red cat"),
    ("a green dog sleeps",),
    ("a blue ball falls down", "a ball falls", "blue"),
    ("a grey kite plays in the garden",),
    ("a red car jumps over the fence",),
)
COLOURS = ((220, 30, 30), (30, 200, 30), (30, 30, 220), (128, 128, 128), (250, 220, 40))
RECIPE = Recipe(epochs=3, batch_size=4, learning_rate=3e-3, clip=1.0)
LONGER = dataclasses.replace(RECIPE, epochs=60, batch_size=5, learning_rate=1e-3)

# It adds as much to the logits of all tokens, which changes nothing, and so it does not change.
UNSEEN = "contrastive_vision_pooler.pooling_attention.key.bias"

Tune = Callable[..., Tuned]


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "draw_curves", lambda *arguments: None)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of five clips with one to three captions each."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [("video", "caption")]
    for number, captions in enumerate(CAPTIONS):
        frames = np.zeros((6, 36, 48, 3), np.uint8) + np.uint8(COLOURS[number])
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "48x36", "-r", "6", "-i", "-"]
        media.ffmpeg(*raw, "-c:v", "mpeg4", folder / f"{number}.mp4", given=frames.tobytes())
        rows += [(f"{number}.mp4", caption) for caption in captions]
    write_rows(folder / "pairs.csv", rows)
    return folder / "pairs.csv"


def write_rows(path: Path, rows: list[tuple[str, ...]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def tune(searchable: Path, pairs: Path, tmp_path: Path) -> Tune:
    """Tunes the small model on the five clips."""

    def tune(output: str = "out", **options: Any) -> Tuned:
        settings = dict(recipe=RECIPE, tuning=Tuning(at_once=3), cache=tmp_path / "cache")
        settings |= dict(model=searchable, data=pairs, output=tmp_path / output) | options
        return vp.train_retrieval(**settings)

    return tune


# The loss.


def test_the_loss_by_hand() -> None:
    videos, texts = (RANDOM.randn(5, 4).astype(np.float32) for _ in range(2))
    log_scale = 1.3
    logits = np.exp(log_scale) * videos.astype(np.float64) @ texts.T.astype(np.float64)

    def one_way(logits: np.ndarray) -> float:
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return -np.log(np.diag(chances)).mean()

    expected = (one_way(logits) + one_way(logits.T)) / 2
    ours = contrastive_loss(mx.array(videos), mx.array(texts), mx.array(log_scale))
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_the_temperature_stops_falling_and_can_rise_again(
    tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are made up: first towards lower temperatures, then towards higher ones."""
    steps = 0

    def drawn(model: Any, parameters: Parameters, *arrays: Any) -> Any:
        nonlocal steps
        steps += 1
        zeros = {"model": tree_map(mx.zeros_like, parameters["model"])}
        return mx.array(1.0), zeros | {"log_scale": mx.array(-1.0 if steps <= 12 else 1.0)}

    monkeypatch.setattr(retrieval, "contrastive_gradients", drawn)
    recipe = dataclasses.replace(RECIPE, epochs=24, batch_size=5, learning_rate=0.3)
    temperatures = [measured["temperature"] for measured in tune(recipe=recipe).history]
    assert min(temperatures) == pytest.approx(0.01) == temperatures[11]
    assert temperatures[-1] > 0.02


def batch(count: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    clips = RANDOM.randint(0, 256, (count, 4, 18, 18, 3)).astype(np.uint8)
    ids = RANDOM.randint(3, 40, (count, 7))
    paddings = (np.arange(7) >= RANDOM.randint(2, 8, (count, 1))).astype(np.float32)
    return clips, ids, paddings


def parameters_of(model: Any) -> Parameters:
    return {
        "model": as_float32(model.trainable_parameters()),
        "log_scale": mx.array(-np.log(START_TEMPERATURE), mx.float32),
    }


@pytest.mark.parametrize("tuning", [Tuning(), Tuning(recompute=True), Tuning(rank=2)])
def test_the_batch_may_go_through_the_model_in_parts(searchable: Path, tuning: Tuning) -> None:
    model = vp.load_model(searchable)
    prepare(model, tuning, seed=0)
    parameters, arrays = parameters_of(model), batch()
    if tuning.rank:  # As they start, one half of the adapters has no gradient.
        flat = tree_flatten(parameters["model"])
        random = [
            (key, mx.array(0.1 * RANDOM.randn(*each.shape), mx.float32)) for key, each in flat
        ]
        parameters["model"] = tree_unflatten(random)
    loss, whole = contrastive_gradients(model, parameters, *arrays, at_once=5)
    for at_once in (1, 2, 3):
        again, parts = contrastive_gradients(model, parameters, *arrays, at_once=at_once)
        assert again.item() == pytest.approx(loss.item(), rel=1e-6)
        expected = dict(tree_flatten(whole))
        largest = max(mx.abs(each).max().item() for each in expected.values())
        assert dict(tree_flatten(parts)).keys() == expected.keys()
        for name, each in tree_flatten(parts):
            np.testing.assert_allclose(
                np.array(each), np.array(expected[name]), atol=1e-5 * largest, err_msg=name
            )
    for name, each in tree_flatten(model.trainable_parameters()):
        assert each.tolist() == dict(tree_flatten(parameters["model"]))[name].tolist()


def test_recomputing_changes_nothing(searchable: Path) -> None:
    arrays = batch()
    results = []
    for recompute in (False, True):
        model = vp.load_model(searchable)
        prepare(model, Tuning(recompute=recompute), seed=0)
        results.append(contrastive_gradients(model, parameters_of(model), *arrays, at_once=5))
    assert results[0][0].item() == results[1][0].item()
    for (name, one), (_, other) in zip(*(tree_flatten(each) for _, each in results), strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-7, err_msg=name)


def test_bfloat16_computes_nearly_the_same(searchable: Path) -> None:
    model = vp.load_model(searchable)
    parameters, arrays = parameters_of(model), batch()
    loss, gradients = contrastive_gradients(model, parameters, *arrays, at_once=2)
    rough, rounded = contrastive_gradients(model, parameters, *arrays, at_once=2, dtype=mx.bfloat16)
    assert rough.item() == pytest.approx(loss.item(), rel=0.05)
    one, other = (
        np.concatenate([np.array(each).ravel() for _, each in tree_flatten(tree["model"])])
        for tree in (gradients, rounded)
    )
    assert all(each.dtype == mx.float32 for _, each in tree_flatten(rounded))
    assert one @ other > 0.97 * np.linalg.norm(one) * np.linalg.norm(other)


def test_memory_is_that_of_the_pairs_at_once() -> None:
    config = vp.models.get_config("videoprism_lvt_demo_tiny")
    model = vp.get_model(config)
    parameters = parameters_of(model)
    clips = RANDOM.randint(0, 256, (64, 8, 64, 64, 3)).astype(np.uint8)
    ids, paddings = RANDOM.randint(3, 40, (64, 8)), np.zeros((64, 8), np.float32)

    def peak(count: int, at_once: int) -> int:
        mx.clear_cache()
        mx.reset_peak_memory()
        batch = clips[:count], ids[:count], paddings[:count]
        mx.eval(contrastive_gradients(model, parameters, *batch, at_once))
        return mx.get_peak_memory()

    peak(4, 4)  # What comes once.
    assert peak(64, 4) < 1.3 * peak(8, 4)
    assert peak(64, 64) > 3 * peak(64, 4)


# A run.


def test_it_learns_which_caption_is_whose(tune: Tune, pairs: Path, searchable: Path) -> None:
    tuned = tune(val=pairs, recipe=LONGER)
    assert tuned.metrics["mean/recall@1"] == 1
    assert tuned.history[0]["mean/recall@1"] < 1
    assert tuned.metrics["temperature"] != pytest.approx(START_TEMPERATURE, rel=1e-3)

    model, processor = vp.load(tuned.directory)
    clips = [pairs.parent / f"{number}.mp4" for number in range(5)]
    encoded = vp.encode(model, processor, clips, batch_size=5)
    videos = np.stack([each.features["embedding"] for each in encoded])
    texts = vp.embed_texts(model, processor, [said for each in CAPTIONS for said in each])
    owners = np.repeat(np.arange(5), [len(said) for said in CAPTIONS])
    measured = recalls(videos @ texts.T, owners)
    stored = json.loads((tuned.directory / "metrics.json").read_text())
    for key, value in measured.items():
        assert stored[key] == pytest.approx(value), key

    before, after = (
        load_file(each / "model.safetensors") for each in (searchable, tuned.directory)
    )
    assert before.keys() == after.keys()
    same = {key for key in before if (before[key] == after[key]).all()}
    assert same <= {UNSEEN}
    names = ("sentencepiece.model",)
    assert all(sha256(searchable / name) == sha256(tuned.directory / name) for name in names)


@pytest.mark.parametrize(("tower", "other"), [("video", "text"), ("text", "video")])
def test_a_tower_that_is_not_trained_stays_as_it_is(
    tower: str, other: str, tune: Tune, searchable: Path
) -> None:
    tuned = tune(tuning=Tuning(towers=(tower,), dtype="bfloat16"))
    before, after = (
        load_file(each / "model.safetensors") for each in (searchable, tuned.directory)
    )
    for key in before:
        if key == UNSEEN:
            continue
        is_frozen = key.startswith(retrieval.TOWERS[other])
        assert (before[key] == after[key]).all() == is_frozen, key


def test_adapters(tune: Tune, searchable: Path, pairs: Path, tmp_path: Path) -> None:
    tuning = Tuning(rank=3, at_once=2)
    tuned = tune(tuning=tuning, val=pairs, recipe=LONGER)
    assert not (tuned.directory / "config.json").exists()
    arrays = load_file(tuned.directory / "adapters.safetensors")
    assert {key.rsplit(".", 1)[1] for key in arrays} == {"lora_a", "lora_b"}

    model, processor = vp.load(searchable)
    vp.fuse_adapters(vp.load_adapters(model, tuned.directory))
    encoded = vp.encode(model, processor, [pairs.parent / f"{n}.mp4" for n in range(5)])
    videos = np.stack([each.features["embedding"] for each in encoded])
    texts = vp.embed_texts(model, processor, [said for each in CAPTIONS for said in each])
    owners = np.repeat(np.arange(5), [len(said) for said in CAPTIONS])
    measured = recalls(videos @ texts.T, owners)
    assert measured["text_to_video/recall@1"] == pytest.approx(
        tuned.metrics["text_to_video/recall@1"]
    )
    assert tuned.metrics["mean/recall@1"] > tuned.history[0]["mean/recall@1"]
    again = tune(tuning=tuning, val=pairs, recipe=LONGER)
    assert again.history == tuned.history


def test_adapters_bring_their_preprocessing(
    tune: Tune, searchable: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = tune(tuning=Tuning(rank=2), frames=3, recipe=dataclasses.replace(RECIPE, epochs=1))
    clip, fused = pairs.parent / "0.mp4", tmp_path / "fused"
    base = ["--model", str(searchable), "--adapters", str(tuned.directory)]
    assert main(["fuse", *base, "-o", str(fused)]) == 0
    assert vp.load(fused)[1].num_frames == 3
    found = []
    for model in (base, ["--model", str(fused)]):
        capsys.readouterr()
        assert main(["embed", str(clip), *model, "-o", "-"]) == 0
        line = json.loads(capsys.readouterr().out)
        assert line["record"]["preprocessing"]["frames"] == 3
        found.append(line["embedding"])
    np.testing.assert_allclose(*found, atol=1e-6)


class Killed(BaseException):
    """What ends a run where it is."""


@pytest.mark.parametrize("killed_at", [1, 2, 3, 5])
def test_a_killed_run_ends_as_an_unbroken_one(
    killed_at: int, tune: Tune, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dict(recipe=dataclasses.replace(RECIPE, batch_size=2, decay="cosine"), save_every=1)
    whole = tune("whole", val=pairs, **options)
    steps = 0

    def counted(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > killed_at:
            raise Killed
        return contrastive_gradients(*arguments)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(retrieval, "contrastive_gradients", counted)
        tune(val=pairs, **options)
    assert not (tmp_path / "out" / "config.json").exists()
    resumed = tune(val=pairs, **options)
    assert resumed.history == whole.history
    for name in ("model.safetensors", "training/last.safetensors", "training/metrics.jsonl"):
        assert sha256(resumed.directory / name) == sha256(whole.directory / name), name


def test_the_seed_decides(tune: Tune) -> None:
    def weights(output: str, seed: int) -> str:
        recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=2, seed=seed)
        return sha256(tune(output, recipe=recipe).directory / "model.safetensors")

    assert weights("one", 1) == weights("same", 1) != weights("other", 2)


def test_frames_are_read_once(tune: Tune, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quick = dict(recipe=dataclasses.replace(RECIPE, epochs=1))
    tune("first", **quick)
    with monkeypatch.context() as patched:
        patched.setattr(vp.Processor, "read", lambda *arguments: pytest.fail("it was read again"))
        tune("second", **quick)
    with pytest.raises(pytest.fail.Exception), monkeypatch.context() as patched:
        patched.setattr(vp.Processor, "read", lambda *arguments: pytest.fail("anew"))
        tune("third", frames=3, **quick)


# What is wrong.


def test_another_configuration_does_not_go_on(tune: Tune) -> None:
    tune()
    with pytest.raises(TrainingError, match=r"recipe.learning_rate is 0.003 there and 0.1 now"):
        tune(recipe=dataclasses.replace(RECIPE, learning_rate=0.1))
    with pytest.raises(TrainingError, match=r"tuning.towers is .*video.*text.* there"):
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

    def tune() -> Tuned:
        return vp.train_retrieval(searchable, own / "pairs.csv", tmp_path / "out", **options)

    tune()
    (own / "1.mp4").write_bytes((own / "2.mp4").read_bytes())
    with pytest.raises(TrainingError, match=r"pairs\.train is \w+ there and \w+ now"):
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
    rows = [("video", "caption"), (str(pairs.parent / "0.mp4"), "the 0"), ("gone.mp4", "a cat")]
    training = write_rows(tmp_path / "train.csv", [*rows, (str(pairs.parent / "1.mp4"), "the 1")])
    validation = write_rows(tmp_path / "val.csv", [rows[0], ("lost.mp4", "a dog")])
    with pytest.raises(ValueError, match="2 of 4 videos cannot be used"):
        tune(data=training, val=validation)
    said = capsys.readouterr().err
    assert "gone.mp4" in said and "lost.mp4" in said
    with pytest.raises(ValueError, match=r"none of the 1 videos of .*val.csv can be used"):
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
        (dict(towers=()), "expected some of video, text"),
        (dict(towers=("audio",)), "expected some of video, text"),
        (dict(at_once=0), "at_once is 0"),
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


def test_the_command(
    searchable: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "retrieval", "--model", searchable, "--data", pairs, "--val", pairs]
    command += ["-o", tmp_path / "out", "--cache", tmp_path / "cache", "--epochs", 2]
    command += ["--batch-size", 3, "--at-once", 2, "--rank", 2, "--towers", "text", "--json"]
    assert main([str(each) for each in command]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["output"] == str(tmp_path / "out") and printed["skipped"] == []
    assert 0 <= printed["text_to_video/recall@1"] <= 1
    arrays = load_file(tmp_path / "out" / "adapters.safetensors")
    assert arrays and all(key.startswith("text_encoder.") for key in arrays)
    assert main(["train", "retrieval", "--data", "none.csv", "-o", str(tmp_path / "x")]) == 2
