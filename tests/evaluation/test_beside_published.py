"""Published figures beside those measured, and how the protocols differ."""

import json
from pathlib import Path

import pytest
import standins
from by_hand import CAPTIONS, LABELS, NAMES, pairs_of, write_csv

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.errors import InputError
from videoprism_mlx.evaluation.figures import DATASETS, SOURCES, with_protocol
from videoprism_mlx.evaluation.protocols import evaluate_retrieval
from videoprism_mlx.evaluation.published import figures_of, is_rounded, released_name
from videoprism_mlx.weights.loading import model_outline

pytest_plugins = ["evaluation_fixtures"]

BASE, LARGE = "videoprism_lvt_public_v1_base", "videoprism_lvt_public_v1_large"

# As the tables of the official README have them, in percent: base, large.
README = {
    ("msrvtt", "retrieval", "video_to_text/recall@1"): (49.8, 50.6),
    ("msrvtt", "retrieval", "text_to_video/recall@1"): (50.1, 50.1),
    ("vatex", "retrieval", "video_to_text/recall@1"): (73.1, 75.0),
    ("vatex", "retrieval", "text_to_video/recall@1"): (56.2, 57.2),
    ("activitynet", "retrieval", "video_to_text/recall@1"): (47.9, 49.1),
    ("activitynet", "retrieval", "text_to_video/recall@1"): (48.8, 51.3),
    ("k400", "zero-shot", "top1"): (69.2, 72.4),
    ("ssv2-temporal", "zero-shot", "top1"): (14.6, 18.0),
    ("ssv2-events", "zero-shot", "top1"): (11.3, 12.4),
    ("charades", "zero-shot", "map"): (26.9, 32.4),
    ("k400", "probe", "top1"): (82.9, 85.0),
    ("mit", "probe", "top1"): (39.7, 43.3),
    ("ssv2", "probe", "top1"): (62.2, 64.6),
    ("diving48", "probe", "top1"): (64.3, 67.6),
    ("charades", "probe", "map"): (43.5, 53.2),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where released models and their tokenizer are kept."""
    root = tmp_path_factory.mktemp("released")
    scratch = tmp_path_factory.mktemp("tokenizer")
    standins.write_tokenizer(root / "cache" / "tokenizers" / "c4_en.model", scratch)
    return root


@pytest.fixture
def own_place(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Released models are small here, and nothing is downloaded."""
    standins.shrink_models(monkeypatch, kept)


def test_the_figures_are_those_of_the_readme() -> None:
    found = {
        (name, protocol, figure.metric, figure.model.rpartition("_")[2]): figure.value
        for name, dataset in DATASETS.items()
        for protocol, figures in dataset.figures.items()
        for figure in figures
        if figure.source == "README"
    }
    expected = {
        (*key, size): share / 100
        for key, shares in README.items()
        for size, share in zip(("base", "large"), shares, strict=True)
    }
    assert found == pytest.approx(expected)
    for dataset in DATASETS.values():
        for protocol, figures in dataset.figures.items():
            for figure in figures:
                assert figure.source in SOURCES
                assert ("lvt" in figure.model) == (protocol != "probe")


def test_shares_of_mteb_are_of_its_pairs() -> None:
    """Each is a whole number of 879 pairs, to the rounding of the published figure."""
    figures = [each for each in DATASETS["msrvtt"].figures["retrieval"] if each.source == "MTEB"]
    assert len(figures) == 4
    for figure in figures:
        assert abs(figure.value - round(figure.value * 879) / 879) < 0.00005
        assert (figure.videos, figure.texts) == (879, 879)


def test_retrieval_beside_what_was_published(
    own_place: None, six_clips: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(clip, text) for clip, said in zip(six_clips, CAPTIONS, strict=True) for text in said]
    listed = write_csv(tmp_path / "captions.csv", ("video", "caption"), *rows)
    arguments = ["evaluate", "retrieval", "--data", str(listed), "--dataset", "msrvtt"]
    arguments += ["--frames", "2", "--template", "the {}"]
    assert main([*arguments, "-o", str(tmp_path / "result.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads((tmp_path / "result.json").read_text())
    recalls = [
        f"{result['metrics'][f'{way}/recall@1']:.1%}" for way in ("text_to_video", "video_to_text")
    ]
    assert lines[5:] == [
        f"published of {BASE} for MSRVTT-1K",
        "                             here   README     MTEB",
        f"text to video R@1      {recalls[0]:>10}    50.1%    50.1%",
        f"video to text R@1      {recalls[1]:>10}    49.8%    49.8%",
        "not as in README: videos (6 here, 1,000 there)",
        "not as in README: texts (10 here, 1,000 there)",
        "not as in README: frames (2 here, 4 there)",
        "not said by README: captions, prompts, sampling, resize",
        "not as in MTEB: videos (6 here, 879 there)",
        "not as in MTEB: texts (10 here, 879 there)",
        "not as in MTEB: prompts ('the {}' here, '{}' there)",
        "not as in MTEB: frames (2 here, 4 there)",
        "not as in MTEB: sampling (without the end here, to the last frame there)",
        "not said by MTEB: captions, resize, weights",
        "README: https://github.com/google-deepmind/videoprism",
        "MTEB: https://github.com/embeddings-benchmark/mteb",
    ]
    assert max(map(len, lines)) <= 80
    published = result["published"]
    assert (published["dataset"], published["model"]) == ("msrvtt", BASE)
    assert published["figures"][0] == {
        "metric": "text_to_video/recall@1",
        "here": result["metrics"]["text_to_video/recall@1"],
        "published": 0.501,
        "source": "README",
    }
    settings = {(each["source"], each["setting"]): each for each in published["settings"]}
    assert settings["README", "size"]["same"] is True
    assert settings["README", "weights"]["same"] is True
    assert settings["MTEB", "prompts"]["here"] == ["the {}"]
    assert settings["README", "resize"] == {
        "setting": "resize", "here": "stretch, area", "published": None, "same": None,
        "source": "README",
    }  # fmt: skip

    assert main([*arguments[:4], "--json"]) == 0
    assert "published" not in json.loads(capsys.readouterr().out)


def test_zero_shot_and_a_probe(
    own_place: None, six_clips: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(clip, NAMES[label]) for clip, label in zip(six_clips, LABELS, strict=True)]
    listed = str(write_csv(tmp_path / "classes.csv", ("video", "label"), *rows))
    arguments = ["evaluate", "zero-shot", "--data", listed, "--dataset", "k400", "--json"]
    assert main(arguments) == 0
    published = json.loads(capsys.readouterr().out)["published"]
    assert [each["published"] for each in published["figures"]] == [0.692, 0.6756]
    prompts = [each for each in published["settings"] if each["setting"] == "prompts"]
    assert [each["same"] for each in prompts] == [None, True]  # "a video of {}" is the default.
    assert main([*arguments, "--model", LARGE]) == 0
    published = json.loads(capsys.readouterr().out)["published"]
    assert [each["published"] for each in published["figures"]] == [0.724]

    model = "videoprism_public_v1_large"
    probe = ["evaluate", "probe", "--data", listed, "--val", listed, "--model", model]
    probe += ["--sizes", "all", "--seeds", "1", "--epochs", "1", "--dataset", "k400"]
    assert main(probe) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[5].split()[:2] == ["here", "README"]
    assert lines[6].split()[-1] == "85.0%"
    assert "not said by README: videos, videos to train on, sampling, resize" in lines


@pytest.mark.parametrize(
    ("model", "protocol", "dataset", "message"),
    [
        (BASE, "retrieval", "vatx", r"'vatx' \(did you mean 'vatex'\?\); expected one of msrvtt"),
        (BASE, "retrieval", "k400", "no retrieval result was published for a dataset 'k400'"),
        (BASE, "probe", "k400", f"published of {BASE}, only of videoprism_public_v1_base, video"),
        ("videoprism_lvt_demo_tiny", "retrieval", "msrvtt", "of videoprism_lvt_demo_tiny, only of"),
    ],
)
def test_what_was_not_published(
    model: str, protocol: str, dataset: str, message: str, own_place: None
) -> None:
    with pytest.raises(InputError, match=message):
        figures_of(model_outline(model)[0], protocol, dataset)


def test_adapters_and_other_weights_are_no_released_model(own_place: None, tmp_path: Path) -> None:
    model, processor = vp.load(BASE)
    assert released_name(model) == BASE and figures_of(model, "retrieval", "msrvtt")
    with pytest.raises(InputError, match=f"published of {BASE} with adapters, only"):
        figures_of(model, "retrieval", "msrvtt", tmp_path)
    vp.save_model(model, tmp_path / "copy")
    copy, _ = vp.load(tmp_path / "copy")
    with pytest.raises(InputError, match="copy, only of"):  # Before anything is computed.
        evaluate_retrieval(copy, processor, pairs_of([tmp_path / "no.mp4"] * 6), dataset="msrvtt")


def test_a_classifier_is_compared_as_a_probe(own_place: None, tmp_path: Path) -> None:
    from videoprism_mlx.weights.directory import publish

    name = "videoprism_public_v1_base"
    classifier = vp.load_classifier(name, 3)
    for source, expected in ((name, name), (str(tmp_path), None)):
        publish(classifier, tmp_path / "trained", {}, source={"trained_from": source})
        assert released_name(vp.load_model(tmp_path / "trained")) == expected
    publish(classifier, tmp_path / "trained", {}, source={"trained_from": name})
    [figure] = figures_of(vp.load_model(tmp_path / "trained"), "classifier", "k400")
    assert figure.value == 0.829
    assert with_protocol("probe") == ["k400", "mit", "ssv2", "diving48", "charades"]


def test_help_names_the_datasets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "retrieval", "--help"])
    assert "msrvtt, vatex, activitynet" in " ".join(capsys.readouterr().out.split())


def test_quantized_weights_are_not_those_that_were_measured(
    own_place: None, six_clips: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor are dequantized ones, which are in float32 as well."""
    rows = zip(six_clips, [said[0] for said in CAPTIONS], strict=True)
    listed = write_csv(tmp_path / "captions.csv", ("video", "caption"), *rows)
    small, again = tmp_path / "small", tmp_path / "again"
    assert main(["convert", BASE, "-o", str(small), "-q"]) == 0
    assert main(["convert", str(small), "-o", str(again), "--dequantize"]) == 0
    for model, weights in ((small, "4 bits in groups of 64"), (again, "dequantized, float32")):
        capsys.readouterr()
        arguments = ["evaluate", "retrieval", "--data", str(listed), "--dataset", "msrvtt"]
        assert main([*arguments, "--model", str(model)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert f"published of {BASE} for MSRVTT-1K" in lines
        assert f"not as in README: weights ({weights} here, float32 there)" in lines
    assert is_rounded(vp.load_model(small)) and is_rounded(vp.load_model(again))
    assert not is_rounded(vp.load_model(BASE))
