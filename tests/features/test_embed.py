"""`vp.embed`: all that the command does, in one call."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest
from expected import assert_alike, assert_close, expected_features
from thinned import thinned

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.errors import FeatureFileError, InputError, InputTypeError, OutputError
from videoprism_mlx.features.embed import Embedded
from videoprism_mlx.features.formats import read_features, read_record
from videoprism_mlx.runtime import precision

GOOD = ["b.mp4", "mpeg4.avi", "uneven.mkv"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good videos and an empty one."""
    root = tmp_path_factory.mktemp("videos")
    for name in GOOD:
        shutil.copy(media.clip(name), root / name)
    (root / "empty.mp4").touch()
    return root


def names_in(output: Path) -> list[str]:
    return [video["name"] for video in read_record(output)["videos"]]


def test_features_are_those_of_the_model(folder: Path, searchable: Path, tmp_path: Path) -> None:
    names = ["tokens", "frames", "pooled", "embedding"]
    embedded = vp.embed(folder, tmp_path / "out.npz", searchable, features=names)
    assert embedded.output == tmp_path / "out.npz"
    assert embedded.videos == tuple(GOOD)
    assert embedded.skipped == {"empty.mp4": f"{folder / 'empty.mp4'} is empty: it has 0 bytes"}
    assert names_in(tmp_path / "out.npz") == GOOD
    model, _ = vp.load(searchable)
    arrays = read_features(tmp_path / "out.npz")
    for row, name in enumerate(GOOD):
        clip = vp.read_video(folder / name, 4, size=18)
        found = {key: array[row] for key, array in arrays.items()}
        assert_alike(found, expected_features(model, clip))


def test_settings_are_those_of_the_processor(
    folder: Path, searchable: Path, tmp_path: Path
) -> None:
    sizing = dict(num_frames=3, size=24, resize="crop", resample="lanczos")
    vp.embed(folder / "b.mp4", tmp_path / "out.npz", searchable, **sizing, dtype="float32")
    model, processor = vp.load(searchable)
    processor = dataclasses.replace(processor, **sizing)
    [result] = vp.encode(model, processor, [folder / "b.mp4"])
    found = read_features(tmp_path / "out.npz")["embedding"][0]
    assert_close(found, result.features["embedding"])


def test_features_of_another_precision_are_not_mixed(
    folder: Path, searchable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vp.embed(folder / GOOD[0], tmp_path / "out.npz", searchable)
    assert read_record(tmp_path / "out.npz")["model"]["precision"] == "float32"
    monkeypatch.setattr(precision, "in_force", lambda: "tf32")
    with pytest.raises(OutputError, match="precision was float32 and is now tf32"):
        vp.embed(folder / GOOD[1], tmp_path / "out.npz", searchable)


def test_windows(folder: Path, searchable: Path, tmp_path: Path) -> None:
    videos = [folder / "b.mp4", folder / "empty.mp4", folder / "uneven.mkv"]
    output = tmp_path / "out.safetensors"
    embedded = vp.embed(videos, output, searchable, window=4, stride=2, fps=6)
    assert embedded.videos == ("b.mp4", "uneven.mkv") and embedded.skipped.keys() == {"empty.mp4"}
    model, processor = vp.load(searchable)
    windows = [
        window
        for video in (videos[0], videos[2])
        for window in vp.encode_windows(
            model, video, 4, 2, 6, processor=processor, features=["embedding"]
        )
    ]
    found = read_features(output)
    np.testing.assert_array_equal(found["start"], [window.start for window in windows])
    expected = [window.features["embedding"] for window in windows]
    assert_close(found["embedding"], expected)


OPTIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "one file": (dict(), []),
    "batches": (dict(batch_size=2), ["--batch-size", "2"]),
    "windows": (
        dict(window=4, stride=3, fps=5.0),
        ["--window", "4", "--stride", "3", "--fps", "5"],
    ),
    "half": (dict(dtype="float16"), ["--dtype", "float16"]),
    "features": (dict(features=["pooled", "tokens"]), ["--features", "tokens,pooled"]),
    "frames": (
        dict(num_frames=3, size=24, resize="crop", resample="lanczos", partial=True),
        ["--frames", "3", "--size", "24", "--resize", "crop", "--resample", "lanczos", "--partial"],
    ),
}


OUTPUTS = ["out.npz", "out.safetensors", "out"]


@pytest.mark.parametrize(("name", "options"), thinned(OUTPUTS, list(OPTIONS), keep=2))
def test_the_bytes_are_those_of_the_command(
    name: str, options: str, folder: Path, searchable: Path, tmp_path: Path
) -> None:
    called, typed = OPTIONS[options]
    vp.embed(folder, tmp_path / "call" / name, searchable, **called, progress=False)
    command = ["embed", folder, "-o", tmp_path / "command" / name, "--model", searchable, *typed]
    assert main([str(each) for each in command]) == 1
    files = sorted(path.relative_to(tmp_path / "call") for path in (tmp_path / "call").rglob("*"))
    assert files == sorted(
        path.relative_to(tmp_path / "command") for path in (tmp_path / "command").rglob("*")
    )
    for path in files:
        if (tmp_path / "call" / path).is_file():
            call, command_ = (tmp_path / which / path for which in ("call", "command"))
            assert call.read_bytes() == command_.read_bytes()


