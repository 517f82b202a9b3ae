"""The command `evaluate`."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from by_hand import (
    CAPTIONS,
    LABELS,
    NAMES,
    Converted,
    by_hand,
    labelled,
    logits_by_hand,
    write_csv,
)

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.datasets.captions import read_captions
from videoprism_mlx.evaluation.protocols import (
    evaluate_retrieval,
    evaluate_zero_shot,
)
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.weights.directory import WEIGHTS_FILE

pytest_plugins = ["evaluation_fixtures"]
pytestmark = pytest.mark.usefixtures("own_cache")


def run(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


@pytest.fixture
def captioned(six_clips: list[Path], tmp_path: Path) -> Path:
    rows = [(clip, text) for clip, said in zip(six_clips, CAPTIONS, strict=True) for text in said]
    return write_csv(tmp_path / "captions.csv", ("video", "caption"), *rows)


@pytest.fixture
def classes(six_clips: list[Path], tmp_path: Path) -> Path:
    rows = [(clip, NAMES[label]) for clip, label in zip(six_clips, LABELS, strict=True)]
    return write_csv(tmp_path / "classes.csv", ("video", "label"), *rows)


def test_retrieval(
    captioned: Path,
    searchable: Path,
    searcher: tuple[Any, Processor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("retrieval", "--data", captioned, "--model", searchable)
    assert run(*arguments, "-o", tmp_path / "result.json") == 0
    printed = capsys.readouterr()
    result = json.loads((tmp_path / "result.json").read_text())
    expected = evaluate_retrieval(*searcher, read_captions(captioned))
    assert result["metrics"] == expected["metrics"]
    header, by_text, by_video, counts = printed.out.splitlines()
    assert header.split() == ["R@1", "R@5", "R@10", "median", "mean", "rank"]
    for line, way in ((by_text, "text_to_video"), (by_video, "video_to_text")):
        assert line.startswith(way.replace("_", " "))
        measured = [expected["metrics"][f"{way}/recall@{most}"] for most in (1, 5, 10)]
        ranks = [expected["metrics"][f"{way}/{each}_rank"] for each in ("median", "mean")]
        shown = [f"{share:.1%}" for share in measured] + [f"{rank:.1f}" for rank in ranks]
        assert line.split()[3:] == shown
    assert counts == "6 videos, 10 texts"
    assert printed.err.splitlines()[-1] == "6 of 6 videos are measured"

    assert run(*arguments, "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == result
    assert result["settings"] == {
        "version": "0.1.0",
        "model": {
            **expected["settings"]["model"],
            "name": str(searchable), "weights": sha256(searchable / WEIGHTS_FILE), "adapters": None,
        },
        "preprocessing": {
            "frames": 4, "fps": None, "size": 18, "resize": "stretch", "resample": "area",
            "partial": False, "reader": "ffmpeg",
        },
        "captions": "each", "template": "{}",
        "data": {"path": str(captioned), "sha256": sha256(captioned)},
    }  # fmt: skip

    options = ("--captions", "joined", "--template", "the {}", "--frames", 2, "--resize", "crop")
    assert run(*arguments, *options, "--json") == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert (settings["captions"], settings["template"]) == ("joined", "the {}")
    assert settings["preprocessing"]["frames"] == 2
    assert settings["preprocessing"]["resize"] == "crop"


def test_bad_videos_on_the_command_line(
    captioned: Path,
    searchable: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty.mp4").touch()
    with open(captioned, "a", encoding="utf-8") as file:
        file.write("empty.mp4,a red dog\n")
    arguments = ("retrieval", "--data", captioned, "--model", searchable, "--json")
    assert run(*arguments, "-o", tmp_path / "out.json") == 2
    printed = capsys.readouterr()
    assert "empty.mp4" in printed.err and "1 of 7 videos cannot be used" in printed.err
    assert printed.out == "" and not (tmp_path / "out.json").exists()
    assert run(*arguments, "--skip-bad") == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == "6 of 7 videos are measured, 1 skipped"
    result = json.loads(printed.out)
    assert (result["measured"], result["videos"], len(result["skipped"])) == (6, 7, 1)
    assert "empty.mp4" in result["skipped"][0]


def test_zero_shot(
    classes: Path,
    six_clips: list[Path],
    searchable: Path,
    searcher: tuple[Any, Processor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("zero-shot", "--data", classes, "--model", searchable)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    (tmp_path / "templates.txt").write_text("the {}\n\n{} runs\n")
    options = ("--labels", tmp_path / "names.txt", "--template-file", tmp_path / "templates.txt")
    assert run(*arguments, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = evaluate_zero_shot(*searcher, labelled(six_clips), ["the {}", "{} runs"])
    assert lines[0].split() == ["class", "videos", "accuracy"]
    for line, row in zip(lines[1:], expected["classes"], strict=False):
        assert line.split() == [
            *row["name"].split(),
            str(row["examples"]),
            f"{row['accuracy']:.1%}",
        ]
    top1, top5, mean = (f"{value:.1%}" for value in expected["metrics"].values())
    assert [line.split() for line in lines[5:]] == [
        ["top-1", "accuracy", top1],
        ["top-5", "accuracy", top5],
        ["mean", "class", "accuracy", mean],
    ]

    options = ("--template", "the {}", "--template", "{} runs", "--json")
    assert run(*arguments, *options) == 0  # The names are those of the list, in another order.
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"] == pytest.approx(expected["metrics"])
    assert [row["name"] for row in result["classes"]] == sorted(NAMES)
    assert result["settings"]["templates"] == ["the {}", "{} runs"]


def test_a_classifier_and_a_folder_of_classes(
    six_clips: list[Path],
    converted: Converted,
    classifier: tuple[Any, Processor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory, data = tmp_path / "model", tmp_path / "data"
    shutil.copytree(converted("classifier_mild"), directory)
    names = ["run", "jump", "fall", "sleep", "eat", "hide", "dig"]
    (directory / "labels.json").write_text(json.dumps({"labels": names, "multi_label": False}))
    copies = []
    for clip, label in zip(six_clips, LABELS, strict=True):
        (data / names[label]).mkdir(parents=True, exist_ok=True)
        copies.append(shutil.copy(clip, data / names[label]))
    assert run("classifier", "--data", data, "--model", directory, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    logits = logits_by_hand(classifier, six_clips)
    assert result["metrics"] == pytest.approx(by_hand(logits, LABELS))
    assert [row["name"] for row in result["classes"]] == names
    assert result["settings"]["data"]["sha256"] is None

    (data / "laugh").mkdir()
    shutil.copy(six_clips[0], data / "laugh")
    assert run("classifier", "--data", data, "--model", directory) == 2
    assert "laugh; expected one of the 7 classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("retrieval", "--data", "gone.csv"), "gone.csv"),
        (("zero-shot", "--data", "gone.csv"), "gone.csv"),
        (("zero-shot", "--data", "classes.csv", "--template", "a"), "the template is 'a'"),
        (("retrieval", "--data", "captions.csv", "--template", "a"), "the template is 'a'"),
        (
            ("retrieval", "--data", "classes.csv"),
            "has 'video', 'label'; expected caption or captions",
        ),
        (("classifier", "--data", "classes.csv"), "model is not a classifier; train one"),
        (("retrieval", "--data", "captions.csv", "--frames", "0"), "num_frames is 0"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: tuple[str, ...],
    message: str,
    captioned: Path,
    classes: Path,
    searchable: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments, "--model", searchable) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("videoprism-mlx: ") and message in printed.err
    assert printed.out == ""


def test_with_adapters(
    captioned: Path,
    searchable: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, processor = vp.load(searchable)
    vp.add_adapters(model, 2)
    layer = model.contrastive_vision_pooler.pooling_attention.post
    layer.lora_b = mx.random.normal(layer.lora_b.shape, key=mx.random.key(1))
    vp.save_adapters(model, tmp_path / "adapters", searchable)
    expected = evaluate_retrieval(model, processor, read_captions(captioned))
    arguments = ("retrieval", "--data", captioned, "--model", searchable, "--json")
    assert run(*arguments, "--adapters", tmp_path / "adapters") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"] == expected["metrics"]
    adapters = result["settings"]["model"]["adapters"]
    assert adapters == sha256(tmp_path / "adapters/adapters.safetensors")
    assert run(*arguments) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] != expected["metrics"]
