"""Published protocols, against the same thing worked out by hand."""

import json
import shutil
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest
from by_hand import (
    CAPTIONS,
    COUNT,
    LABELS,
    NAMES,
    brute_force,
    by_hand,
    labelled,
    logits_by_hand,
    of_text,
    of_video,
    pairs_of,
)

from videoprism_mlx.datasets.captions import Captioned
from videoprism_mlx.datasets.labels import Labelled
from videoprism_mlx.evaluation.protocols import (
    class_embeddings,
    evaluate_classifier,
    evaluate_retrieval,
    evaluate_zero_shot,
)
from videoprism_mlx.features.processor import PROMPT, Processor
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.weights.directory import WEIGHTS_FILE
from videoprism_mlx.weights.identity import ModelIdentity

pytest_plugins = ["evaluation_fixtures"]
pytestmark = pytest.mark.usefixtures("own_cache")


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
    six_clips: list[Path],
) -> None:
    result = evaluate_retrieval(*searcher, pairs_of(six_clips), captions)
    columns = [of_video(searcher, six_clips) @ of_text(searcher, text) for _, text in texts]
    expected = brute_force(np.stack(columns, axis=1), [owner for owner, _ in texts])
    assert result["metrics"] == pytest.approx(expected)
    assert expected["text_to_video/recall@5"] > 0 and expected["text_to_video/mean_rank"] > 1
    assert (result["videos"], result["measured"], result["texts"]) == (COUNT, COUNT, len(texts))
    assert result["skipped"] == [] and result["texts_cut"] == 0


def test_the_template_counts(searcher: tuple[Any, Processor], six_clips: list[Path]) -> None:
    model, processor = searcher
    processor.template = "the {} jumps"
    result = evaluate_retrieval(model, processor, pairs_of(six_clips), "first")
    assert result["settings"]["template"] == "the {} jumps"
    processor.template = "{}"
    columns = [of_text(searcher, f"the {said[0]} jumps") for said in CAPTIONS]
    similarity = of_video(searcher, six_clips) @ np.stack(columns, axis=1)
    assert result["metrics"] == pytest.approx(brute_force(similarity, range(COUNT)))


def test_texts_that_are_cut_are_counted(
    searcher: tuple[Any, Processor], six_clips: list[Path]
) -> None:
    model, processor = searcher
    lengths = [
        len(processor.tokenize([text])[0][0]) - int(processor.tokenize([text])[1].sum())
        for said in CAPTIONS
        for text in said
    ]
    for processor.max_length in sorted(set(lengths)):
        result = evaluate_retrieval(model, processor, pairs_of(six_clips))
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


@pytest.mark.parametrize("templates", [None, ["{} runs", "the {}"]])
def test_zero_shot_by_hand(
    templates: list[str] | None, searcher: tuple[Any, Processor], six_clips: list[Path]
) -> None:
    result = evaluate_zero_shot(*searcher, labelled(six_clips), templates)
    assert result["settings"]["templates"] == (templates or [PROMPT])
    columns = []
    for name in NAMES:
        prompts = [template.replace("{}", name) for template in templates or [PROMPT]]
        mean = np.mean([of_text(searcher, prompt) for prompt in prompts], axis=0)
        columns.append(of_video(searcher, six_clips) @ (mean / np.linalg.norm(mean)))
    scores = np.stack(columns, axis=1)
    assert result["metrics"] == pytest.approx(by_hand(scores, LABELS))
    right = scores.argmax(axis=1) == LABELS
    assert [row["name"] for row in result["classes"]] == list(NAMES)
    for number, row in enumerate(result["classes"]):
        of_class = right[np.array(LABELS) == number]
        assert (row["examples"], row["accuracy"]) == (len(of_class), pytest.approx(of_class.mean()))


def test_zero_shot_with_several_labels(
    searcher: tuple[Any, Processor], six_clips: list[Path]
) -> None:
    labels = [(0,), (1, 2), (), (0, 1, 2), (2,), (1,)]
    result = evaluate_zero_shot(*searcher, labelled(six_clips, labels), ["{}"])
    precisions = []
    for number, name in enumerate(NAMES):
        scores = of_video(searcher, six_clips) @ of_text(searcher, name)
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
    searcher: tuple[Any, Processor], six_clips: list[Path]
) -> None:
    model, processor = searcher
    processor.template = "this shows {}"
    result = evaluate_zero_shot(model, processor, labelled(six_clips))
    assert result["settings"]["templates"] == ["this shows {}"]


def test_a_classifier_by_hand(classifier: tuple[Any, Processor], six_clips: list[Path]) -> None:
    logits = logits_by_hand(classifier, six_clips)
    labels = [int(row.argmax()) for row in logits[:4]] + [int(row.argmin()) for row in logits[4:]]
    listed = Labelled(tuple(six_clips), tuple((label,) for label in labels), False, None)
    names = [f"class {number}" for number in range(7)]
    result = evaluate_classifier(*classifier, listed, names)
    assert result["metrics"] == pytest.approx(by_hand(logits, labels))
    assert result["metrics"]["top1"] == pytest.approx(4 / 6)
    assert result["metrics"]["top5"] == pytest.approx(4 / 6)  # Of seven classes the last.
    assert sum(row["examples"] for row in result["classes"]) == COUNT
    assert {row["accuracy"] for row in result["classes"] if not row["examples"]} == {None}

    several = tuple(tuple(np.flatnonzero(row > 0).tolist()) for row in logits)
    multi = evaluate_classifier(*classifier, Labelled(tuple(six_clips), several, True, None), names)
    assert multi["metrics"] == {"map": 1.0, "mean_class_accuracy": 1.0}