def test_adapters(folder: Path, searchable: Path, tmp_path: Path) -> None:
    model, processor = vp.load(searchable)
    vp.add_adapters(model, rank=2)
    vp.save_adapters(model, tmp_path / "adapters", searchable)
    dataclasses.replace(processor, num_frames=3).save(tmp_path / "adapters")
    output = tmp_path / "out.npz"
    vp.embed(folder / "b.mp4", output, searchable, adapters=tmp_path / "adapters")
    record = read_record(output)
    assert record["model"]["adapters"] is not None and record["model"]["weights"] is not None
    assert record["preprocessing"]["frames"] == 3  # They were trained on such clips.
    fused, processor = vp.load(searchable, adapters=tmp_path / "adapters")
    assert processor.num_frames == 3
    [result] = vp.encode(fused, processor, [folder / "b.mp4"])
    found = read_features(output)["embedding"][0]
    assert_close(found, result.features["embedding"])
    with pytest.raises(OutputError, match=r"model\.adapters was"):
        vp.embed(folder / "b.mp4", output, searchable, num_frames=3)


def test_a_later_call_goes_on(
    folder: Path, searchable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.npz"
    first = vp.embed(folder / "b.mp4", output, searchable)
    assert first == Embedded(output, ("b.mp4",), {})
    read = []
    real = vp.Processor.read

    def counted(processor: vp.Processor, source: Any, **options: Any) -> Any:
        read.append(Path(source).name)
        return real(processor, source, **options)

    monkeypatch.setattr(vp.Processor, "read", counted)
    again = vp.embed(folder, output, searchable)
    assert again.videos == tuple(GOOD) and again.skipped.keys() == {"empty.mp4"}
    assert sorted(read) == ["empty.mp4", "mpeg4.avi", "uneven.mkv"]
    assert names_in(output) == GOOD
    whole = tmp_path / "whole.npz"
    vp.embed(folder, whole, searchable)
    assert output.read_bytes() == whole.read_bytes()
    with pytest.raises(OutputError, match="size was 18 and is now 24"):
        vp.embed(folder, output, searchable, size=24)


@pytest.mark.parametrize("windowing", [{}, {"window": 4}])
@pytest.mark.parametrize("name", ["out.jsonl", "out"])
def test_an_interrupted_call_keeps_what_is_done(
    name: str,
    windowing: dict[str, int],
    folder: Path,
    searchable: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, module = tmp_path / name, "windows" if windowing else "encode"
    real, first = getattr(vp.features, module).derived_features, []

    def interrupted(*arguments: Any) -> Any:
        if len(first) == (40 if windowing else 2):  # Of the second video.
            raise KeyboardInterrupt
        first.append(1)
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(f"videoprism_mlx.features.{module}.derived_features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            vp.embed(folder, output, searchable, **windowing)
    parts = tmp_path / ".out.jsonl.parts" if name == "out.jsonl" else output
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("b.mp4.*")}
    assert len(kept) == 1 and not output.is_file()
    assert vp.embed(folder, output, searchable, **windowing).videos == tuple(GOOD)
    if name == "out":
        assert {path.name: path.stat().st_mtime_ns for path in parts.glob("b.mp4.*")} == kept
    vp.embed(folder, tmp_path / "whole" / name, searchable, **windowing)
    for path in [output] if output.is_file() else sorted(output.glob("*.npz")):
        assert path.read_bytes() == (tmp_path / "whole" / path.relative_to(tmp_path)).read_bytes()


def test_a_model_that_is_loaded_already(folder: Path, searchable: Path, tmp_path: Path) -> None:
    loaded, output = vp.load(searchable), tmp_path / "out.npz"
    vp.embed(folder / "b.mp4", output, loaded)
    by_name = tmp_path / "name.npz"
    vp.embed(folder / "b.mp4", by_name, searchable)
    np.testing.assert_array_equal(
        read_features(output)["embedding"], read_features(by_name)["embedding"]
    )
    assert vp.embed(folder, output, loaded).videos == tuple(GOOD)
    vp.embed(folder, output, vp.load(searchable))  # As good as the first.

    changed, processor = vp.load(searchable)
    changed.vision_encoder.spatial_ln.bias = changed.vision_encoder.spatial_ln.bias + 1
    with pytest.raises(OutputError, match=r"model\.parameters was"):
        vp.embed(folder, output, (changed, processor))
    for option in (dict(dtype="float16"), dict(adapters=tmp_path)):
        with pytest.raises(InputError, match="has no effect on a model that is loaded"):
            vp.embed(folder, tmp_path / "x.npz", loaded, **option)


def test_lines_to_an_open_file(folder: Path, searchable: Path) -> None:
    file = io.StringIO()
    embedded = vp.embed(folder, file, searchable)
    assert embedded.output is None and embedded.videos == tuple(GOOD)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["video"] for line in lines] == GOOD
    model, processor = vp.load(searchable)
    expected = np.array(model(**processor(videos=[folder / "b.mp4"]))[0][0])
    assert_close(lines[0]["embedding"], expected)


def test_what_is_printed(
    folder: Path, searchable: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    vp.embed(folder, tmp_path / "a.npz", searchable)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == f"skipped: {folder / 'empty.mp4'} is empty: it has 0 bytes\n"
    for options in ({}, {"window": 4}):
        vp.embed(folder, tmp_path / f"b{len(options)}.npz", searchable, progress=False, **options)
    assert capfd.readouterr() == ("", "")


def test_a_bar_is_for_terminals(folder: Path, searchable: Path, tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for progress in (True, False):
        terminal = Terminal()
        with contextlib.redirect_stderr(terminal):
            vp.embed(folder, tmp_path / f"{progress}.npz", searchable, progress=progress)
        assert ("4/4" in terminal.getvalue()) == progress
    (folder / "empty.mp4").unlink()  # It would be tried again.
    with contextlib.redirect_stderr(Terminal()) as terminal:
        assert len(vp.embed(folder, tmp_path / "True.npz", searchable).videos) == 3
    assert terminal.getvalue() == ""  # There was nothing to do.


def test_a_file_that_appears_while_others_are_read(
    folder: Path, searchable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its version was to be noted, and before it is read."""
    real = vp.Processor.read

    def read(processor: vp.Processor, source: Any, **options: Any) -> Any:
        shutil.copy(folder / "b.mp4", source)
        return real(processor, source, **options)

    monkeypatch.setattr(vp.Processor, "read", read)
    embedded = vp.embed(tmp_path / "late.mp4", tmp_path / "out.npz", searchable)
    assert embedded.videos == ("late.mp4",)
    [video] = read_record(tmp_path / "out.npz")["videos"]
    assert video["bytes"] == os.path.getsize(tmp_path / "late.mp4")


@pytest.mark.parametrize("options", [{}, {"window": 4}])
def test_only_videos_are_skipped(
    options: dict[str, int],
    folder: Path,
    searchable: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An output that cannot be written is no fault of the video, and a bug is none either."""
    for error in (PermissionError(13, "no"), FileNotFoundError(2, "gone"), ValueError("a bug")):

        def refuse(*arguments: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("videoprism_mlx.features.resumable_store.write_features", refuse)
        with pytest.raises(type(error), match=str(error.args[-1])):
            vp.embed(folder / "b.mp4", tmp_path / "out.npz", searchable, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(stride=2), InputError, r"stride \(--stride\) is only for windows; give window"),
        (dict(fps=2), InputError, r"fps \(--fps\) is only for windows"),
        (dict(window=4, num_frames=4), InputError, "num_frames .* has no effect with window"),
        (dict(window=0), InputError, "window is 0; expected 1 frame or more"),
        (dict(window=4, stride=0), InputError, "stride is 0; expected 1 frame or more"),
        (dict(window=10**8), InputError, "expected at most 10,000,000 frames"),
        (dict(window=2.5), InputTypeError, "window is 2.5; expected a whole number"),
        (dict(batch_size="2"), InputTypeError, "batch_size is '2'; expected a whole number"),
        (dict(num_frames=2.0), InputTypeError, "num_frames is 2.0; expected a whole number"),
        (dict(size=19), InputError, "size is 19; expected a multiple of 6"),
        (dict(features="embeding"), InputError, "did you mean 'embedding'"),
        (dict(format="csv"), InputError, "the format is 'csv'; expected one of npz"),
        (dict(format="jsonl", features=["tokens"]), InputError, "JSON lines hold one vector"),
    ],
)
def test_bad_arguments(
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    folder: Path,
    searchable: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        vp.embed(folder, tmp_path / "out", searchable, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["npz", "safetensors", "jsonl"])
def test_a_damaged_output(
    ending: str, folder: Path, searchable: Path, tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    """Whatever is cut off or changed, it is the file that is named."""
    output = tmp_path / f"out.{ending}"
    vp.embed(folder / "b.mp4", output, searchable, progress=False)
    whole = output.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:40] + b"\xff" * 100 + whole[140:], b"[1]\n"):
        output.write_bytes(damaged)
        with pytest.raises(
            FeatureFileError, match=r"out\.\w+ is damaged, or not a file of features"
        ):
            vp.embed(folder, output, searchable, progress=False)
        assert output.read_bytes() == damaged
