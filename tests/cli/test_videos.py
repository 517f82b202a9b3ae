"""The commands on videos: what they write and print, how they go on, and what they refuse."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import media
import numpy as np
import pytest
from PIL import Image

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.features.formats import read_features, read_record

GOOD = ["b.mp4", "uneven.mkv", "vp9.webm", "mpeg4.avi"]
LINE = "a red cat runs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, in two folders, with three bad ones among them."""
    root = tmp_path_factory.mktemp("videos")
    (root / "deeper").mkdir()
    for name in GOOD:
        shutil.copy(media.clip(name), root / ("deeper" if name == "vp9.webm" else ".") / name)
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("no video\n" * 100)
    shutil.copy(media.clip("short.mp4"), root / "cut.mp4")
    (root / "notes.txt").write_text("not a video, and not called like one")
    return root


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "videoprism_mlx", *map(str, arguments)]


def expected_embedding(model_directory: Path, path: Path) -> np.ndarray:
    model, processor = vp.load(model_directory)
    return np.array(model(**processor(videos=[path]))[0][0])


# Embedding.

STORED = ["b.mp4", "mpeg4.avi", "uneven.mkv", "deeper/vp9.webm"]


@pytest.mark.parametrize("ending", ["npz", "safetensors", "jsonl"])
def test_a_folder_to_one_file(
    ending: str,
    folder: Path,
    searchable: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / f"out.{ending}"
    assert run("embed", folder, "-o", output, "--model", searchable) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    complaints = [line for line in printed.err.splitlines() if line.startswith("skipped: ")]
    assert len(complaints) == 3
    for name, reason in (
        ("empty.mp4", "is empty"),
        ("text.mp4", "is text"),
        ("cut.mp4", "breaks off after"),
    ):
        [line] = [line for line in complaints if f"/{name}" in line]
        assert reason in line
    assert printed.err.splitlines()[-1] == f"4 of 7 videos are in {output}, 3 skipped"

    record = read_record(output)
    assert [video["name"] for video in record["videos"]] == STORED
    assert record["version"] == "0.1.0"
    assert record["model"]["class"] == "FactorizedVideoCLIP"
    assert record["model"]["name"] == str(searchable) and record["model"]["dtype"] == "float32"
    assert record["preprocessing"] == {
        "frames": 4, "fps": None, "size": 18, "resize": "stretch", "resample": "area",
        "partial": False,
    }  # fmt: skip
    embeddings = read_features(output)["embedding"]
    for name, embedding in zip(STORED, embeddings, strict=True):
        expected = expected_embedding(searchable, folder / name)
        np.testing.assert_allclose(embedding, expected, rtol=0, atol=2e-6)

    before = output.read_bytes()
    assert run("embed", folder, "-o", output, "--model", searchable) == 1  # The bad ones again.
    assert output.read_bytes() == before


def test_a_file_for_each_video(folder: Path, searchable: Path, tmp_path: Path) -> None:
    features = "tokens,frames,pooled,embedding"
    arguments = ("embed", *(folder / name for name in STORED), "-o", tmp_path / "out")
    assert run(*arguments, "--model", searchable, "--features", features) == 0
    names = [Path(name).name for name in STORED]
    found = sorted(path.name for path in (tmp_path / "out").glob("*.npz"))
    assert found == sorted(f"{name}.npz" for name in names)
    with np.load(tmp_path / "out" / "b.mp4.npz") as archive:
        shapes = {name: archive[name].shape for name in features.split(",")}
    assert shapes == {
        "tokens": (1, 36, 24), "frames": (1, 4, 24), "pooled": (1, 24), "embedding": (1, 24)
    }  # fmt: skip


def test_windows_of_videos(folder: Path, searchable: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    videos = [folder / "b.mp4", folder / "uneven.mkv"]
    windowing = ("--window", 4, "--stride", 2, "--fps", 6)
    assert run("embed", *videos, "-o", output, "--model", searchable, *windowing) == 0
    with np.load(output) as archive:
        arrays = dict(archive)
    model, processor = vp.load(searchable)
    expected = [
        (number, window)
        for number, video in enumerate(videos)
        for window in vp.encode_windows(
            model, video, 4, 2, 6, processor=processor, features=["embedding"]
        )
    ]
    assert arrays["video_of_window"].tolist() == [number for number, _ in expected]
    np.testing.assert_allclose(arrays["start"], [window.start for _, window in expected])
    np.testing.assert_allclose(arrays["end"], [window.end for _, window in expected])
    np.testing.assert_allclose(
        arrays["embedding"], [w.features["embedding"] for _, w in expected], atol=2e-6
    )


def test_json_lines_on_stdout(
    folder: Path, searchable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("embed", folder, "-o", "-", "--model", searchable) == 1
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["video"] for line in lines] == STORED
    expected = expected_embedding(searchable, folder / "b.mp4")
    np.testing.assert_allclose(lines[0]["embedding"], expected, rtol=0, atol=2e-6)
    assert printed.err.splitlines()[-1] == "4 of 7 videos are embedded, 3 skipped"


def test_a_result_as_json(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.npz"
    assert run("embed", folder, "-o", output, "--model", searchable, "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["output"], result["videos"]) == (str(output), 4)
    assert result["skipped"].keys() == {"empty.mp4", "text.mp4", "cut.mp4"}


def test_partial_videos(folder: Path, searchable: Path, tmp_path: Path) -> None:
    arguments = ("embed", folder / "cut.mp4", "-o", tmp_path / "o.npz", "--model", searchable)
    assert run(*arguments) == 1
    assert list(tmp_path.iterdir()) == []
    assert run(*arguments, "--partial") == 0


@pytest.mark.parametrize("name", ["out.npz", "out.safetensors", "out.jsonl", "out"])
def test_killed_and_started_again(
    name: str, searchable: Path, tmp_path: Path, folder: Path
) -> None:
    """SIGKILL at moments that nobody chose; in the end it is as if nothing had happened."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(40):
        source = folder / ("empty.mp4" if number % 10 == 7 else GOOD[0])
        (videos / f"{number}.mp4").hardlink_to(source)
    whole, output = tmp_path / "whole" / name, tmp_path / name

    def arguments(output: Path) -> list[str]:
        return command("embed", videos, "-o", output, "--model", searchable, "--batch-size", 2)

    done = subprocess.run(arguments(whole), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"36 of 40 videos are in {whole}, 4 skipped"

    parts = output if name == "out" else tmp_path / f".{name}.parts"
    stored = 0
    for wanted in (5, 17):
        with subprocess.Popen(arguments(output), stderr=subprocess.DEVNULL) as running:
            deadline = time.monotonic() + 60
            while stored < wanted and running.poll() is None and time.monotonic() < deadline:
                stored = len(list(parts.glob("[0-9]*")))
            running.kill()
        assert running.returncode == -signal.SIGKILL
        assert wanted <= stored < 36
        assert name == "out" or not output.exists()
    modified = {path: path.stat().st_mtime_ns for path in parts.glob("[0-9]*")}
    done = subprocess.run(arguments(output), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"36 of 40 videos are in {output}, 4 skipped"
    if name == "out":
        # What was there was not done again, but for the batches of what was missing.
        again = {path for path, before in modified.items() if path.stat().st_mtime_ns != before}
        assert len(again - {output / f"{n}.mp4.npz" for n in (6, 16, 26, 36)}) <= 2
        files = sorted(path.relative_to(output) for path in output.rglob("[!.]*"))
        assert files == sorted(path.relative_to(whole) for path in whole.rglob("[!.]*"))
        assert all((output / path).read_bytes() == (whole / path).read_bytes() for path in files)
        assert not [path for path in output.iterdir() if "partial" in path.name]
    else:
        assert output.read_bytes() == whole.read_bytes()
        assert not parts.exists()


def test_ctrl_c_leaves_what_is_done(folder: Path, searchable: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(1500):
        (videos / f"{number}.mp4").hardlink_to(folder / GOOD[0])
    output, parts = tmp_path / "out.npz", tmp_path / ".out.npz.parts"
    not_ignored = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    arguments = command("embed", videos, "-o", output, "--model", searchable)
    with subprocess.Popen(
        arguments, stderr=subprocess.PIPE, text=True, preexec_fn=not_ignored
    ) as running:
        deadline = time.monotonic() + 60
        while len(list(parts.glob("[0-9]*"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        errors = running.stderr.read()
    assert running.returncode == 130
    assert "what is done is kept; the same command goes on from here" in errors
    assert errors.splitlines()[-1] == "videoprism-mlx: stopped"
    assert "Traceback" not in errors
    assert not output.exists() and 4 <= len(list(parts.glob("[0-9]*"))) < 1500


def test_a_disk_that_fills(folder: Path, searchable: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for it: parts fit, the one file for all does not."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))

    output = tmp_path / "out.npz"
    arguments = command(
        *("embed", *(folder / name for name in STORED), "-o", output),
        *("--model", searchable, "--features", "tokens"),
    )
    full = subprocess.run(arguments, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert full.returncode == 2
    last = full.stderr.splitlines()[-1]
    assert last.startswith("videoprism-mlx: ") and "MB are free on the disk: make room" in last
    assert "Traceback" not in full.stderr
    assert not output.exists()
    kept = list((tmp_path / ".out.npz.parts").glob("*.safetensors"))
    assert len(kept) == 4
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_an_output_made_in_another_way(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.npz"
    arguments = ("embed", folder / "b.mp4", "-o", output, "--model", searchable)
    assert run(*arguments) == 0
    before = output.read_bytes()
    for option, reason in (
        (("--resize", "crop"), "preprocessing.resize is stretch there and crop now"),
        (("--frames", 3), "preprocessing.frames is 4 there and 3 now"),
        (("--features", "pooled"), "features is ['embedding'] there and ['pooled'] now"),
        (("--dtype", "float16"), "model.dtype is float32 there and float16 now"),
        (("--window", 4), "preprocessing.window is None there and 4 now"),
    ):
        capsys.readouterr()
        assert run(*arguments, *option) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert "made in another way, and is not mixed" in line and reason in line
    assert output.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stride", "2"], "--stride is about windows; say with --window"),
        (["--fps", "2"], "--fps is about windows"),
        (["--window", "4", "--frames", "4"], "--frames has no meaning with --window"),
        (["--features", "tokens", "-o", "out.jsonl"], "hold one vector a video, not tokens"),
        (["-o", "-", "--json"], "-o - prints JSON lines, and nothing else"),
        (["--features", "embeding"], "did you mean 'embedding'"),
        (["--size", "19"], "--size is 19; expected a multiple of 6"),
        (["--window", "0"], "window is 0; expected 1 frame or more"),
        (["--window", "4", "--stride", "0"], "stride is 0"),
        (["--window", "4", "--fps", "-1"], "fps is -1.0"),
        (["--window", "100000000000000"], "window is 100000000000000"),
        (["--frames", "100000000000000"], "that would be 100,000,000,000,000 frames"),
        (["--frames", "0"], "num_frames is 0"),
        (["--dtype", "int4"], "dtype is 'int4'; expected one of"),
        (["--batch-size", "0"], "--batch-size is 0; expected 1 or more"),
        (
            ["--model", "videoprism_lvt_public_v1_bas"],
            "did you mean 'videoprism_lvt_public_v1_base'",
        ),
    ],
)
def test_bad_wishes(
    arguments: list[str],
    message: str,
    folder: Path,
    searchable: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("embed", folder / "b.mp4", "-o", "out.npz", "--model", searchable)
    assert run(*given, *arguments) in (1, 2)
    printed = capsys.readouterr()
    assert printed.out == "" and message in printed.err
    assert list(tmp_path.iterdir()) == []


def test_no_videos(searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").mkdir()
    for given, message in (
        (tmp_path / "notes", "holds no videos"),
        (f"{tmp_path}/*.mp4", "no file matches"),
    ):
        assert run("embed", given, "-o", tmp_path / "out.npz", "--model", searchable) == 2
        assert message in capsys.readouterr().err
    missing = tmp_path / "missing.mp4"
    assert run("embed", missing, "-o", tmp_path / "out.npz", "--model", searchable) == 1
    assert "skipped: [Errno 2] no such file or folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


@pytest.mark.parametrize("name", [".hidden.mp4", "x" * 240 + ".mp4", "影" * 70 + ".mp4"])
@pytest.mark.parametrize("output", ["out.npz", "out"])
def test_names_at_the_limits(
    name: str, output: str, folder: Path, searchable: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "b.mp4", tmp_path / name)
    given = (tmp_path / name, folder / "mpeg4.avi")
    for _ in range(2):
        assert run("embed", *given, "-o", tmp_path / output, "--model", searchable) == 0
    if output == "out.npz":
        names = [video["name"] for video in read_record(tmp_path / output)["videos"]]
        assert names == [name, "mpeg4.avi"]
    else:
        assert len(list((tmp_path / output).rglob("*.npz"))) == 2


@pytest.mark.parametrize("windowing", [(), ("--window", "4")])
def test_a_video_that_changes_meanwhile(
    windowing: tuple[str, ...],
    folder: Path,
    searchable: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(folder / "b.mp4", tmp_path / name)
    real = vp.features.encode.rows_of

    def replaced(arrays: Any) -> Any:
        shutil.copy(folder / "mpeg4.avi", tmp_path / "a.mp4")
        (tmp_path / "b.mp4").unlink(missing_ok=True)
        return real(arrays)

    arguments = ("embed", *(tmp_path / n for n in ("a.mp4", "b.mp4")), "-o", tmp_path / "o.npz")
    options = ("--model", searchable, *windowing)
    with monkeypatch.context() as patched:
        patched.setattr("videoprism_mlx.features.encode.rows_of", replaced)
        assert run(*arguments, *options) == (1 if windowing else 0)
    before = read_features(tmp_path / "o.npz")["embedding"]
    shutil.copy(folder / "b.mp4", tmp_path / "b.mp4")
    assert run(*arguments, *options) == 0
    after = read_features(tmp_path / "o.npz")["embedding"]
    assert not np.allclose(before[0], after[0], atol=1e-4)
    run("embed", tmp_path / "a.mp4", "-o", tmp_path / "fresh.npz", *options)
    fresh = read_features(tmp_path / "fresh.npz")["embedding"]
    np.testing.assert_array_equal(after[: len(fresh)], fresh)


def test_adding_to_json_lines_in_half_precision(
    folder: Path, searchable: Path, tmp_path: Path
) -> None:
    arguments = ("-o", tmp_path / "o.jsonl", "--model", searchable, "--dtype", "float16")
    for name in ("b.mp4", "mpeg4.avi"):
        assert run("embed", folder / name, *arguments) == 0
    embeddings = read_features(tmp_path / "o.jsonl")["embedding"]
    assert embeddings.shape == (2, 24) and embeddings.dtype == np.float16


def test_another_video_of_the_same_name(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("-o", tmp_path / "o.npz", "--model", searchable)
    for number, name in enumerate(("b.mp4", "mpeg4.avi")):
        (tmp_path / str(number)).mkdir()
        shutil.copy(folder / name, tmp_path / str(number) / "clip.mp4")
    assert run("embed", tmp_path / "0", *arguments) == 0
    before = (tmp_path / "o.npz").read_bytes()
    assert run("embed", tmp_path / "1", *arguments) == 2
    assert "which" in (said := capsys.readouterr().err) and "would go by as well" in said
    assert (tmp_path / "o.npz").read_bytes() == before
    (tmp_path / "0").rename(tmp_path / "moved")  # A folder that moved is the same.
    assert run("embed", tmp_path / "moved", *arguments) == 0
    assert (tmp_path / "o.npz").read_bytes() == before


def test_a_folder_that_may_not_be_read(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret").chmod(0)
    shutil.copy(folder / "b.mp4", tmp_path)
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    assert run("embed", tmp_path, "-o", tmp_path / "o.npz", "--model", searchable) == 2
    assert "secret" in capsys.readouterr().err


# Comparing.


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
    assert "there are 2 labels; expected 7, one a class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["similarity", "--text", ""], "one of the texts is empty"),
        (["similarity", "--text", LINE, "--template", "no place"], "expected a text with {}"),
        (["similarity", "--text", LINE, "--temperature", "0"], "expected a number above 0"),
        (["similarity", "--text-file", "nothing.txt"], "nothing.txt"),
        (["classify", "--labels", LINE, "--top-k", "0"], "--top-k is 0; expected 1 or more"),
        (["classify"], "say with --labels or --labels-file"),
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


# Describing.


def test_info_of_a_released_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "videoprism_lvt_public_v1_base", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 247_623_424
    assert found["weights_bytes"] == {
        "float32": 4 * 247_623_424, "bfloat16": 2 * 247_623_424, "float16": 2 * 247_623_424
    }  # fmt: skip
    assert (found["frames"], found["size"]) == (16, "288 x 288")
    assert found["source"].startswith("https://huggingface.co/google/videoprism-lvt-base")
    assert run("info", "videoprism_lvt_public_v1_base") == 0
    printed = capsys.readouterr().out
    assert "parameters      247,623,424\n" in printed
    assert "weights         990 MB float32, 495 MB bfloat16, 495 MB float16\n" in printed


def test_info_of_a_directory(
    searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("info", searchable, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["frames"], found["size"]) == (4, "18 x 18")
    assert found["model"] == "FactorizedVideoCLIP"
    assert run("info", "videoprism_lvt_public_v1_bse") == 2
    assert "did you mean 'videoprism_lvt_public_v1_base'" in capsys.readouterr().err
    assert run("info", tmp_path) == 2
    assert "is no model directory" in capsys.readouterr().err


# Drawing.


def test_a_picture_of_features(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "maps.png"
    arguments = ("show", folder / "b.mp4", "--model", searchable)
    assert run(*arguments, "-o", output, "--frames", 6, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"output": str(output), "frames": 6}
    image = Image.open(output)
    assert image.format == "PNG" and min(image.size) > 300
    assert run(*arguments, "-o", output) == 0
    assert capsys.readouterr().out == f"{output}\n"


def test_a_film_of_features(folder: Path, searchable: Path, tmp_path: Path) -> None:
    output = tmp_path / "maps.mp4"
    arguments = ("--model", searchable, "-o", output, "--fps", 5, "--start", 1, "--end", 3)
    assert run("show", folder / "b.mp4", *arguments) == 0
    film = cv2.VideoCapture(str(output))
    assert film.get(cv2.CAP_PROP_FPS) == 5
    frames = []
    while (read := film.read())[0]:
        frames.append(read[1])
    assert len(frames) == 10
    width = (frames[0].shape[1] - 8) // 2
    assert [media.number(frame[:288, :width]) for frame in frames] == list(range(30, 90, 6))


def test_a_timeline(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "when.png"
    arguments = ("timeline", folder / "b.mp4", "--text", LINE, "a kite", "--model", searchable)
    assert run(*arguments, "-o", output, "--stride", 2, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    model, processor = vp.load(searchable)
    windows = list(
        vp.encode_windows(
            model, folder / "b.mp4", 4, 2, 8, processor=processor, features=["embedding"]
        )
    )
    assert found["windows"] == len(windows)
    texts = vp.embed_texts(model, processor, [LINE, "a kite"])
    scores = np.stack([window.features["embedding"] for window in windows]) @ texts.T
    for number, text in enumerate((LINE, "a kite")):
        best = next(peak for peak in found["peaks"] if peak["text"] == text)
        window = windows[int(scores[:, number].argmax())]
        assert best["cosine"] == pytest.approx(scores[:, number].max(), abs=2e-6)
        assert best["seconds"] == pytest.approx((window.start + window.end) / 2)
    assert Image.open(output).format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "-o", "out.gif"], "does not say what to draw; call it *.png or *.mp4"),
        (["show", "-o", "out.png", "--fps", "2"], "--fps is about an .mp4"),
        (["show", "-o", "out.mp4", "--frames", "2"], "--frames is about a .png"),
        (["show", "-o", "out.png", "--start", "9"], "outside"),
        (["timeline", "-o", "out.mp4", "--text", LINE], "call it *.png"),
        (["timeline", "-o", "out.png", "--text", LINE, "--window", "0"], "window is 0"),
        (["timeline", "-o", "out.png", "--text", LINE, "--stride", "0"], "stride is 0"),
        (["timeline", "-o", "out.png", "--text", LINE, "--fps", "0"], "fps is 0"),
    ],
)
def test_bad_pictures(
    arguments: list[str],
    message: str,
    folder: Path,
    searchable: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *rest = arguments
    assert run(name, folder / "b.mp4", *rest, "--model", searchable) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_does_not_replace_the_video(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clip.mp4"
    shutil.copy(folder / "b.mp4", path)
    before = path.read_bytes()
    assert run("show", path, "-o", tmp_path / "." / "clip.mp4", "--model", searchable) == 2
    assert "is the video itself; name another output" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_broken_video_is_not_drawn(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (folder / "cut.mp4", "-o", tmp_path / "x.png", "--model", searchable)
    assert run("show", *arguments) == 2
    assert "breaks off after" in capsys.readouterr().err
    assert run("timeline", *arguments, "--text", LINE) == 2
    assert list(tmp_path.iterdir()) == []
    assert run("show", *arguments, "--partial") == 0


# Manners.


def modules_of(*arguments: object) -> tuple[int, set[str]]:
    """The exit code of a command, and which heavy modules it imported."""
    script = (
        "import sys; from videoprism_mlx.cli import main\n"
        "try: code = main(sys.argv[1:])\n"
        "except SystemExit as ended: code = ended.code\n"
        "print(code, *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True
    )
    code, *names = done.stderr.splitlines()[-1].split()
    heavy = {"mlx", "numpy", "cv2", "PIL", "safetensors", "huggingface_hub", "matplotlib"}
    return int(code), heavy & set(names)


@pytest.mark.parametrize(
    "name", ["", "embed", "similarity", "classify", "info", "show", "timeline", "convert"]
)
def test_help_imports_nothing_heavy(name: str) -> None:
    assert modules_of(*([name] if name else []), "--help") == (0, set())


def test_mistakes_that_need_no_model_import_nothing_heavy() -> None:
    assert modules_of("embed", "--nonsense") == (2, set())
    assert modules_of("show", "a.mp4", "-o", "x.gif") == (2, set())


def test_whoever_reads_the_results_may_have_enough(folder: Path, searchable: Path) -> None:
    arguments = command("embed", *[folder / "b.mp4"], "-o", "-", "--model", searchable)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(arguments, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_a_closed_stdout(searchable: Path) -> None:
    arguments = ["sh", "-c", 'exec "$@" >&-', "sh", *command("info", searchable)]
    done = subprocess.run(arguments, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bug_keeps_its_traceback(
    folder: Path, searchable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> Sequence[Any]:
        raise RuntimeError("a bug")

    monkeypatch.setattr("videoprism_mlx.features.encode.video_features", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run("embed", folder / "b.mp4", "-o", tmp_path / "out.npz", "--model", searchable)
