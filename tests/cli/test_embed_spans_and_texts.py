"""`embed --start`, `--end`, `--overwrite` and `--text`."""

import json
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest
from commands import LINE, run

import videoprism_mlx as vp
from videoprism_mlx.features.formats import read_features, read_record

VIDEOS = [media.clip(name) for name in ("b.mp4", "uneven.mkv")]
TEXTS = [LINE, "a blue ball", "a grey kite falls down"]


@pytest.fixture(scope="module")
def model(searchable: Path) -> tuple[Any, Any]:
    return vp.load(searchable)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\ufeff" + "\n\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


def test_a_span_of_each_video(model: tuple[Any, Any], searchable: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.npz"
    span = ("--start", 1, "--end", 2.5)
    assert run("embed", *VIDEOS, "-o", output, "--model", searchable, *span) == 0
    for path, row in zip(VIDEOS, read_features(output)["embedding"], strict=True):
        clip = vp.read_video(path, 4, start=1, end=2.5, size=18)
        expected = np.array(model[0](clip[None])[0][0])
        np.testing.assert_allclose(row, expected, atol=2e-6)
    settings = read_record(output)["preprocessing"]
    assert (settings["start"], settings["end"]) == (1.0, 2.5)


def test_the_windows_of_a_span(model: tuple[Any, Any], searchable: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.npz"
    span = ("--start", 1, "--end", 2.5, "--window", 4, "--stride", 3)
    assert run("embed", VIDEOS[0], "-o", output, "--model", searchable, *span) == 0
    found = read_features(output)
    frames = vp.read_video(VIDEOS[0], None, start=1, end=2.5, size=18)
    firsts = [*range(0, len(frames) - 4, 3), len(frames) - 4]
    assert len(found["start"]) == len(firsts) and found["start"][0] == pytest.approx(1, abs=0.04)
    assert found["end"][-1] == pytest.approx(2.5, abs=0.04)
    expected = np.stack([np.array(model[0](frames[None, n : n + 4])[0][0]) for n in firsts])
    np.testing.assert_allclose(found["embedding"], expected, atol=2e-6)


def test_spans_are_not_mixed(
    searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wishes = ("embed", VIDEOS[0], "-o", tmp_path / "o.npz", "--model", searchable)
    assert run(*wishes) == 0
    assert "start" not in read_record(tmp_path / "o.npz")["preprocessing"]
    whole = (tmp_path / "o.npz").read_bytes()
    capsys.readouterr()
    assert run(*wishes, "--start", 1) == 2
    said = capsys.readouterr().err
    assert "preprocessing.start was None and is now 1.0" in said and "--overwrite" in said
    assert (tmp_path / "o.npz").read_bytes() == whole
    assert run(*wishes, "--start", 1, "--overwrite") == 0
    assert (tmp_path / "o.npz").read_bytes() != whole
    assert run(*wishes, "--overwrite") == 0
    assert (tmp_path / "o.npz").read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["o.npz"]


def test_beginning_anew_in_a_folder(searchable: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    wishes = ("embed", "-o", folder, "--model", searchable, "--overwrite")
    assert run(*wishes, *VIDEOS) == 0
    (folder / "notes.npz").write_bytes(b"someone's own")
    (folder / "notes.txt").write_text("someone's own")
    assert run(*wishes, VIDEOS[0], "--format", "jsonl", "--dtype", "float16") == 0
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"b.mp4.jsonl", "record.json", "notes.npz", "notes.txt"}
    assert json.loads((folder / "record.json").read_text())["model"]["dtype"] == "float16"

    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "b.npz").write_bytes(b"someone's own")
    assert run(*wishes, VIDEOS[0], "-o", tmp_path / "theirs") == 2
    assert (tmp_path / "theirs" / "b.npz").read_bytes() == b"someone's own"
    (tmp_path / ".o.npz.parts").mkdir()
    (tmp_path / ".o.npz.parts" / "notes.txt").write_text("someone's own")
    (tmp_path / "o.npz").write_bytes(b"an earlier output")
    assert run(*wishes, VIDEOS[0], "-o", tmp_path / "o.npz") == 2
    assert (tmp_path / "o.npz").read_bytes() == b"an earlier output"
    assert (tmp_path / ".o.npz.parts" / "notes.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--start", "2", "--end", "1"], "the span from 2 to 1 s is empty"),
        (["--start", "-1"], "start is -1.0; expected seconds, 0 or above"),
        (["--template", "a {}"], "--template is for texts"),
        (["--text", "texts.txt"], "expected videos to embed, or a file of texts with --text, and"),
    ],
)
def test_wishes_that_are_refused(
    arguments: list[str],
    message: str,
    searchable: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "o.npz"
    assert run("embed", VIDEOS[0], "-o", output, "--model", searchable, *arguments) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["npz", "safetensors", "jsonl", "parquet"])
def test_texts_in_a_file(
    ending: str, model: tuple[Any, Any], searchable: Path, lines: Path, tmp_path: Path
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    output = tmp_path / f"o.{ending}"
    wishes = ("embed", "--text", lines, "-o", output, "--model", searchable)
    assert run(*wishes, "--template", "a video of {}.") == 0
    prompts = [f"a video of {text}." for text in TEXTS]
    expected = vp.embed_texts(*model, prompts)
    np.testing.assert_allclose(read_features(output)["embedding"], expected, atol=1e-6)
    record = read_record(output)
    assert [text["name"] for text in record["texts"]] == TEXTS and "videos" not in record
    assert record["preprocessing"] == {"template": "a video of {}.", "max_length": 64}
    if ending == "npz":
        assert np.load(output)["texts"].tolist() == TEXTS
    if ending == "jsonl":
        assert [json.loads(line)["text"] for line in output.read_text().splitlines()] == TEXTS


def test_texts_that_are_there_already(
    searchable: Path, lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "o.npz"
    wishes = ("embed", "--text", lines, "-o", output, "--model", searchable)
    assert run(*wishes) == 0
    capsys.readouterr()
    written = output.stat().st_mtime_ns
    assert run(*wishes, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"output": str(output), "texts": 3}
    assert output.stat().st_mtime_ns == written
    lines.write_text("others")
    assert run(*wishes) == 2
    assert "its texts are others" in capsys.readouterr().err
    assert run(*wishes, "--overwrite") == 0
    assert read_features(output)["embedding"].shape == (1, 24)

    videos = ("embed", VIDEOS[0], "-o", output, "--model", searchable)
    assert run(*videos) == 2
    assert "holds embeddings of texts, and not features of videos" in capsys.readouterr().err
    assert run(*videos, "--overwrite") == 0 and run(*wishes) == 2
    assert "holds features of videos, and not embeddings of texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "4"], "--window has no effect on texts; leave it out"),
        (["--frames", "4"], "--frames has no effect on texts"),
        (["-o", "folder"], "texts are written to one file, and folder is none of"),
        (["--text", "gone.txt"], "gone.txt"),
        (["--template", "prompt"], "the template is 'prompt'"),
    ],
)
def test_what_texts_do_not_take(
    arguments: list[str],
    message: str,
    searchable: Path,
    lines: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    wishes = ("embed", "--text", lines, "-o", "o.npz", "--model", searchable)
    assert run(*wishes, *arguments) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["texts.txt"]


def test_printing_the_embeddings_of_texts(
    searchable: Path, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("embed", "--text", lines, "-o", "-", "--model", searchable) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in printed] == TEXTS
    assert [line["record"]["texts"] for line in printed] == [[{"name": text}] for text in TEXTS]
