"""`check --model`: published figures beside ours, on small models and a clip that is drawn."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import media
import mlx.core as mx
import numpy as np
import pytest
from conftest import reference_config
from PIL import Image

import videoprism_mlx as vp
from videoprism_mlx import models
from videoprism_mlx.check import clip, published
from videoprism_mlx.check.published import ALLOWED, FIGURES, TEXTS, Figure, compare
from videoprism_mlx.cli import main
from videoprism_mlx.errors import CheckpointError, DownloadError, InputError
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.tokenizers import TOKENIZER_URLS

NAME, REPOSITORY = "videoprism_tiny", "google/videoprism-tiny"
CLIP = "b.mp4"
CORNERS = {"features": (1, 3, 3), "video embeddings": (1, 9), "text embeddings": (5, 3)}


def clip_frames() -> mx.array:
    """The clip (1, 4, 18, 18, 3) for the small models, as the official demo reads it."""
    frames = media.decode(media.clip(CLIP), *media.SIZE)
    numbers = np.linspace(0, len(frames), num=4, endpoint=False, dtype=np.int32)
    images = [Image.fromarray(frames[number]) for number in numbers]
    resized = [np.asarray(image.resize((18, 18), Image.Resampling.LANCZOS)) for image in images]
    return mx.array(np.stack(resized)[None].astype(np.float32) / np.float32(255))


def corners(outputs: dict[str, mx.array]) -> dict[str, Any]:
    """What others could have published for these outputs."""
    return {
        output: np.array(array)[tuple(map(slice, CORNERS[output]))].astype(float).tolist()
        for output, array in outputs.items()
    }


@pytest.fixture
def official_clip(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clip that passes for the official one."""
    monkeypatch.setattr(clip, "SHA256", sha256(media.clip(CLIP)))
    return media.clip(CLIP)