# What is kept.


def test_embeddings_are_made_once(
    searcher: tuple[Any, Processor],
    six_clips: list[Path],
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, processor = searcher
    copies = [Path(shutil.copy(clip, tmp_path)) for clip in six_clips]
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
    six_clips: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    files = [
        six_clips[0],
        tmp_path / "text.mp4",
        six_clips[2],
        tmp_path / "gone.mp4",
        *six_clips[4:],
    ]
    with pytest.raises(ValueError, match="2 of 6 videos cannot be used"):
        evaluate_retrieval(*searcher, pairs_of(files))
    said = capsys.readouterr().err
    assert "text.mp4" in said and "gone.mp4" in said

    result = evaluate_retrieval(*searcher, pairs_of(files), skip_bad=True)
    good = [0, 2, 4, 5]
    texts = [(n, text) for n, video in enumerate(good) for text in CAPTIONS[video]]
    embedded = of_video(searcher, [six_clips[video] for video in good])
    columns = [embedded @ of_text(searcher, text) for _, text in texts]
    expected = brute_force(np.stack(columns, axis=1), [owner for owner, _ in texts])
    assert result["metrics"] == pytest.approx(expected)
    assert (result["videos"], result["measured"], result["texts"]) == (6, 4, len(texts))
    assert len(result["skipped"]) == 2

    zero_shot = evaluate_zero_shot(*searcher, labelled(files), ["{}"], skip_bad=True)
    prompts = np.stack([of_text(searcher, name) for name in NAMES], axis=1)
    labels = [LABELS[video] for video in good]
    assert zero_shot["metrics"] == pytest.approx(by_hand(embedded @ prompts, labels))
    with pytest.raises(ValueError, match="1 of 1 video cannot be used"):
        evaluate_retrieval(*searcher, [Captioned(tmp_path / "gone.mp4", ("a cat",))], skip_bad=True)


def test_mistakes(
    searcher: tuple[Any, Processor], classifier: tuple[Any, Processor], six_clips: list[Path]
) -> None:
    names = [str(number) for number in range(7)]
    for call, message in (
        (lambda: evaluate_retrieval(*searcher, pairs_of(six_clips), "last"), "captions is 'last'"),
        (lambda: evaluate_retrieval(*searcher, []), "there are no videos"),
        (
            lambda: evaluate_zero_shot(*searcher, Labelled((), (), False, NAMES)),
            "there are no videos to measure",
        ),
        (
            lambda: evaluate_retrieval(*classifier, pairs_of(six_clips)),
            "cannot compare videos with",
        ),
        (
            lambda: evaluate_zero_shot(*classifier, labelled(six_clips)),
            "cannot compare videos with",
        ),
        (
            lambda: evaluate_zero_shot(*searcher, labelled(six_clips)._replace(names=None)),
            "the classes have no names; give their names",
        ),
        (lambda: evaluate_zero_shot(*searcher, labelled(six_clips), []), r"templates is \[\]"),
        (lambda: evaluate_zero_shot(*searcher, labelled(six_clips), "{}"), "expected a list"),
        (lambda: evaluate_zero_shot(*searcher, labelled(six_clips), ["a"]), "the template is 'a'"),
        (
            lambda: evaluate_classifier(*searcher, labelled(six_clips), names),
            "/model is not a classifier",
        ),
        (
            lambda: evaluate_classifier(*classifier, labelled(six_clips), NAMES),
            "there are 3 names and classes up to 2; the classifier has 7",
        ),
        (
            lambda: evaluate_classifier(*classifier, labelled(six_clips, [7] * COUNT), names),
            "7 names and classes up to 7",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_result_says_what_was_measured(
    searcher: tuple[Any, Processor], searchable: Path, six_clips: list[Path], tmp_path: Path
) -> None:
    """One call does what the command does: it notes the model and the data, and writes a file."""
    model, processor = searcher
    listed = tmp_path / "list.csv"
    listed.write_text("video,caption\n")
    options = dict(
        identity=ModelIdentity(model, searchable, "a name"),
        data=listed,
        output=tmp_path / "new" / "result.json",
    )
    plain = evaluate_retrieval(model, processor, pairs_of(six_clips))
    result = evaluate_retrieval(model, processor, pairs_of(six_clips), **options)
    assert json.loads((tmp_path / "new" / "result.json").read_text()) == result
    assert result["metrics"] == plain["metrics"]
    noted = {"name": "a name", "weights": sha256(searchable / WEIGHTS_FILE), "adapters": None}
    assert result["settings"] == {
        **plain["settings"],
        "model": plain["settings"]["model"] | noted,
        "data": {"path": str(listed), "sha256": sha256(listed)},
    }
    zero_shot = evaluate_zero_shot(model, processor, labelled(six_clips), data=tmp_path)
    assert zero_shot["settings"]["data"] == {"path": str(tmp_path), "sha256": None}
