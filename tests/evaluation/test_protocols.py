"""Published protocols, against the same thing worked out by hand."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import media
import mlx.core as mx
import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.datasets.captions import Captioned, read_captions
from videoprism_mlx.datasets.labels import Labelled, read_labels
from videoprism_mlx.evaluation.protocols import (
    class_embeddings,
    evaluate_classifier,
    evaluate_retrieval,
    evaluate_zero_shot,
    recalls,
)
from videoprism_mlx.features.processor import PROMPT, Processor
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.weights.directory import WEIGHTS_FILE

Converted = Callable[[str], Path]

COUNT = 6

CAPTIONS = [
    ["a red cat runs", "the grey dog"],
    ["a blue ball jumps over the fence"],
    ["a green kite falls down", "a kite", "green"],
    ["the dog plays in the garden"],
    ["a red car", "car"],
    ["a grey cat sleeps"],
]
LABELS = [0, 2, 1, 0, 2, 2]
NAMES = ("red cat", "green kite", "blue_ball")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Videos that differ."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        media.write(folder / f"{n}.mp4", range(n * 150, n * 150 + 12), size=(64, 48))
        for n in range(COUNT)
    ]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def searcher(searchable: Path) -> tuple[Any, Processor]:
    return vp.load(searchable)


def of_video(searcher: tuple[Any, Processor], clips: Sequence[Path]) -> np.ndarray:
    """The videos' embeddings, made in another way."""
    encoded = vp.encode(*searcher, clips, batch_size=4)
    return np.stack([one.features["embedding"] for one in encoded])


def of_text(searcher: tuple[Any, Processor], text: str) -> np.ndarray:
    """The embedding of a text alone."""
    model, processor = searcher
    return np.array(model(**processor(texts=[text]))[1][0])


# Recall.


