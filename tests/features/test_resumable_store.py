"""Features on disk: complete, of one making, and safe to interrupt."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from videoprism_mlx.errors import FeatureFileError
from videoprism_mlx.features.formats import FORMATS, read_features, read_record, write_features
from videoprism_mlx.features.formats.rows import Rows
from videoprism_mlx.features.resumable_store import FeatureStore, video_record
from videoprism_mlx.features.windows import Window
from videoprism_mlx.files.atomic import new_file

RECORD = {
    "version": "1.0",
    "model": {"name": "tiny", "weights": "abc", "dtype": "float32"},
    "preprocessing": {"frames": 4, "size": 18},
    "features": ["embedding"],
}
NAMES = ["b/second.mp4", "first.mp4", "third é.mp4"]


@pytest.fixture
def videos(tmp_path: Path) -> dict[str, Path]:
    """Files to stand for videos."""
    found = {name: tmp_path / "videos" / name for name in NAMES}
    for number, path in enumerate(found.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(10 + number))
    return found


def embedding(name: str) -> np.ndarray:
    """Features that tell their video."""
    return np.random.RandomState(len(name)).randn(5).astype(np.float32)


def windows(name: str, count: int = 3) -> Iterator[Window]:
    """Windows that tell their video and place."""
    for number in range(count):
        features = {"embedding": embedding(name) + number, "half": np.float16([number])}
        yield Window(number / 3, number / 3 + 1, features, number, count)


def store_all(
    output: Path, videos: dict[str, Path], names: Sequence[str] = NAMES, **options: Any
) -> list[str]:
    """A run that stores what is missing of `names`. Returns what was."""
    store = FeatureStore(output, RECORD, **options)
    with store.opened():
        missing = store.missing({name: videos[name] for name in names})
        for name in missing:
            store.add(video_record(name, videos[name]), {"embedding": embedding(name)})
        store.finish(list(names))
    return missing


def stored(output: Path) -> tuple[list[str], np.ndarray]:
    """The names and embeddings in a file."""
    names = [video["name"] for video in read_record(output)["videos"]]
    return names, read_features(output)["embedding"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_one_file_for_all(file_format: str, tmp_path: Path, videos: dict[str, Path]) -> None:
    output = tmp_path / f"out.{file_format}"
    assert store_all(output, videos) == NAMES
    names, embeddings = stored(output)
    assert names == NAMES
    np.testing.assert_array_equal(embeddings, [embedding(name) for name in NAMES])
    record = read_record(output)
    assert {key: record[key] for key in RECORD} == RECORD
    assert [video["bytes"] for video in record["videos"]] == [10, 11, 12]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([output.name, "videos"])
    before = output.read_bytes()
    assert store_all(output, videos) == []
    assert output.read_bytes() == before


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_half_written_part_of_another_machine(
    file_format: str, tmp_path: Path, videos: dict[str, Path]
) -> None:
    """A container that was killed leaves such a file, and the next one has another name."""
    output = tmp_path / f"out.{file_format}"
    with pytest.raises(KeyboardInterrupt), FeatureStore(output, RECORD).opened() as store:
        store.add(video_record(NAMES[0], videos[NAMES[0]]), {"embedding": embedding(NAMES[0])})
        parts = tmp_path / f".{output.name}.parts"
        with new_file(parts / "gone.mp4.safetensors") as partial:
            partial.write_bytes(b"half")
            other = partial.name.replace(socket.gethostname(), "another-machine")
            shutil.copy(partial, parts / other)
        (parts / "gone.mp4.safetensors").unlink()
        raise KeyboardInterrupt
    assert store_all(output, videos) == NAMES[1:]
    assert stored(output)[0] == NAMES


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_for_each(file_format: str, tmp_path: Path, videos: dict[str, Path]) -> None:
    store_all(tmp_path / "out", videos, file_format=file_format)
    for name in NAMES:
        path = tmp_path / "out" / f"{name}.{file_format}"
        assert stored(path)[0] == [name]
        np.testing.assert_array_equal(stored(path)[1], [embedding(name)])
    assert json.loads((tmp_path / "out/record.json").read_text()) == RECORD
    assert store_all(tmp_path / "out", videos, file_format=file_format) == []


def test_files_that_anyone_can_read(tmp_path: Path, videos: dict[str, Path]) -> None:
    for file_format in FORMATS:
        store_all(tmp_path / f"out.{file_format}", videos)
    expected = np.stack([embedding(name) for name in NAMES])
    with np.load(tmp_path / "out.npz", allow_pickle=False) as archive:
        assert sorted(archive.files) == ["embedding", "record", "videos"]
        np.testing.assert_array_equal(archive["embedding"], expected)
        assert archive["videos"].tolist() == NAMES
        assert json.loads(str(archive["record"]))["model"] == RECORD["model"]
    np.testing.assert_array_equal(load_file(tmp_path / "out.safetensors")["embedding"], expected)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["video"] for line in lines] == NAMES
    np.testing.assert_array_equal(np.float32([line["embedding"] for line in lines]), expected)
    assert all(line["record"]["preprocessing"] == RECORD["preprocessing"] for line in lines)


@pytest.mark.parametrize("file_format", FORMATS)
def test_windows(file_format: str, tmp_path: Path, videos: dict[str, Path]) -> None:
    output = tmp_path / f"out.{file_format}"
    store = FeatureStore(output, RECORD)
    counts = dict(zip(NAMES, (3, 1, 5), strict=True))
    with store.opened():
        for name in NAMES:
            store.add_windows(video_record(name, videos[name]), windows(name, counts[name]))
        store.finish(NAMES)
    features = read_features(output)
    expected = [w for name in NAMES for w in windows(name, counts[name])]
    np.testing.assert_array_equal(
        features["embedding"], [w.features["embedding"] for w in expected]
    )
    np.testing.assert_array_equal(features["half"][:, 0], [w.number for w in expected])
    np.testing.assert_array_equal(features["start"], [w.start for w in expected])
    np.testing.assert_array_equal(features["end"], [w.end for w in expected])
    assert [video["windows"] for video in read_record(output)["videos"]] == [3, 1, 5]
    if file_format == "npz":
        with np.load(output) as archive:
            assert archive["video_of_window"].tolist() == [0] * 3 + [1] + [2] * 5
    with FeatureStore(output, RECORD).opened() as again:
        assert again.missing(videos) == []


@pytest.mark.parametrize("name", ["out.npz", "out.safetensors", "out.jsonl", "out"])
def test_a_run_goes_on_where_one_stopped(
    name: str, tmp_path: Path, videos: dict[str, Path]
) -> None:
    whole, output = tmp_path / "whole" / name, tmp_path / name
    store_all(whole, videos)
    with pytest.raises(KeyboardInterrupt):
        store = FeatureStore(output, RECORD)
        with store.opened():
            store.add(video_record(NAMES[1], videos[NAMES[1]]), {"embedding": embedding(NAMES[1])})
            raise KeyboardInterrupt
    assert store_all(output, videos) == [NAMES[0], NAMES[2]]
    files = [output] if output.is_file() else sorted(output.rglob("*.npz"))
    assert len(files) == (1 if output.is_file() else 3)
    for path in files:
        same = whole if path == output else whole / path.relative_to(output)
        assert path.read_bytes() == same.read_bytes()


@pytest.mark.parametrize("name", ["out.npz", "out.safetensors", "out.jsonl", "out"])
def test_more_videos_join_those_that_are_there(
    name: str, tmp_path: Path, videos: dict[str, Path]
) -> None:
    output = tmp_path / name
    assert store_all(output, videos, NAMES[1:2]) == NAMES[1:2]
    assert store_all(output, videos, NAMES[:1]) == NAMES[:1]
    if output.is_file():
        assert stored(output)[0] == [NAMES[0], NAMES[1]]
    assert store_all(output, videos) == NAMES[2:]
    if output.is_file():
        names, embeddings = stored(output)
        assert names == NAMES
        np.testing.assert_array_equal(embeddings, [embedding(name) for name in NAMES])


def test_a_video_that_changed_is_done_anew(tmp_path: Path, videos: dict[str, Path]) -> None:
    output = tmp_path / "out.npz"
    store_all(output, videos)
    videos[NAMES[1]].write_bytes(b"another")
    assert store_all(output, videos) == NAMES[1:2]
    assert read_record(output)["videos"][1]["bytes"] == 7
    os.utime(videos[NAMES[2]], (1, 1))
    assert store_all(output, videos) == NAMES[2:]
    videos[NAMES[0]].unlink()  # What is gone has not changed.
    assert store_all(output, videos) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(model={**RECORD["model"], "weights": "def"}), "model.weights was abc and is now def"),
        (dict(preprocessing={"frames": 8, "size": 18}), "frames was 4 and is now 8"),
        (dict(preprocessing={"window": 4, "size": 18}), "window was None and is now 4"),
        (dict(features=["pooled"]), r"features was \['embedding'\] and is now \['pooled'\]"),
    ],
)
@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_what_was_made_in_another_way_is_not_mixed(
    name: str, change: dict[str, Any], message: str, tmp_path: Path, videos: dict[str, Path]
) -> None:
    output = tmp_path / name
    store_all(output, videos)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    store = FeatureStore(output, {**RECORD, **change})
    expected = pytest.raises(
        ValueError, match=f"made with other settings.*{message}.*another output"
    )
    with expected, store.opened():
        raise AssertionError("it was opened")
    after = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    assert [path for path, _ in after] == [path for path, _ in before]
    other = {**RECORD, "version": "2.0", "model": {**RECORD["model"], "name": "by another name"}}
    with FeatureStore(output, other).opened() as store:  # These make no difference.
        assert store.missing(videos) == []


def test_an_unfinished_output_of_another_making(tmp_path: Path, videos: dict[str, Path]) -> None:
    output = tmp_path / "out.npz"
    store = FeatureStore(output, RECORD)
    with store.opened():
        store.add(video_record(NAMES[0], videos[NAMES[0]]), {"embedding": embedding(NAMES[0])})
    other = FeatureStore(output, {**RECORD, "features": ["pooled"]})
    with pytest.raises(ValueError, match="made with other settings"), other.opened():
        raise AssertionError("it was opened")
    assert store_all(output, videos) == NAMES[1:]


def test_two_runs_on_one_output(tmp_path: Path, videos: dict[str, Path]) -> None:
    output = tmp_path / "out.npz"
    script = (
        "import sys; from pathlib import Path\n"
        "from videoprism_mlx.features.resumable_store import FeatureStore\n"
        f"with FeatureStore(Path(sys.argv[1]), {RECORD!r}).opened():\n"
        "    print('open', flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, output], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(ValueError, match=r"another run is writing to .*out\.npz"):
            store_all(output, videos)
        other.communicate(b"\n")
    assert other.returncode == 0
    assert store_all(output, videos) == NAMES


def test_a_lock_whose_folder_is_removed_is_taken_anew(
    tmp_path: Path, videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a run that ends between this one's opening the file and locking it."""
    real, folder = fcntl.flock, tmp_path / ".out.npz.parts"
    removed = []

    def flock(*arguments: Any) -> None:
        real(*arguments)
        if not removed:
            removed.append(shutil.rmtree(folder))

    monkeypatch.setattr(fcntl, "flock", flock)
    with FeatureStore(tmp_path / "out.npz", RECORD).opened() as store:
        assert removed and (folder / ".lock").exists()
        assert store.missing(videos) == NAMES
        with pytest.raises(ValueError, match="another run is writing"):
            store_all(tmp_path / "out.npz", videos)


