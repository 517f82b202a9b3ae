"""Features that are not finite, and stored features with a flipped bit: an error names them."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.errors import FeatureFileError, InputError
from videoprism_mlx.features.cache import ArrayCache, fill
from videoprism_mlx.features.embed import embed
from videoprism_mlx.features.formats import FORMATS, write_features
from videoprism_mlx.features.formats.rows import Rows
from videoprism_mlx.features.resumable_store import FeatureStore, video_record
from videoprism_mlx.files.record import as_json

RECORD = {"version": "1", "features": ["embedding"]}


@pytest.fixture
def broken(converted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model whose features are NaN for bright videos, and its processor."""
    model, processor = vp.load(converted("encoder_mild"))
    derive = type(model).derive

    def bad(self: Any, tokens: mx.array, frames: int) -> dict[str, mx.array]:
        found = derive(self, tokens, frames)
        return {name: array / bright for name, array in found.items()}

    bright = mx.array(0.0)
    monkeypatch.setattr(type(model), "derive", bad)
    return model, processor


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder of four images, which is one video."""
    from PIL import Image

    (tmp_path / "clips").mkdir()
    for number in range(4):
        Image.new("RGB", (20, 20), (60 * number, 9, 9)).save(tmp_path / f"clips/{number}.png")
    return tmp_path / "clips"


def test_a_video_is_named(broken: Any, clip: Path) -> None:
    with pytest.raises(InputError, match=r"model's pooled of .*clips contain NaN or infinity"):
        list(vp.encode(*broken, [clip]))
    [encoded] = vp.encode(*broken, [clip], errors="yield")
    assert encoded.features == {} and "contain NaN" in str(encoded.error)
    with pytest.raises(InputError, match=r"of .*clips.* contain NaN or infinity"):
        list(vp.encode_windows(broken[0], clip, 4, processor=broken[1]))


def test_it_is_skipped(broken: Any, clip: Path, tmp_path: Path) -> None:
    for output in (tmp_path / "out.npz", io.StringIO()):
        done = embed(str(clip / "0.png"), output, broken, progress=False)
        assert done.videos == () and "contain NaN" in done.skipped["0.png"]
    assert output.getvalue() == "" and not (tmp_path / "out.npz").exists()


def test_json_has_no_nan() -> None:
    value = {"a": [1.5, float("nan"), {"b": -float("inf")}], "c": (True, None, "NaN")}
    assert json.loads(as_json(value)) == {"a": [1.5, None, {"b": None}], "c": [True, None, "NaN"]}
    assert as_json({"é": float("nan")}, None, ascii=False) == '{"é": null}'
    assert as_json({"é": "\udcff", "n": 1e999}, None, False) == r'{"\u00e9": "\udcff", "n": null}'


def test_a_failed_array_is_a_failed_video(clip: Path, tmp_path: Path) -> None:
    def finish(number: int) -> np.ndarray:
        raise InputError(f"no array of {number}")

    images = [clip / "0.png", clip / "1.png"]
    paths, lines = fill(ArrayCache(tmp_path / "cache", {}), images, lambda _: 7, finish)
    assert paths == [None, None] and len(lines) == 2
    assert "0.png" in lines[0] and "no array of 7" in lines[0]


def stored(tmp_path: Path) -> tuple[FeatureStore, dict[str, Path]]:
    """A store of one file with two parts that are not joined yet."""
    videos = {name: tmp_path / name for name in ("a.mp4", "b.mp4")}
    store = FeatureStore(tmp_path / "out.npz", RECORD)
    with store.opened():
        for number, (name, path) in enumerate(videos.items()):
            path.write_bytes(name.encode())
            store.add(video_record(name, path), {"embedding": np.full(5, number + 0.5, np.float32)})
    return store, videos


@pytest.mark.parametrize("spoilt", ["number", "record"])
def test_parts_are_verified_when_they_are_joined(spoilt: str, tmp_path: Path) -> None:
    store, videos = stored(tmp_path)
    part = tmp_path / ".out.npz.parts" / "b.mp4.safetensors"
    content = part.read_bytes()
    old, new = (np.float32([1.5]).tobytes(), np.float32([1.625]).tobytes())
    if spoilt == "record":
        old, new = b"b.mp4", b"c.mp4"
    assert old in content
    part.write_bytes(content.replace(old, new, 1))
    with pytest.raises(FeatureFileError, match=r"b\.mp4\.safetensors is damaged"), store.opened():
        assert store.missing(videos) == []
        store.finish(list(videos))
    assert not (tmp_path / "out.npz").exists() and part.exists()


def test_parts_of_earlier_versions_have_no_checksum(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    store, videos = stored(tmp_path)
    for name, path in videos.items():
        part = tmp_path / ".out.npz.parts" / f"{name}.safetensors"
        record = json.dumps({**RECORD, "videos": [video_record(name, path)]})
        save_file(load_file(part), part, {"record": record})
    with store.opened():
        assert store.missing(videos) == []
        store.finish(list(videos))
    with np.load(tmp_path / "out.npz") as joined:
        np.testing.assert_array_equal(joined["embedding"], [[0.5] * 5, [1.5] * 5])


@pytest.mark.parametrize("file_format", FORMATS)
def test_stored_nan_is_refused(file_format: str, tmp_path: Path) -> None:
    from videoprism_mlx.features.formats import read_features

    path = tmp_path / f"out.{file_format}"
    rows = {"embedding": Rows.of(np.ones((1, 2), np.float32))}
    record = {**RECORD, "videos": [{"name": "a.mp4"}]}
    write_features(path, file_format, rows, record)
    assert read_features(path)["embedding"].tolist() == [[1, 1]]
    if file_format == "jsonl":
        path.write_text(path.read_text().replace("1.0", "NaN", 1))
    else:
        rows = {"embedding": Rows.of(np.full((1, 2), np.nan, np.float32))}
        write_features(path, file_format, rows, record)
    with pytest.raises(FeatureFileError, match="is damaged, or not a file of features"):
        read_features(path)


def test_a_name_that_leads_out_of_the_folder(tmp_path: Path) -> None:
    from videoprism_mlx.features.formats import read_record

    for name in ("../a.mp4", "/tmp/a.mp4", "a/../../b.mp4"):
        rows = {"embedding": Rows.of(np.ones((1, 2), np.float32))}
        write_features(tmp_path / "x.npz", "npz", rows, {**RECORD, "videos": [{"name": name}]})
        with pytest.raises(FeatureFileError, match="is damaged, or not a file of features"):
            read_record(tmp_path / "x.npz")