def brute_force(similarity: np.ndarray, owners: Sequence[int]) -> dict[str, float]:
    ranks: dict[str, list[int]] = {"text_to_video": [], "video_to_text": []}
    videos, texts = similarity.shape
    for text in range(texts):
        rank = 1
        for video in range(videos):
            if video != owners[text] and similarity[video, text] >= similarity[owners[text], text]:
                rank += 1
        ranks["text_to_video"].append(rank)
    for video in range(videos):
        own = [text for text in range(texts) if owners[text] == video]
        if own:
            best = min(
                1
                + sum(
                    similarity[video, other] >= similarity[video, text]
                    for other in range(texts)
                    if other not in own
                )
                for text in own
            )
            ranks["video_to_text"].append(best)
    result = {}
    for way, found in ranks.items():
        for most in (1, 5, 10):
            result[f"{way}/recall@{most}"] = sum(rank <= most for rank in found) / len(found)
        middle = sorted(found)[(len(found) - 1) // 2 : len(found) // 2 + 1]
        result[f"{way}/median_rank"] = sum(middle) / len(middle)
        result[f"{way}/mean_rank"] = sum(found) / len(found)
    return result


@pytest.mark.parametrize("levels", [3, 30, 10**6])
def test_recalls_by_brute_force(levels: int) -> None:
    random = np.random.RandomState(levels)
    for _ in range(40):
        videos, texts = random.randint(1, 25, 2)
        owners = random.randint(0, videos, texts)
        similarity = random.randint(0, levels, (videos, texts)).astype(np.float32)
        similarity[owners, np.arange(texts)] += levels / 3  # Not all is lost.
        found = recalls(similarity, owners)
        assert found == pytest.approx(brute_force(similarity, owners))
        assert all(type(value) is float for value in found.values())


def test_what_is_as_similar_counts_as_before_it() -> None:
    found = recalls(np.full((11, 11), 0.5), np.arange(11))
    for way in ("text_to_video", "video_to_text"):
        assert [found[f"{way}/recall@{most}"] for most in (1, 5, 10)] == [0, 0, 0]
        assert found[f"{way}/median_rank"] == 11
    perfect = recalls(np.eye(11, dtype=int), np.arange(11))
    assert perfect["text_to_video/recall@1"] == perfect["video_to_text/recall@1"] == 1
    own = recalls(np.array([[1.0, 1.0, 0.5]]), np.zeros(3, int))  # Its own texts are no rivals.
    assert own["video_to_text/recall@1"] == 1


@pytest.mark.parametrize(
    ("similarity", "owners", "message"),
    [
        (np.array([[1.0, np.nan], [0, 0]]), np.arange(2), "1 of the similarities are not a number"),
        (np.zeros(3), np.arange(3), r"have shape \(3,\); expected \(videos, texts\)"),
        (np.zeros((0, 3)), np.arange(3), r"have shape \(0, 3\)"),
        (np.zeros((2, 3)), np.arange(2), r"shape \(2,\); expected a video's number for each of 3"),
        (np.zeros((2, 3)), np.zeros(3), "video_of_text is of float64"),
        (np.zeros((2, 3)), np.array([0, 1, 2]), "numbers from 0 to 2; expected 0 to 1"),
        (np.zeros((2, 3)), np.array([0, 1, -1]), "numbers from -1 to 1; expected 0 to 1"),
    ],
)
def test_what_has_no_recall(similarity: np.ndarray, owners: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recalls(similarity, owners)


# Retrieval.


def pairs_of(clips: Sequence[Path]) -> list[Captioned]:
    return [Captioned(clip, tuple(said)) for clip, said in zip(clips, CAPTIONS, strict=True)]


@pytest.mark.parametrize(
    ("captions", "texts"),
    [
        ("each", [(n, text) for n, said in enumerate(CAPTIONS) for text in said]),
        ("first", [(n, said[0]) for n, said in enumerate(CAPTIONS)]),
        ("joined", [(n, " ".join(said)) for n, said in enumerate(CAPTIONS)]),
    ],
)
def test_retrieval_by_hand(
    captions: str,
    texts: list[tuple[int, str]],
    searcher: tuple[Any, Processor],
    clips: list[Path],
) -> None:
    result = evaluate_retrieval(*searcher, pairs_of(clips), captions)
    columns = [of_video(searcher, clips) @ of_text(searcher, text) for _, text in texts]
    expected = brute_force(np.stack(columns, axis=1), [owner for owner, _ in texts])
    assert result["metrics"] == pytest.approx(expected)
    assert expected["text_to_video/recall@5"] > 0 and expected["text_to_video/mean_rank"] > 1
    assert (result["videos"], result["measured"], result["texts"]) == (COUNT, COUNT, len(texts))
    assert result["skipped"] == [] and result["texts_cut"] == 0


def test_the_template_counts(searcher: tuple[Any, Processor], clips: list[Path]) -> None:
    model, processor = searcher
    processor.template = "the {} jumps"
    result = evaluate_retrieval(model, processor, pairs_of(clips), "first")
    assert result["settings"]["template"] == "the {} jumps"
    processor.template = "{}"
    columns = [of_text(searcher, f"the {said[0]} jumps") for said in CAPTIONS]
    similarity = of_video(searcher, clips) @ np.stack(columns, axis=1)
    assert result["metrics"] == pytest.approx(brute_force(similarity, range(COUNT)))


def test_texts_that_are_cut_are_counted(searcher: tuple[Any, Processor], clips: list[Path]) -> None:
    model, processor = searcher
    lengths = [
        len(processor.tokenize([text])[0][0]) - int(processor.tokenize([text])[1].sum())
        for said in CAPTIONS
        for text in said
    ]
    for processor.max_length in sorted(set(lengths)):
        result = evaluate_retrieval(model, processor, pairs_of(clips))
        assert result["texts_cut"] == sum(length > processor.max_length for length in lengths)


# Zero-shot.


def test_an_ensemble_of_prompts_by_hand(searcher: tuple[Any, Processor]) -> None:
    model, processor = searcher
    processor.template = "nothing of this {}"
    templates = ["a video of {}.", "{} runs", "the {} in the garden, {}"]
    found = class_embeddings(model, processor, NAMES, templates)
    processor.template = "{}"
    for name, embedding in zip(NAMES, found, strict=True):
        prompts = [template.replace("{}", name) for template in templates]
        mean = np.mean([of_text(searcher, prompt) for prompt in prompts], axis=0, dtype=np.float64)
        np.testing.assert_allclose(embedding, mean / np.sqrt((mean**2).sum()), atol=1e-6)
    one = class_embeddings(model, processor, NAMES, ["{}"])
    np.testing.assert_allclose(one[0], of_text(searcher, NAMES[0]), atol=1e-6)


def labelled(clips: Sequence[Path], labels: Sequence[Any] = LABELS) -> Labelled:
    multi_label = not isinstance(labels[0], int)
    each = tuple(tuple(one) if multi_label else (one,) for one in labels)
    return Labelled(tuple(clips), each, multi_label, NAMES)


def by_hand(scores: np.ndarray, labels: Sequence[int]) -> dict[str, float]:
    """Top-1, top-5 and mean class accuracy, one video after the other."""
    ranks = [1 + sum(row > row[label]) for row, label in zip(scores, labels, strict=True)]
    within = {label: [r == 1 for r, o in zip(ranks, labels) if o == label] for label in labels}  # noqa: B905
    return {
        "top1": np.mean([rank == 1 for rank in ranks]),
        "top5": np.mean([rank <= 5 for rank in ranks]),
        "mean_class_accuracy": np.mean([np.mean(right) for right in within.values()]),
    }


@pytest.mark.parametrize("templates", [None, ["{} runs", "the {}"]])
def test_zero_shot_by_hand(
    templates: list[str] | None, searcher: tuple[Any, Processor], clips: list[Path]
) -> None:
    result = evaluate_zero_shot(*searcher, labelled(clips), templates)
    assert result["settings"]["templates"] == (templates or [PROMPT])
    columns = []
    for name in NAMES:
        prompts = [template.replace("{}", name) for template in templates or [PROMPT]]
        mean = np.mean([of_text(searcher, prompt) for prompt in prompts], axis=0)
        columns.append(of_video(searcher, clips) @ (mean / np.linalg.norm(mean)))
    scores = np.stack(columns, axis=1)
    assert result["metrics"] == pytest.approx(by_hand(scores, LABELS))
    right = scores.argmax(axis=1) == LABELS
    assert [row["name"] for row in result["classes"]] == list(NAMES)
    for number, row in enumerate(result["classes"]):
        of_class = right[np.array(LABELS) == number]
        assert (row["examples"], row["accuracy"]) == (len(of_class), pytest.approx(of_class.mean()))


def test_zero_shot_with_several_labels(searcher: tuple[Any, Processor], clips: list[Path]) -> None:
    labels = [(0,), (1, 2), (), (0, 1, 2), (2,), (1,)]
    result = evaluate_zero_shot(*searcher, labelled(clips, labels), ["{}"])
    precisions = []
    for number, name in enumerate(NAMES):
        scores = of_video(searcher, clips) @ of_text(searcher, name)
        found, precision = 0, []
        for place, video in enumerate(np.argsort(-scores), 1):
            if number in labels[video]:
                found += 1
                precision.append(found / place)
        precisions.append(np.mean(precision))
    assert result["metrics"] == {"map": pytest.approx(np.mean(precisions))}
    assert [row["average_precision"] for row in result["classes"]] == pytest.approx(precisions)
    assert [row["examples"] for row in result["classes"]] == [2, 3, 3]


def test_the_template_of_the_model_comes_first(
    searcher: tuple[Any, Processor], clips: list[Path]
) -> None:
    model, processor = searcher
    processor.template = "this shows {}"
    result = evaluate_zero_shot(model, processor, labelled(clips))
    assert result["settings"]["templates"] == ["this shows {}"]


# Classifiers.


@pytest.fixture
def classifier(converted: Converted) -> tuple[Any, Processor]:
    return vp.load(converted("classifier_mild"))


def logits_by_hand(classifier: tuple[Any, Processor], clips: Sequence[Path]) -> np.ndarray:
    model, processor = classifier
    return np.array(model(**processor(clips))[0])


def test_a_classifier_by_hand(classifier: tuple[Any, Processor], clips: list[Path]) -> None:
    logits = logits_by_hand(classifier, clips)
    labels = [int(row.argmax()) for row in logits[:4]] + [int(row.argmin()) for row in logits[4:]]
    listed = Labelled(tuple(clips), tuple((label,) for label in labels), False, None)
    names = [f"class {number}" for number in range(7)]
    result = evaluate_classifier(*classifier, listed, names)
    assert result["metrics"] == pytest.approx(by_hand(logits, labels))
    assert result["metrics"]["top1"] == pytest.approx(4 / 6)
    assert result["metrics"]["top5"] == pytest.approx(4 / 6)  # Of seven classes the last.
    assert sum(row["examples"] for row in result["classes"]) == COUNT
    assert {row["accuracy"] for row in result["classes"] if not row["examples"]} == {None}

    several = tuple(tuple(np.flatnonzero(row > 0).tolist()) for row in logits)
    multi = evaluate_classifier(*classifier, Labelled(tuple(clips), several, True, None), names)
    assert multi["metrics"] == {"map": 1.0, "mean_class_accuracy": 1.0}


# What is kept.


def test_embeddings_are_made_once(
    searcher: tuple[Any, Processor],
    clips: list[Path],
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, processor = searcher
    copies = [Path(shutil.copy(clip, tmp_path)) for clip in clips]
    reading: list[Path] = []
    real = Processor.read

    def read(self: Processor, video: Path, **options: Any) -> np.ndarray:
        reading.append(video)
        if len(reading) == stop_after:
            raise KeyboardInterrupt
        return real(self, video, **options)

    monkeypatch.setattr(Processor, "read", read)
    stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        evaluate_retrieval(model, processor, pairs_of(copies))
    stop_after, kept = 0, len(list(own_cache.rglob("*.npy")))
    assert kept == 3
    reading.clear()
    first = evaluate_retrieval(model, processor, pairs_of(copies))
    assert sorted(reading) == copies[kept:]

    reading.clear()
    assert evaluate_retrieval(model, processor, pairs_of(copies)) == first
    evaluate_zero_shot(model, processor, labelled(copies))  # The same embeddings.
    assert reading == []
    media.write(copies[2], range(900, 930), size=(64, 48))  # Another video of that name.
    evaluate_retrieval(model, processor, pairs_of(copies))
    assert reading == [copies[2]]

    reading.clear()
    model.vision_encoder.spatial_ln.bias = model.vision_encoder.spatial_ln.bias + 0.1
    evaluate_retrieval(model, processor, pairs_of(copies))
    assert len(reading) == COUNT  # Trained meanwhile, it is another model.
    evaluate_retrieval(model, processor, pairs_of(copies), partial=True)
    processor.resize = "crop"
    evaluate_retrieval(model, processor, pairs_of(copies))
    evaluate_retrieval(model, processor, pairs_of(copies), cache=tmp_path / "elsewhere")
    assert len(reading) == 4 * COUNT


def test_bad_videos(
    searcher: tuple[Any, Processor],
    clips: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    files = [clips[0], tmp_path / "text.mp4", clips[2], tmp_path / "gone.mp4", *clips[4:]]
    with pytest.raises(ValueError, match="2 of 6 videos cannot be used"):
        evaluate_retrieval(*searcher, pairs_of(files))
    said = capsys.readouterr().err
    assert "text.mp4" in said and "gone.mp4" in said

    result = evaluate_retrieval(*searcher, pairs_of(files), skip_bad=True)
    good = [0, 2, 4, 5]
    texts = [(n, text) for n, video in enumerate(good) for text in CAPTIONS[video]]
    embedded = of_video(searcher, [clips[video] for video in good])
    columns = [embedded @ of_text(searcher, text) for _, text in texts]
    expected = brute_force(np.stack(columns, axis=1), [owner for owner, _ in texts])
    assert result["metrics"] == pytest.approx(expected)
    assert (result["videos"], result["measured"], result["texts"]) == (6, 4, len(texts))
    assert len(result["skipped"]) == 2

    zero_shot = evaluate_zero_shot(*searcher, labelled(files), ["{}"], skip_bad=True)
    prompts = np.stack([of_text(searcher, name) for name in NAMES], axis=1)
    labels = [LABELS[video] for video in good]
    assert zero_shot["metrics"] == pytest.approx(by_hand(embedded @ prompts, labels))
    with pytest.raises(ValueError, match="1 of 1 videos cannot be used"):
        evaluate_retrieval(*searcher, [Captioned(tmp_path / "gone.mp4", ("a cat",))], skip_bad=True)


def test_mistakes(
    searcher: tuple[Any, Processor], classifier: tuple[Any, Processor], clips: list[Path]
) -> None:
    names = [str(number) for number in range(7)]
    for call, message in (
        (lambda: evaluate_retrieval(*searcher, pairs_of(clips), "last"), "captions is 'last'"),
        (lambda: evaluate_retrieval(*searcher, []), "there are no videos"),
        (lambda: evaluate_retrieval(*classifier, pairs_of(clips)), "cannot compare videos with"),
        (lambda: evaluate_zero_shot(*classifier, labelled(clips)), "cannot compare videos with"),
        (
            lambda: evaluate_zero_shot(*searcher, labelled(clips)._replace(names=None)),
            "the classes have no names to ask for",
        ),
        (lambda: evaluate_zero_shot(*searcher, labelled(clips), []), r"templates is \[\]"),
        (lambda: evaluate_zero_shot(*searcher, labelled(clips), "{}"), "expected a list"),
        (lambda: evaluate_zero_shot(*searcher, labelled(clips), ["a"]), "the template is 'a'"),
        (
            lambda: evaluate_classifier(*searcher, labelled(clips), names),
            "a FactorizedVideoCLIP is no classifier",
        ),
        (
            lambda: evaluate_classifier(*classifier, labelled(clips), NAMES),
            "there are 3 names and classes up to 2; the classifier has 7",
        ),
        (
            lambda: evaluate_classifier(*classifier, labelled(clips, [7] * COUNT), names),
            "7 names and classes up to 7",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# Lists of labels.


def write_csv(path: Path, *rows: Sequence[Any]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_labels_by_name(tmp_path: Path) -> None:
    rows = [["video", "label"], ["a.mp4", "run"], ["b.mp4", "cafe\u0301 visit"], ["c.mp4", "run "]]
    path = write_csv(tmp_path / "list.csv", *rows)
    found = read_labels(path)
    assert found.names == ("caf\u00e9 visit", "run")
    assert found.labels == ((1,), (0,), (1,)) and not found.multi_label
    assert found.videos[0] == tmp_path / "a.mp4"
    names = ("jump", "run", "caf\u00e9 visit")
    assert read_labels(path, names).labels == ((1,), (2,), (1,))
    assert read_labels(path, names).names == names
    with pytest.raises(ValueError, match=r"line 3: label is .* or one of jump, run"):
        read_labels(path, ("jump", "run"))
    several = tmp_path / "list.json"
    several.write_text(json.dumps([{"file": "a.mp4", "label": ["run", "jump"]}]))
    assert read_labels(several).labels == ((0, 1),) and read_labels(several).multi_label


def test_labels_by_number(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["video", "label"], ["a.mp4", "3"], ["b.mp4", "0"])
    assert read_labels(path)._replace(videos=()) == Labelled((), ((3,), (0,)), False, None)
    assert read_labels(path, ["a", "b", "c", "d"]).labels == ((3,), (0,))
    with pytest.raises(ValueError, match="label is 3; expected 0 to 1 or one of a, b"):
        read_labels(path, ["a", "b"])
    both = [["video", "label_idx", "label"], ["a.mp4", "1", "run"], ["b.mp4", "0", "jump"]]
    assert read_labels(write_csv(tmp_path / "b.csv", *both)).names == ("jump", "run")
    assert read_labels(write_csv(tmp_path / "b.csv", *both)).labels == ((1,), (0,))
    mixed = write_csv(tmp_path / "c.csv", ["video", "label"], ["a.mp4", "2010"], ["b.mp4", "run"])
    assert read_labels(mixed).names == ("2010", "run")
    with pytest.raises(ValueError, match="has 'video', 'caption'; expected label_idx or label"):
        read_labels(write_csv(tmp_path / "d.csv", ["video", "caption"], ["a.mp4", "run"]))


# The command line.


def run(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


@pytest.fixture
def captioned(clips: list[Path], tmp_path: Path) -> Path:
    rows = [(clip, text) for clip, said in zip(clips, CAPTIONS, strict=True) for text in said]
    return write_csv(tmp_path / "captions.csv", ("video", "caption"), *rows)


@pytest.fixture
def classes(clips: list[Path], tmp_path: Path) -> Path:
    rows = [(clip, NAMES[label]) for clip, label in zip(clips, LABELS, strict=True)]
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
            "partial": False,
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
    clips: list[Path],
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
    expected = evaluate_zero_shot(*searcher, labelled(clips), ["the {}", "{} runs"])
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
    clips: list[Path],
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
    for clip, label in zip(clips, LABELS, strict=True):
        (data / names[label]).mkdir(parents=True, exist_ok=True)
        copies.append(shutil.copy(clip, data / names[label]))
    assert run("classifier", "--data", data, "--model", directory, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    logits = logits_by_hand(classifier, clips)
    assert result["metrics"] == pytest.approx(by_hand(logits, LABELS))
    assert [row["name"] for row in result["classes"]] == names
    assert result["settings"]["data"]["sha256"] is None

    (data / "laugh").mkdir()
    shutil.copy(clips[0], data / "laugh")
    assert run("classifier", "--data", data, "--model", directory) == 2
    assert "laugh, which is none of the 7 classes" in capsys.readouterr().err


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
        (("classifier", "--data", "classes.csv"), "a FactorizedVideoCLIP is no classifier"),
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