@pytest.fixture
def encoder(
    official_clip: Path,
    released: Callable[[str], list[dict[str, Any]]],
    converted: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> list[dict[str, Any]]:
    """A released encoder with published features; the downloads that are asked for."""
    downloads = released("encoder_mild")
    features, _ = vp.load_model(converted("encoder_mild"))(clip_frames())
    monkeypatch.setattr(published, "FIGURES", {NAME: corners({"features": features})})
    return downloads


@pytest.fixture
def directory(
    official_clip: Path,
    released: Callable[[str], list[dict[str, Any]]],
    searchable: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The directory of a video-text model with published embeddings."""
    released("clip_mild")
    tokenizer = vp.load_text_tokenizer(searchable)
    tokens = vp.tokenize_texts(tokenizer, [f"a video of {text}." for text in TEXTS])
    video, text, _ = vp.load_model(searchable)(clip_frames(), *map(mx.array, tokens))
    figures = corners({"video embeddings": video, "text embeddings": text})
    monkeypatch.setattr(published, "FIGURES", {NAME: figures})
    return searchable


def shift(output: str, indices: tuple[int, ...], by: float) -> None:
    """Alters a published figure."""
    *before, last = indices
    row = published.FIGURES[NAME][output]
    for number in before:
        row = row[number]
    row[last] += by


def test_there_are_figures_of_two_models() -> None:
    shapes = {name: {o: np.shape(f) for o, f in each.items()} for name, each in FIGURES.items()}
    video, text = "video embeddings", "text embeddings"
    assert shapes == {
        "videoprism_public_v1_base": {"features": (1, 3, 3)},
        "videoprism_lvt_public_v1_base": {video: (1, 9), text: (len(TEXTS), 3)},
    }
    assert {"features": 1e-4, video: 1e-5, text: 1e-4} == ALLOWED
    assert shapes.keys() < models.RELEASES.keys()


@pytest.mark.parametrize("name", [NAME, REPOSITORY])
def test_an_encoder_by_name(encoder: list[dict[str, Any]], official_clip: Path, name: str) -> None:
    figures = compare(name, official_clip)
    assert [one.indices for one in figures] == list(np.ndindex(1, 3, 3))
    assert all(one.agrees and one.difference <= 1e-6 for one in figures)
    assert {(one.model, one.output, one.allowed) for one in figures} == {(NAME, "features", 1e-4)}
    assert compare(name, official_clip) == figures and len(encoder) == 1


def test_a_video_text_model_in_a_directory(directory: Path, official_clip: Path) -> None:
    figures = compare(directory, official_clip)
    assert [one.output for one in figures] == ["video embeddings"] * 9 + ["text embeddings"] * 15
    assert all(one.agrees and one.difference <= 1e-6 for one in figures)
    assert len({one.ours for one in figures}) == len(figures)


def test_weights_in_half_precision_are_computed_in_float32(
    directory: Path, official_clip: Path, tmp_path: Path
) -> None:
    model = vp.load_model(directory, dtype="bfloat16")
    vp.save_model(model, tmp_path / "half", tokenizer=directory / "sentencepiece.model")
    video, _, _ = vp.load_model(tmp_path / "half", dtype="float32")(clip_frames())
    ours = [one.ours for one in compare(tmp_path / "half", official_clip)[:9]]
    np.testing.assert_allclose(ours, np.array(video)[0, :9], rtol=0, atol=1e-6)
    in_half = np.array(model(clip_frames())[0].astype(mx.float32))[0, :9]
    assert np.abs(ours - in_half).max() > 1e-4


@pytest.fixture
def model_of(request: pytest.FixtureRequest) -> Callable[[str], str | Path]:
    """The model with this output: an encoder by its name, or the directory of the other model."""

    def model(output: str) -> str | Path:
        found: str | Path = request.getfixturevalue(
            "encoder" if output == "features" else "directory"
        )
        return NAME if output == "features" else found

    return model


EACH_OUTPUT = pytest.mark.parametrize(
    ("output", "indices"),
    [("features", (0, 2, 1)), ("video embeddings", (0, 8)), ("text embeddings", (3, 1))],
)


@EACH_OUTPUT
def test_a_figure_that_is_off_by_a_thousandth(
    model_of: Callable[[str], str | Path],
    official_clip: Path,
    capsys: pytest.CaptureFixture[str],
    output: str,
    indices: tuple[int, ...],
) -> None:
    model = model_of(output)
    shift(output, indices, 1e-3)
    one = failed(model, official_clip)
    assert (one.output, one.indices, one.label) == (output, indices, f"{output} {list(indices)}")

    command = ["check", "--model", str(model), "--clip", str(official_clip)]
    assert main(command) == 1
    printed = capsys.readouterr().out
    [line] = [line for line in printed.splitlines() if line.endswith("FAILED")]
    pair = f"{one.published:.8f}", f"{one.ours:.8f}"
    assert line.split()[:-2] == [*one.label.split(), *pair, "1.0e-03"]
    assert f"FAILED 1 of {len(compare(model, official_clip))}: {one.label}.\n" in printed
    assert max(map(len, printed.splitlines())) <= 80

    assert main([*command, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == [
        f"{one.label}: {one.ours} is 1.0e-03 from the published {one.published}, "
        f"allowed {ALLOWED[output]:.0e}"
    ]
    assert found["passed"] is False and "Transformers" in found["source"]
    assert [each["agrees"] for each in found["results"]].count(False) == 1


def failed(model: str | Path, path: Path) -> Figure:
    """The one figure that departs."""
    [one] = [one for one in compare(model, path) if not one.agrees]
    return one


@EACH_OUTPUT
@pytest.mark.parametrize("sign", [1, -1])
def test_the_tolerance(
    model_of: Callable[[str], str | Path],
    output: str,
    indices: tuple[int, ...],
    sign: int,
    official_clip: Path,
) -> None:
    model = model_of(output)
    shift(output, indices, 0.98 * sign * ALLOWED[output])
    assert all(one.agrees for one in compare(model, official_clip))
    shift(output, indices, 0.04 * sign * ALLOWED[output])
    one = failed(model, official_clip)
    assert (one.output, one.indices) == (output, indices)
    shift(output, indices, math.nan)
    assert failed(model, official_clip).indices == indices


def test_nan_departs(directory: Path, official_clip: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(directory, tmp_path / "broken")
    weights = mx.load(str(broken / "model.safetensors"))
    assert isinstance(weights, dict)
    name = "contrastive_vision_pooler.pooling_attention_query"
    altered = {name: weights[name] * 1e38}  # Weights that are NaN would not be loaded.
    mx.save_safetensors(str(broken / "model.safetensors"), weights | altered)
    config = json.loads((broken / "config.json").read_text())
    del config["weights_sha256"]
    (broken / "config.json").write_text(json.dumps(config))
    figures = compare(broken, official_clip)
    assert [one.agrees for one in figures] == [False] * 9 + [True] * 15
    assert math.isnan(figures[0].difference)


def test_what_is_printed_if_all_agrees(
    directory: Path, official_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["check", "--model", str(directory), "--clip", str(official_clip)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Figures that others published for {NAME}, from the integration")
    assert printed.endswith("All 24 figures are as published.\n")
    assert sum(line.endswith(" ok") for line in printed.splitlines()) == 24
    assert max(map(len, printed.splitlines())) <= 80
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True and found["faults"] == [] and len(found["results"]) == 24
    assert found["machine"]["precision"] == "float32"


def test_the_clip_needs_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--clip", "clip.mp4"]) == 2
    assert "give --model as well" in capsys.readouterr().err


def test_models_without_figures(converted: Callable[[str], Path]) -> None:
    """None of it looks for a clip or a network."""
    known = "only for videoprism_public_v1_base and videoprism_lvt_public_v1_base"
    for model in (
        "videoprism_public_v1_large",
        "google/videoprism-lvt-large-f8r288",
        models.DEMO_MODEL,
        converted("encoder_mild"),
    ):
        with pytest.raises(InputError, match=f"there are no published figures for .*{known}"):
            compare(model)
    with pytest.raises(InputError, match="did you mean 'videoprism_public_v1_base'"):
        compare("videoprism_public_v1_bas")


def test_a_configuration_may_leave_defaults_out(
    directory: Path, official_clip: Path, tmp_path: Path
) -> None:
    whole = shutil.copytree(directory, tmp_path / "whole")
    config = models.whole_settings(models.get_config(reference_config("clip_mild")))
    assert len(config) > len(reference_config("clip_mild"))
    (whole / "config.json").write_text(json.dumps(config))
    assert all(one.agrees for one in compare(whole, official_clip))
    (whole / "config.json").write_text(json.dumps(config | {"atten_logit_cap": 40.0}))
    with pytest.raises(InputError, match=r"figures for the configuration of .*whole"):
        compare(whole, official_clip)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def read_nothing(*_: object) -> None:
        raise AssertionError("it was computed before all was there")

    monkeypatch.setattr(published, "processor_for", read_nothing)


CLIP_WANTED, TOKENIZER_WANTED = (
    f"{clip.NAME} from {clip.URL} (--clip PATH)",
    TOKENIZER_URLS["c4_en"],
)
WEIGHTS_WANTED = (
    f"flax_tiny.npz from https://huggingface.co/{REPOSITORY} "
    "(videoprism-mlx convert flax_tiny.npz -o DIR, then --model DIR)"
)


def test_all_that_is_missing_is_named_on_one_line(
    encoder: list[dict[str, Any]], offline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--model", NAME]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and encoder == []
    assert printed.err == (
        f"videoprism-mlx: could not fetch what the check of {NAME} needs: HF_HUB_OFFLINE is set; "
        f"without a network, bring: {CLIP_WANTED}; {WEIGHTS_WANTED}\n"
    )


def test_only_what_is_missing_is_named(
    directory: Path,
    official_clip: Path,
    offline: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(DownloadError) as raised:
        compare(directory)
    assert str(raised.value).endswith(f"bring: {CLIP_WANTED}")

    without = shutil.copytree(directory, tmp_path / "without")
    (without / "sentencepiece.model").unlink()
    with pytest.raises(DownloadError, match=r"copy it to .*c4_en\.model") as raised:
        compare(without, official_clip)
    assert TOKENIZER_WANTED in str(raised.value) and clip.URL not in str(raised.value)

    with pytest.raises(DownloadError) as raised:
        compare(NAME)
    assert all(
        each in str(raised.value) for each in (CLIP_WANTED, TOKENIZER_WANTED, WEIGHTS_WANTED)
    )


def test_weights_that_are_missing(
    encoder: list[dict[str, Any]], official_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(**_: Any) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(DownloadError) as raised:
        compare(NAME, official_clip)
    assert str(raised.value).endswith(
        f"needs: no route to host; without a network, bring: {WEIGHTS_WANTED}"
    )


def test_a_directory_without_weights_is_refused_first(
    directory: Path, offline: None, tmp_path: Path
) -> None:
    empty = shutil.copytree(directory, tmp_path / "empty")
    (empty / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="the weights are missing"):
        compare(empty)