def test_nothing_is_left_of_a_run_that_stored_nothing(
    tmp_path: Path, videos: dict[str, Path]
) -> None:
    for name in ("out.npz", "out"):
        store = FeatureStore(tmp_path / name, RECORD)
        with store.opened():
            assert store.missing(videos) == NAMES
            store.finish(NAMES)
        assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_a_folder_of_something_else(tmp_path: Path, videos: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="holds files other than features"):
        store_all(tmp_path / "videos", videos)
    assert sorted(path for path in (tmp_path / "videos").rglob("*.mp4")) == sorted(videos.values())


@pytest.mark.parametrize(
    ("name", "file_format", "message"),
    [
        ("out.npz", "jsonl", r"does not have the ending of the format jsonl; call it \*\.jsonl"),
        ("out", "csv", "the format is 'csv'; expected one of npz, safetensors, jsonl"),
    ],
)
def test_bad_formats(name: str, file_format: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureStore(tmp_path / name, RECORD, file_format)


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    (tmp_path / "out.npz").mkdir()
    for name, kind in (("out", "file"), ("out.npz", "folder")):
        with pytest.raises(ValueError, match=f"is a {kind}; expected a new or earlier output"):
            FeatureStore(tmp_path / name, RECORD)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("content", [b"", b"noise" * 100, b"{}\n", b"PK\3\4", b"[" * 100_000])
def test_damaged_files(content: bytes, file_format: str, tmp_path: Path) -> None:
    output = tmp_path / f"out.{file_format}"
    output.write_bytes(content)
    expected = pytest.raises(FeatureFileError, match=r"is damaged, or not a file of features")
    with expected, FeatureStore(output, RECORD).opened():
        raise AssertionError("it was opened")
    assert output.read_bytes() == content


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000])
def test_a_damaged_record(content: str, tmp_path: Path, videos: dict[str, Path]) -> None:
    store_all(tmp_path / "out", videos)
    (tmp_path / "out" / "record.json").write_text(content)
    with pytest.raises(
        FeatureFileError, match=r"record.json (is not JSON|holds a list).*; name another output"
    ):
        store_all(tmp_path / "out", videos)


