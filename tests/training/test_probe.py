"""Probes: how they are drawn, trained, measured, kept and continued."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from coloured_clips import COLOURS, RECIPE, Stop, colour_rows, listed, logits_by_hand
from safetensors.numpy import load_file

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.datasets.labels import Labelled
from videoprism_mlx.errors import InputError
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.training import classifier, probe
from videoprism_mlx.training.classifier import train_classifier
from videoprism_mlx.training.losses import classification_loss
from videoprism_mlx.training.probe import PROBE_FILE, chosen
from videoprism_mlx.weights.loading import with_new_head

pytest_plugins = ["classifier_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")

Measure = Callable[..., dict[str, Any]]
FEW = dataclasses.replace(RECIPE, epochs=3)


@pytest.fixture
def loaded(backbone: Path) -> tuple[Any, Processor]:
    return vp.load(backbone)


@pytest.fixture
def measure(loaded: tuple[Any, Processor], clips: Path, tmp_path: Path) -> Measure:
    """`evaluate_probe` on the clips."""

    def measured(**options: Any) -> dict[str, Any]:
        settings: dict[str, Any] = dict(
            data=clips / "train",
            val=clips / "val",
            sizes=(3, "all"),
            seeds=2,
            recipe=FEW,
            cache=tmp_path / "kept",
        )
        return vp.evaluate_probe(*loaded, **settings | options)

    return measured


def examples(labels: list[tuple[int, ...]], multi_label: bool = False) -> Any:
    """Examples that exist as labels only."""
    videos = tuple(Path(f"{n}.mp4") for n in range(len(labels)))
    given = Labelled(videos, tuple(labels), multi_label, None)
    return probe.Examples.of(None, given, videos, 4)  # type: ignore[arg-type]


def test_a_part_has_each_class_as_often_as_it_can() -> None:
    labels = [(0,)] * 20 + [(1,)] * 6 + [(2,)] * 3 + [(3,)] * 1
    drawn = examples(labels)
    counts = {4: [1, 1, 1, 1], 7: [2, 2, 2, 1], 13: [5, 4, 3, 1], 30: [20, 6, 3, 1]}
    for size, expected in counts.items():
        rows = chosen(drawn, size, seed=5)
        assert rows.tolist() == sorted(set(rows.tolist())) and len(rows) == size
        found = np.bincount(drawn.targets[rows], minlength=4)
        if size == 13:  # The class with one more is either of those that have some left.
            assert sorted(found) == sorted(expected)
        else:
            assert found.tolist() == expected if size != 7 else sorted(found) == sorted(expected)


def test_smaller_parts_are_within_larger_ones() -> None:
    for drawn in (
        examples([(n % 3,) for n in range(30)]),
        examples([(n % 3,) for n in range(30)], multi_label=True),
    ):
        for seed in range(5):
            parts = [set(chosen(drawn, size, seed)) for size in (2, 8, 9, 20)]
            assert all(small < large for small, large in itertools.pairwise(parts))
        assert len({tuple(chosen(drawn, 8, seed)) for seed in range(5)}) == 5


def test_a_probe_is_a_classifier_trained_to_the_last_epoch(
    measure: Measure,
    clips: Path,
    tmp_path: Path,
    loaded: tuple[Any, Processor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its logits are those of a trained classifier, worked out by hand from the weights."""
    original, noted = probe.logits_of, []

    def logits_of(*arguments: Any) -> Any:
        noted.append(original(*arguments))
        return noted[-1]

    monkeypatch.setattr(probe, "logits_of", logits_of)
    result = measure(sizes=["all"], seeds=1)
    [row] = result["sizes"]
    mx.random.seed(0)
    vp.save_model(with_new_head(loaded[0], len(COLOURS)), tmp_path / "new")
    where = tmp_path / "new", clips / "train", tmp_path / "out"
    trained = train_classifier(*where, recipe=FEW, cache=tmp_path / "kept")
    # Without videos to validate on, the lowest loss is best: here it is that of the last epoch.
    assert trained.metrics["epoch"] == FEW.epochs
    head = load_file(trained.directory / "model.safetensors")
    model, processor = loaded
    tokens = [
        np.array(model(mx.array(processor.read(clips / "val" / name / f"{name}.mp4"))[None])[0][0])
        for name in sorted(COLOURS)
    ]
    heads = vp.load_model(trained.directory).config["encoder_params"]["num_heads"]
    logits = logits_by_hand(head, np.stack(tokens).astype(np.float16), heads)
    np.testing.assert_allclose(noted[0], logits, atol=1e-3 * np.abs(logits).max())
    right = logits.argmax(-1) == np.arange(len(COLOURS))
    assert row["runs"] == [
        {"seed": 0, "top1": right.mean(), "top5": 1.0, "mean_class_accuracy": right.mean()}
    ]
    assert row["mean"] == {key: row["runs"][0][key] for key in row["mean"]} == result["metrics"]
    assert set(row["spread"].values()) == {None}


def test_mean_and_spread(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.75, 0.25, 1.0, 0.5, 0.75])
    monkeypatch.setattr(probe.Probes, "metrics", lambda self, videos, seed: {"top1": next(values)})
    result = measure(seeds=3)
    assert [(row["size"], row["videos"]) for row in result["sizes"]] == [(3, 3), ("all", 9)]
    assert [row["mean"]["top1"] for row in result["sizes"]] == [0.5, 0.75]
    assert [row["spread"]["top1"] for row in result["sizes"]] == [0.25, 0.25]  # Of n - 1.
    assert result["metrics"] == {"top1": 0.75}
    assert (result["training_videos"], result["validation_videos"]) == (9, 3)
    assert (result["total"], result["used"], result["skipped"]) == (12, 12, [])
    assert [run["seed"] for run in result["sizes"][0]["runs"]] == [0, 1, 2]


