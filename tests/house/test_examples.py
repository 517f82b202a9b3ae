"""The examples run, on what they or the tests draw, and print what a user would act on."""

import ast
import csv
import dataclasses
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import media
import numpy as np
import pytest
from conftest import reference_config
from PIL import Image

import videoprism_mlx as vp
from videoprism_mlx.models import DEMO_MODEL

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: object) -> str:
    """What an example prints."""
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for name in ("b.mp4", "uneven.mkv", "mpeg4.avi"):
        shutil.copy(media.clip(name), root)
    (root / "broken.mp4").touch()
    return root


def test_each_is_short() -> None:
    for path in EXAMPLES.glob("*.py"):
        is_long = path.name in ("check_parity.py", "train_demo_model.py")
        assert is_long or len(path.read_text().splitlines()) < 60, path


def test_check_parity() -> None:
    printed = run("check_parity.py")
    assert "features     (1, 128, 48)" in printed
    assert "parity " in printed


@pytest.mark.parametrize("family", ["encoder_mild", "clip_mild", "classifier_mild"])
def test_extract_features(
    family: str, folder: Path, tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    model_directory = converted(family)
    output = tmp_path / "features.npz"
    run("extract_features.py", folder / "b.mp4", "-o", output, "--model", model_directory)
    model, processor = vp.load(model_directory)
    expected, _ = model.video_encoder(processor(videos=[folder / "b.mp4"])["inputs"])
    with np.load(output) as saved:
        found = saved["features"]
    assert found.shape == (4, 3, 3, 24)
    np.testing.assert_allclose(found.reshape(expected.shape), np.array(expected), atol=2e-6)


def test_search_videos(folder: Path, searchable: Path) -> None:
    queries = ["a red cat", "a ball"]
    printed = run("search_videos.py", folder, *queries, "--model", searchable, "--top", 2)
    lines = printed.splitlines()
    assert "broken.mp4 is empty" in lines[0]
    model, processor = vp.load(searchable)
    names = ["b.mp4", "mpeg4.avi", "uneven.mkv"]
    videos, texts, _ = model(**processor(videos=[folder / name for name in names], texts=queries))
    cosines = np.array(texts) @ np.array(videos).T
    assert [lines[1], lines[4]] == queries
    for query, row in enumerate(cosines):
        best = np.argsort(-row)[:2]
        for line, place in zip(lines[2 + 3 * query :][:2], best, strict=True):
            cosine, name = line.split()
            assert name == names[place] and float(cosine) == pytest.approx(row[place], abs=6e-4)


def test_classify_video(folder: Path, searchable: Path) -> None:
    labels = ["cat", "dog", "kite"]
    printed = run("classify_video.py", folder / "b.mp4", *labels, "--model", searchable)
    found = {label for label in labels if label in printed}
    assert found == set(labels)
    shares = [float(share) for share in re.findall(r"([\d.]+) ?%", printed)]
    assert len(shares) == 3 and sum(shares) == pytest.approx(100, abs=0.3)
    assert shares == sorted(shares, reverse=True)


def test_long_video(folder: Path, searchable: Path) -> None:
    printed = run(
        "long_video.py", folder / "b.mp4", "a cat", "--model", searchable, "--fps", 30, "--top", 3
    )
    lines = printed.splitlines()
    model, processor = vp.load(searchable)
    [text] = vp.embed_texts(model, processor, ["a cat"])
    windows = list(vp.encode_windows(model, folder / "b.mp4", 16, 4, 30, processor=processor))
    assert lines[0].startswith(f"{len(windows)} windows")
    best = max(windows, key=lambda window: float(text @ window.features["embedding"]))
    start, _, end, _, cosine = lines[1].split()
    assert (float(start), float(end)) == pytest.approx((best.start, best.end), abs=0.051)
    assert float(cosine) == pytest.approx(float(text @ best.features["embedding"]), abs=6e-4)


@pytest.mark.parametrize("family", ["encoder_mild", "clip_mild", "classifier_mild"])
def test_feature_maps(
    family: str, folder: Path, tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    output = tmp_path / "maps.png"
    run("feature_maps.py", folder / "b.mp4", "-o", output, "--model", converted(family))
    assert min(Image.open(output).size) > 200


@pytest.mark.parametrize("name", ["classify_video", "long_video", "search_videos"])
def test_examples_with_text_say_which_model_they_need(name: str) -> None:
    said = (EXAMPLES / f"{name}.py").read_text().split('"""')[1]
    assert "It needs a video-text model (videoprism_lvt_*)." in said


def test_searching_without_texts_ends_before_videos_are_read(tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "search_videos.py", tmp_path / "gone", "a cat"]
    vp.save_model(vp.get_model(reference_config("encoder_mild")), tmp_path / "encoder")
    done = subprocess.run(
        [*command, "--model", tmp_path / "encoder"], capture_output=True, text=True
    )
    last = done.stderr.splitlines()[-1]
    assert (
        f"{tmp_path / 'encoder'} cannot compare videos with texts; use a video-text model" in last
    )


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_argument_has_a_help(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    adding = [call for call in calls if getattr(call.func, "attr", "") == "add_argument"]
    assert all("help" in {word.arg for word in call.keywords} for call in adding)
    assert adding or path.name == "check_parity.py"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("classify_video.py", "gone.mp4", "a star"), "gone.mp4: there is no such file or folder"),
        (("extract_features.py", "gone.mp4"), "gone.mp4: there is no such file or folder"),
        (("feature_maps.py", "gone.mp4"), "gone.mp4: there is no such file or folder"),
        (("long_video.py", "gone.mp4", "a star"), "gone.mp4: there is no such file or folder"),
        (("search_videos.py", ".", "a star"), "the folder . and its subfolders hold no videos, "),
    ],
)
def test_an_error_is_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    name, *more = arguments
    command = [sys.executable, EXAMPLES / name, *more, "--model", DEMO_MODEL]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {said}")


@pytest.mark.slow
def test_train_demo_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    script = importlib.import_module("train_demo_model")
    monkeypatch.setattr(script, "VALIDATION_CLIPS", 4)
    monkeypatch.setattr(script, "SETS", 4)
    monkeypatch.setattr(script, "MOTION_SETS", 2)
    for name in ("FIRST", "THEN", "LAST", "NAMING"):
        recipe = dataclasses.replace(getattr(script, name), epochs=1, batch_size=4)
        monkeypatch.setattr(script, name, recipe)
    monkeypatch.setattr(sys, "argv", ["train", str(tmp_path / "out"), "--clips", "8"])
    results = []
    for _ in range(2):  # The second time all is there.
        script.main()
        results.append(json.loads(capsys.readouterr().out))
        results[-1].pop("minutes")
    assert results[0] == results[1] and results[0]["clips"] == 8
    with open(tmp_path / "out/train/shapes.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 4 * 8
    model, processor = vp.load(tmp_path / "out/shipped")
    assert model.config == vp.load(DEMO_MODEL)[0].config
    assert np.isfinite(vp.embed_texts(model, processor, ["a red star"])).all()
