"""`embed`, stopped and started again, on an output or videos that have changed."""

import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import GOOD, STORED, command, make_videos, run

import videoprism_mlx as vp
from videoprism_mlx.features.formats import read_features


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


@pytest.mark.parametrize(
    "name",
    [
        "out.npz",
        pytest.param("out", marks=pytest.mark.slow),
        pytest.param("out.safetensors", marks=pytest.mark.slow),
        pytest.param("out.jsonl", marks=pytest.mark.slow),
    ],
)
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
    assert "finished videos are kept; run the same command to continue" in errors
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
    real = vp.features.pipeline.rows_of

    def replaced(arrays: Any) -> Any:
        shutil.copy(folder / "mpeg4.avi", tmp_path / "a.mp4")
        (tmp_path / "b.mp4").unlink(missing_ok=True)
        return real(arrays)

    arguments = ("embed", *(tmp_path / n for n in ("a.mp4", "b.mp4")), "-o", tmp_path / "o.npz")
    options = ("--model", searchable, *windowing)
    with monkeypatch.context() as patched:
        for module in ("encode", "windows"):
            patched.setattr(f"videoprism_mlx.features.{module}.rows_of", replaced)
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
    assert (
        "under the name" in (said := capsys.readouterr().err) and "would have the same name" in said
    )
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