def test_colours_are_learned(measure: Measure) -> None:
    result = measure(sizes=["all"], seeds=1, recipe=RECIPE)
    assert result["metrics"]["top1"] == 1


def test_features_and_probes_are_kept(
    measure: Measure, reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(output=tmp_path / "result.json")
    assert len(reads) == 12
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(first))
    trained = []
    original = probe.Probes.trained

    def noted(probes: Any, part: Any, *arguments: Any) -> Any:
        trained.append(len(part.paths))
        return original(probes, part, *arguments)

    monkeypatch.setattr(probe.Probes, "trained", noted)
    assert measure() == first
    more = measure(sizes=(3, 6, "all"))
    assert (len(reads), trained) == (12, [6, 6])
    assert [more["sizes"][0], more["sizes"][2]] == first["sizes"]
    # Another recipe and other labels are other probes; a damaged file is made again.
    measure(sizes=[3], recipe=dataclasses.replace(FEW, learning_rate=0.01))
    assert trained == [6, 6, 3, 3]
    for number, file in enumerate(sorted((tmp_path / "kept").glob(f"probes/*/{PROBE_FILE}"))):
        text = file.read_text()
        file.write_text(text[:-9] if number % 2 else text.replace('"top1": ', '"top1": 1'))
    assert measure() == first
    assert trained == [6, 6, 3, 3, 3, 3, 9, 9]


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_probe_that_was_stopped_ends_as_one_that_was_not(
    at: int, measure: Measure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reads: list[str]
) -> None:
    """Three steps are an epoch of nine examples."""
    expected = measure(sizes=["all"])
    steps = 0

    def stopping(*arguments: Any) -> mx.array:
        nonlocal steps
        steps += 1
        if steps == at:
            raise Stop
        return classification_loss(*arguments)

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(classifier, "classification_loss", stopping)
        measure(sizes=["all"], cache=tmp_path / "other")
    assert measure(sizes=["all"], cache=tmp_path / "other") == expected
    assert len(reads) == 24
    assert not list((tmp_path / "other").glob("probes/*/training"))


def test_several_labels(measure: Measure, clips: Path, tmp_path: Path) -> None:
    rows = [(file, [label, (label + 1) % 3]) for file, label in colour_rows(clips)]
    result = measure(data=listed(tmp_path / "a.json", rows), val=listed(tmp_path / "b.json", rows))
    assert set(result["metrics"]) == {"map", "mean_class_accuracy"}


def test_bad_videos(measure: Measure, with_bad: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="4 of 16 videos cannot be used"):
        measure(**with_bad)
    result = measure(**with_bad, skip_bad=True)
    assert (result["total"], result["used"], len(result["skipped"])) == (16, 12, 4)
    assert (result["training_videos"], result["validation_videos"]) == (9, 3)
    with pytest.raises(InputError, match="size is 10, and there are 9 videos to train on"):
        measure(**with_bad, skip_bad=True, sizes=[10])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(sizes=[]), r"sizes is \[\]; expected some numbers"),
        (dict(sizes="all"), "sizes is 'all'; expected some numbers"),
        (dict(sizes=[1]), "size is 1; expected 2 or more"),
        (dict(sizes=[10]), "size is 10, and there are 9 videos to train on; expected at most"),
        (dict(seeds=0), "seeds is 0; expected 1 or more"),
        (dict(recipe=dataclasses.replace(FEW, patience=2)), "patience is 2; expected None"),
        (dict(dataset="k400"), "no probe result for k400 was published of"),
        (dict(dataset="msrvtt"), "no probe result was published for a dataset 'msrvtt'"),
    ],
)
def test_mistakes(
    options: dict[str, Any], message: str, measure: Measure, reads: list[str]
) -> None:
    with pytest.raises(InputError, match=message):
        measure(**options)
    assert reads == []


def test_the_command(
    clips: Path, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "probe", "--data", clips / "train", "--val", clips / "val"]
    arguments += ["--model", backbone, "--cache", tmp_path / "kept", "--sizes", "3", "all"]
    arguments += ["--seeds", "2", "--seed", "4", "--epochs", "3", "--learning-rate", "0.02"]
    given = [str(each) for each in arguments]
    assert main(given) == 0
    header, small, large, counts = capsys.readouterr().out.splitlines()
    assert main([*given, "--json", "--picture", str(tmp_path / "probes.png")]) == 0
    assert (tmp_path / "probes.png").stat().st_size > 10_000
    result = json.loads(capsys.readouterr().out)
    assert header == ("videos to train on  top-1 accuracy  top-5 accuracy  mean class accuracy")
    for line, row in zip((small, large), result["sizes"], strict=True):
        mean, spread = row["mean"], row["spread"]
        values = [f"{mean[name]:.1%} ± {spread[name]:.1%}" for name in mean]
        assert line.split() == [str(row["videos"]), *" ".join(values).split()]
        assert [run["seed"] for run in row["runs"]] == [4, 5]
    assert counts == "on 3 videos, mean ± standard deviation of 2 seeds"
    assert result["protocol"] == "probe" and result["settings"]["seeds"] == 2
    assert result["settings"]["recipe"]["seed"] == 4
    assert result["settings"]["validation"] == {"path": str(clips / "val"), "sha256": None}
    with pytest.raises(SystemExit):
        main([*given, "--patience", "3"])
