"""Fine-tuning a video-text model: what is learned, written and continued."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import media
import mlx.core as mx
import numpy as np
import pytest
from captioned_clips import CAPTIONS, LONGER, RECIPE, Tune, write_rows
from mlx.utils import tree_map
from safetensors import safe_open
from safetensors.numpy import load_file
from thinned import thinned

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.errors import InputError, TrainingError
from videoprism_mlx.evaluation.metrics import recalls
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.training import retrieval
from videoprism_mlx.training.losses import contrastive_gradients
from videoprism_mlx.training.retrieval import START_TEMPERATURE, TOWERS, Tuning
from videoprism_mlx.training.state import Parameters

pytest_plugins = ["classifier_fixtures", "retrieval_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")


# It adds as much to the logits of all tokens, which changes nothing, and so it does not change.
UNSEEN = "contrastive_vision_pooler.pooling_attention.key.bias"


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
        is_frozen = key.startswith(TOWERS[other])
        assert (before[key] == after[key]).all() == is_frozen, key


def test_adapters(tune: Tune, searchable: Path, pairs: Path, tmp_path: Path) -> None:
    tuning = Tuning(rank=3)
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
    tune: Tune,
    searchable: Path,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tuned = tune(tuning=Tuning(rank=2), num_frames=3, recipe=dataclasses.replace(RECIPE, epochs=1))
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


@pytest.mark.parametrize("killed_at", thinned([2, 1, 5, 3], keep=2))
def test_a_killed_run_ends_as_an_unbroken_one(
    killed_at: int,
    tune: Tune,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
        patched.setattr(
            vp.Processor, "read", lambda *arguments, **options: pytest.fail("it was read again")
        )
        tune("second", **quick)
    with pytest.raises(pytest.fail.Exception), monkeypatch.context() as patched:
        patched.setattr(vp.Processor, "read", lambda *arguments, **options: pytest.fail("anew"))
        tune("third", num_frames=3, **quick)


def frames_kept(cache: Path) -> list[np.ndarray]:
    return [np.load(path) for path in sorted(cache.rglob("*.npy"))]


def test_options_of_reading(tune: Tune, tmp_path: Path) -> None:
    """They decide which frames are kept, and the result has them."""
    quick = dict(recipe=dataclasses.replace(RECIPE, epochs=1))
    options = dict(num_frames=2, size=24, resize="crop", resample="lanczos")
    tuned = tune(cache=tmp_path / "own", **options, **quick)
    processor = vp.load(tuned.directory)[1]
    assert {name: getattr(processor, name) for name in options} == options
    kept = frames_kept(tmp_path / "own")
    assert len(kept) == 5 and {clip.shape for clip in kept} == {(2, 24, 24, 3)}
    assert {clip.dtype for clip in kept} == {np.dtype(np.uint8)}
    with pytest.raises(InputError, match="size is 20; expected a multiple of 6"):
        tune("bad", size=20)
    for changed in (dict(resize="stretch"), dict(resample="area"), dict(size=18)):
        [name] = changed
        with pytest.raises(TrainingError, match=f"preprocessing.{name} was .* and is now .*"):
            tune(cache=tmp_path / "own", **options | changed, **quick)


def test_the_older_name_of_num_frames(tune: Tune, tmp_path: Path) -> None:
    quick = dict(recipe=dataclasses.replace(RECIPE, epochs=1))
    assert vp.load(tune(frames=2, **quick).directory)[1].num_frames == 2
    tune(num_frames=2, **quick)  # The same run.
    with pytest.raises(InputError, match="num_frames is 3 and frames, its older name, is 2"):
        tune("other", frames=2, num_frames=3)


def test_partial_is_noted(tune: Tune, tmp_path: Path) -> None:
    quick = dict(recipe=dataclasses.replace(RECIPE, epochs=1))

    def record(name: str, **options: Any) -> dict[str, Any]:
        tuned = tune(name, cache=tmp_path / name / "cache", **options, **quick)
        with safe_open(tuned.directory / "training/last.safetensors", framework="numpy") as file:
            return json.loads(file.metadata()["run"])["record"]["preprocessing"]

    whole, partial = record("whole"), record("partial", partial=True)
    assert whole["partial"] is False and partial == whole | {"partial": True}
    for name, noted in (("whole", whole), ("partial", partial)):
        [kept] = (tmp_path / name / "cache").rglob("record.json")
        expected = {key: value for key, value in noted.items() if key != "template"}
        assert json.loads(kept.read_text())["preprocessing"] == expected


def test_damaged_videos_may_be_used_in_part(tune: Tune, pairs: Path, tmp_path: Path) -> None:
    rows = [(str(pairs.parent / f"{n}.mp4"), f"the {n}") for n in range(2)]
    listed = write_rows(
        tmp_path / "list.csv", [("video", "caption"), *rows, (str(media.clip("short.mp4")), "cut")]
    )
    quick = dict(data=listed, recipe=dataclasses.replace(RECIPE, epochs=1))
    with pytest.raises(ValueError, match="1 of 3 videos cannot be used"):
        tune("whole", **quick)
    assert tune("part", partial=True, **quick).skipped == []


def test_dtype_is_that_of_the_tuning(tune: Tune) -> None:
    quick = dict(recipe=dataclasses.replace(RECIPE, epochs=1))
    tuned = tune(dtype=mx.bfloat16, **quick)
    tune(tuning=Tuning(at_once=3, dtype="bfloat16"), **quick)  # The same run.
    with pytest.raises(TrainingError, match=r"tuning.dtype was bfloat16 and is now float32"):
        tune(**quick)
    assert load_file(tuned.directory / "model.safetensors")[UNSEEN].dtype == np.float32
