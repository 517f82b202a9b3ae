"""`similarity` and `classify`: what they print and refuse."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import media
import numpy as np
import pytest
from commands import LINE, make_videos, run

import videoprism_mlx as vp


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


def test_similarity(folder: Path, searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["a red cat", "a ball falls down", "a kite"]
    videos = [folder / "b.mp4", folder / "empty.mp4", folder / "uneven.mkv"]
    arguments = ("similarity", "--video", *videos, "--text", *texts, "--model", searchable)
    assert run(*arguments, "--json") == 1
    printed = capsys.readouterr()
    assert "skipped: " in printed.err and "is empty" in printed.err
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["video"] for line in lines] == ["b.mp4", "uneven.mkv"]

    model, processor = vp.load(searchable)
    prompts = [f"a video of {text}." for text in texts]
    found, words, _ = model(**processor(videos=[videos[0], videos[2]], texts=prompts))
    cosines = np.array(found) @ np.array(words).T
    softmax = np.exp(cosines * 100) / np.exp(cosines * 100).sum(1, keepdims=True)
    np.testing.assert_allclose([line["cosine"] for line in lines], cosines, atol=2e-6)
    np.testing.assert_allclose([line["probability"] for line in lines], softmax, atol=1e-4)

    assert run(*arguments) == 1
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "b.mp4" and table[1].split() == ["cosine", "softmax", "text"]
    order = np.argsort(-cosines[0])
    assert [line.split(maxsplit=2)[2] for line in table[2:5]] == [texts[i] for i in order]
    assert [float(line.split()[0]) for line in table[2:5]] == pytest.approx(
        cosines[0][order], abs=6e-4
    )

    other = ("--template", "{}", "--temperature", 1)
    assert run(*arguments, "--json", *other) == 1
    [first, _] = capsys.readouterr().out.splitlines()
    words = vp.embed_texts(model, processor, texts)
    expected = vp.probabilities(np.array(found)[:1] @ words.T, 1.0)[0]
    np.testing.assert_allclose(json.loads(first)["probability"], expected, atol=1e-5)


def test_videos_of_one_name(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        shutil.copy(folder / "b.mp4", tmp_path / place / "clip.mp4")
    videos = [tmp_path / "a/clip.mp4", folder / "uneven.mkv", tmp_path / "b/clip.mp4"]
    names = ["a/clip.mp4", "uneven.mkv", "b/clip.mp4"]
    for arguments in (
        ("similarity", "--text", LINE, "--video", *videos),
        ("classify", *videos, "--labels", "cat", "dog"),
    ):
        assert run(*arguments, "--model", searchable, "--json") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["video"] for line in lines] == names


def test_texts_from_a_file(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("a cat\n\n  a dog \n")
    video, model = folder / "b.mp4", ("--model", searchable)
    assert run("classify", video, "--labels-file", tmp_path / "labels.txt", *model, "--json") == 0
    from_file = capsys.readouterr().out
    assert run("classify", video, "--labels", "a cat", "a dog", *model, "--json") == 0
    assert capsys.readouterr().out == from_file
    result = json.loads(from_file)
    assert {label["label"] for label in result["labels"]} == {"a cat", "a dog"}
    assert sum(label["probability"] for label in result["labels"]) == pytest.approx(1)


def test_the_likeliest_labels(
    folder: Path, searchable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["cat", "dog", "ball", "car", "kite"]
    arguments = (folder / "b.mp4", "--model", searchable, "--json")
    assert run("classify", *arguments, "--labels", *labels, "--top-k", 2) == 0
    best = json.loads(capsys.readouterr().out)["labels"]
    assert run("similarity", "--video", *arguments, "--text", *labels) == 0
    probabilities = json.loads(capsys.readouterr().out)["probability"]
    order = np.argsort(probabilities)[::-1][:2]
    assert [one["label"] for one in best] == [labels[i] for i in order]
    assert [one["probability"] for one in best] == pytest.approx([probabilities[i] for i in order])


def test_a_classifier(
    folder: Path,
    converted: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = converted("classifier_mild")
    arguments = ("classify", folder / "b.mp4", "--model", directory, "--json", "--top-k", 3)
    assert run(*arguments) == 0
    best = json.loads(capsys.readouterr().out)["labels"]
    model, processor = vp.load(directory)
    logits, _ = model(**processor(videos=[folder / "b.mp4"]))
    expected = vp.probabilities(np.array(logits), 1.0)[0]
    order = np.argsort(expected)[::-1][:3]
    assert [one["label"] for one in best] == [f"class {i}" for i in order]
    assert [one["probability"] for one in best] == pytest.approx(expected[order], abs=1e-5)
    assert run(*arguments, "--labels", "one", "two") == 2
    assert "there are 2 labels; expected 7, one for each class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["similarity", "--text", ""], "one of the texts is empty"),
        (["similarity", "--text", LINE, "--template", "no place"], "expected a text with {}"),
        (["similarity", "--text", LINE, "--temperature", "0"], "expected a number above 0"),
        (["similarity", "--text-file", "nothing.txt"], "nothing.txt"),
        (["classify", "--labels", LINE, "--top-k", "0"], "--top-k is 0; expected 1 or more"),
        (["classify"], "give the labels to choose from with --labels or --labels-file"),
        (["classify", "--labels-file", media.clip("b.mp4")], "is not text in UTF-8"),
    ],
)
def test_bad_comparisons(
    arguments: list[str],
    message: str,
    folder: Path,
    searchable: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, *rest = arguments
    video = ["--video", folder / "b.mp4"] if name == "similarity" else [folder / "b.mp4"]
    assert run(name, *video, *rest, "--model", searchable) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and message in printed.err


def test_a_model_without_text(
    folder: Path, converted: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", converted("encoder_mild"))
    assert run("similarity", "--video", folder / "b.mp4", "--text", LINE, *model) == 2
    assert "cannot compare videos with texts" in capsys.readouterr().err
