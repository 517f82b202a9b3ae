"""`embed`: what it writes, prints and refuses."""

import json
import shutil
from pathlib import Path

import media
import numpy as np
import pytest
from commands import STORED, expected_embedding, make_videos, run

import videoprism_mlx as vp
from videoprism_mlx.features.formats import read_features, read_record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


def test_features_of_the_old_reader_are_not_mixed_with_new_ones(
    searchable: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    video = shutil.copy(media.clip("b.mp4"), tmp_path / "b.mp4")
    command = ("embed", video, "-o", tmp_path / "out.npz", "--model", searchable)
    with monkeypatch.context() as earlier:  # Records of earlier versions do not name the reader.
        earlier.setattr(vp.Decoding, "record", lambda decoding: {})
        assert run(*command) == 0
    before = (tmp_path / "out.npz").read_bytes()
    assert run(*command) == 2
    said = capsys.readouterr().err
    assert "earlier versions decoded video files with OpenCV" in said
    assert "ame another output" in said
    assert (tmp_path / "out.npz").read_bytes() == before


def test_how_files_are_decoded(
    searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = shutil.copy(media.clip("two_streams.mkv"), tmp_path / "two.mkv")
    found = {}
    for number in (0, 1):
        output = tmp_path / f"{number}.npz"
        chosen = ("--stream", number, "--tone-map", "--hardware", "auto")
        assert run("embed", video, "-o", output, "--model", searchable, *chosen) == 0
        read = read_record(output)["preprocessing"]
        assert (read["stream"], read["tone_map"], read["hardware"]) == (number, True, "auto")
        found[number] = read_features(output)["embedding"][0]
    np.testing.assert_allclose(found[0], expected_embedding(searchable, video), rtol=0, atol=2e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert run("embed", video, "-o", tmp_path / "0.npz", "--model", searchable) == 2
    assert "preprocessing.stream was 0 and is now None" in capsys.readouterr().err


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
        "partial": False, "reader": "ffmpeg",
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


def test_an_output_made_in_another_way(
    folder: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.npz"
    arguments = ("embed", folder / "b.mp4", "-o", output, "--model", searchable)
    assert run(*arguments) == 0
    before = output.read_bytes()
    for option, reason in (
        (("--resize", "crop"), "preprocessing.resize was stretch and is now crop"),
        (("--frames", 3), "preprocessing.frames was 4 and is now 3"),
        (("--features", "pooled"), "features was ['embedding'] and is now ['pooled']"),
        (("--dtype", "float16"), "model.dtype was float32 and is now float16"),
        (("--window", 4), "preprocessing.window was None and is now 4"),
    ):
        capsys.readouterr()
        assert run(*arguments, *option) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert "was made with other settings" in line and reason in line
    assert output.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stride", "2"], "(--stride) is only for windows; give window (--window) as well"),
        (["--fps", "2"], "(--fps) is only for windows"),
        (["--window", "4", "--frames", "4"], "(--frames) has no effect with window (--window)"),
        (["--features", "tokens", "-o", "out.jsonl"], "hold one vector for each video, not tokens"),
        (["-o", "-", "--json"], "-o - prints JSON lines, and nothing else"),
        (["--features", "embeding"], "did you mean 'embedding'"),
        (["--size", "19"], "size is 19; expected a multiple of 6"),
        (["--window", "0"], "window is 0; expected 1 frame or more"),
        (["--window", "4", "--stride", "0"], "stride is 0"),
        (["--window", "4", "--fps", "-1"], "fps is -1.0"),
        (["--window", "100000000000000"], "window is 100000000000000"),
        (["--frames", "100000000000000"], "that would be 100,000,000,000,000 frames"),
        (["--frames", "0"], "num_frames is 0"),
        (["--dtype", "int4"], "dtype is 'int4'; expected one of"),
        (["--batch-size", "0"], "batch_size is 0; expected 1 or more"),
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
        (tmp_path / "notes", "and its subfolders hold no videos"),
        (f"{tmp_path}/*.mp4", "no file matches"),
    ):
        assert run("embed", given, "-o", tmp_path / "out.npz", "--model", searchable) == 2
        assert message in capsys.readouterr().err
    missing = tmp_path / "missing.mp4"
    assert run("embed", missing, "-o", tmp_path / "out.npz", "--model", searchable) == 1
    assert f"skipped: {missing}: there is no such file or folder" in capsys.readouterr().err
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