def test_floats_in_json_lines_are_exact(tmp_path: Path) -> None:
    values = np.random.RandomState(0).randn(1000).astype(np.float32)
    values[:4] = 0, 1e-38, 3.4e38, 0.1
    record = {**RECORD, "videos": [{"name": "a.mp4"}]}
    write_features(tmp_path / "x.jsonl", "jsonl", {"pooled": Rows.of(values[None])}, record)
    np.testing.assert_array_equal(read_features(tmp_path / "x.jsonl")["pooled"][0], values)
    assert '"pooled": [0.0, 1e-38, 3.4e+38, 0.1, ' in (tmp_path / "x.jsonl").read_text()


def test_features_of_several_shapes_do_not_join(tmp_path: Path) -> None:
    parts = [Rows.of(np.zeros((1, size), np.float32)) for size in (3, 4)]
    with pytest.raises(FeatureFileError, match="different types or shapes"):
        Rows.joined(parts)


def test_windows_are_not_kept_in_memory(tmp_path: Path, videos: dict[str, Path]) -> None:
    sizes = []
    store = FeatureStore(tmp_path / "out.safetensors", RECORD)
    with store.opened():
        many = (
            Window(n, n + 1, {"tokens": np.full((64, 64), n, np.float32)}, n, 300)
            for n in range(300)
        )

        def watched() -> Iterator[Window]:
            tracemalloc.start()
            for window in many:
                sizes.append(tracemalloc.get_traced_memory()[0])
                yield window
            tracemalloc.stop()

        store.add_windows(video_record(NAMES[0], videos[NAMES[0]]), watched())
        store.finish(NAMES[:1])
    assert max(sizes) < 300 * 64 * 64 * 4 / 10
    np.testing.assert_array_equal(
        read_features(tmp_path / "out.safetensors")["tokens"][:, 3, 5], np.arange(300)
    )
