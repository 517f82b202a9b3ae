"""What other programs read in files of features, above all with windows."""

import json
import shutil
from pathlib import Path

import media
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

import videoprism_mlx as vp
from videoprism_mlx.errors import FeatureFileError
from videoprism_mlx.features.formats import parquet, read_features, read_record, write_features
from videoprism_mlx.features.formats.rows import Rows

FORMATS = ("npz", "safetensors", "jsonl", "parquet")
COUNTS = [3, 1, 5]
RECORD = {
    "model": {"name": "tiny"},
    "videos": [
        {"name": f"b/{number} é \udcff.mp4", "windows": count}
        for number, count in enumerate(COUNTS)
    ],
}
NAMES = [video["name"] for video in RECORD["videos"]]
OWNERS = [0, 0, 0, 1, 2, 2, 2, 2, 2]


def arrays() -> dict[str, np.ndarray]:
    """The features of nine windows."""
    draw = np.random.default_rng(0).standard_normal
    return {
        "start": np.arange(9) / 3,
        "end": np.arange(9) / 3 + 1,
        "embedding": draw((9, 5)).astype(np.float32),
        "pooled": draw((9, 3)).astype(np.float16),
    }


def written(path: Path, piece: int = 2) -> Path:
    """A file of them, written in pieces."""
    rows = {
        name: Rows(
            array.dtype,
            array.shape,
            lambda array=array: (array[i : i + piece] for i in range(0, len(array), piece)),
        )
        for name, array in arrays().items()
    }
    write_features(path, path.suffix[1:], rows, RECORD)
    return path


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_written_is_read(ending: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"out.{ending}")
    found = read_features(path)
    for name, array in arrays().items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert found.keys() == arrays().keys()
    assert [video["name"] for video in read_record(path)["videos"]] == NAMES


def test_safetensors_hold_what_an_npz_holds(tmp_path: Path) -> None:
    path = written(tmp_path / "out.safetensors")
    with np.load(written(tmp_path / "out.npz")) as archive:
        expected = {name: archive[name] for name in archive.files}
    found = load_file(path)
    assert found.keys() == expected.keys() - {"videos", "record"}
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])
    assert found["video_of_window"].tolist() == OWNERS
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert json.loads(metadata["videos"]) == expected["videos"].tolist() == NAMES
    assert json.loads(metadata["record"]) == RECORD


@pytest.mark.parametrize("group", [1024, 4, 1])
def test_a_parquet_file_has_a_row_for_each_window(
    group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", group)
    path = written(tmp_path / "out.parquet")
    assert written(tmp_path / "again.parquet", piece=7).read_bytes() == path.read_bytes()
    assert pq.ParquetFile(path).metadata.num_row_groups == -(-9 // group)
    table = pq.read_table(path)
    assert table.column_names == ["video", "start", "end", "embedding", "pooled"]
    assert table.column("video").to_pylist() == [
        NAMES[owner].replace("\udcff", "\\udcff") for owner in OWNERS
    ]
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 5)
    assert table.schema.field("start").type == pa.float64()
    for name, array in arrays().items():
        np.testing.assert_array_equal(np.array(table.column(name).to_pylist()), array)
    assert json.loads(table.schema.metadata[b"record"]) == RECORD


@pytest.mark.parametrize("damage", ["cut", "noise", "footer", "table"])
def test_a_damaged_parquet_file(damage: str, tmp_path: Path) -> None:
    path = written(tmp_path / "out.parquet")
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-20])
    elif damage == "noise":
        path.write_bytes(b"PAR1" + bytes(range(256)) + b"PAR1")
    elif damage == "footer":
        path.write_bytes(content[:-8] + b"\xff\xff\xff\x7f" + content[-4:])
    else:  # A Parquet file of something else.
        pq.write_table(pa.table({"a": [1]}), path)
    for read in (read_record, read_features):
        with pytest.raises(FeatureFileError, match=r"out\.parquet is damaged, or not a file of"):
            read(path)


@pytest.mark.parametrize("spoilt", ["record", "embedding", "pooled", "start"])
def test_a_changed_parquet_file(spoilt: str, tmp_path: Path) -> None:
    """One number or one setting differs from what the checksums say."""
    path = written(tmp_path / "out.parquet")
    checksums = pq.ParquetFile(path).metadata.metadata[b"crc32"]
    assert json.loads(checksums).keys() == {"record", *arrays()}
    table = pq.read_table(path)
    if spoilt == "record":
        record = json.dumps(RECORD | {"model": {"name": "tinx"}})
        table = table.replace_schema_metadata({**table.schema.metadata, b"record": record})
    else:
        field = table.schema.field(spoilt)
        values = np.array(table.column(spoilt).to_pylist())
        values.flat[2] += 0.5
        place = table.schema.get_field_index(spoilt)
        table = table.set_column(place, field, pa.array(values.tolist(), field.type))
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"crc32": checksums})
    read = read_record if spoilt == "record" else read_features
    with pytest.raises(FeatureFileError, match=r"out\.parquet is damaged, or not a file of"):
        read(path)


def test_a_parquet_file_with_a_column_of_another_kind(tmp_path: Path) -> None:
    path = written(tmp_path / "out.parquet")
    table = pq.read_table(path)
    pairs = pa.array([{"x": 1.0}] * len(table))
    table = table.set_column(table.schema.get_field_index("embedding"), "embedding", pairs)
    pq.write_table(table, path)
    with pytest.raises(FeatureFileError, match=r"out\.parquet is damaged, or not a file of"):
        read_features(path)


def test_a_folder_whose_name_looks_like_a_partition(tmp_path: Path) -> None:
    (tmp_path / "split=train").mkdir()
    path = written(tmp_path / "split=train" / "out.parquet")
    assert read_features(path).keys() == arrays().keys()


@pytest.mark.parametrize("ending", FORMATS)
def test_texts_that_look_like_paths(ending: str, tmp_path: Path) -> None:
    texts = ["/etc/passwd", "../a", "a red ball"]
    path = tmp_path / f"texts.{ending}"
    record = {"model": {"name": "tiny"}, "texts": [{"name": text} for text in texts]}
    embeddings = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_features(path, ending, {"embedding": Rows.of(embeddings)}, record)
    assert [text["name"] for text in read_record(path)["texts"]] == texts
    np.testing.assert_array_equal(read_features(path)["embedding"], embeddings)


@pytest.mark.parametrize("ending", ["parquet", "safetensors"])
def test_videos_join_a_file(ending: str, tmp_path: Path) -> None:
    """The file is the same as from one call, with windows of a folder of images, too."""
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(media.clip("b.mp4"), tmp_path / name)
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(6):
        Image.fromarray(media.frame(number)).save(frames / f"{number}.png")
    model = vp.models.DEMO_MODEL
    sources = [tmp_path / "a.mp4", frames, tmp_path / "b.mp4"]
    windowing = dict(window=4, stride=2, fps=4)
    for count in (1, 3, 3):
        vp.embed(sources[:count], tmp_path / f"steps.{ending}", model, **windowing)
    embedded = vp.embed(sources, tmp_path / f"once.{ending}", model, **windowing)
    assert embedded.videos == ("a.mp4", "frames", "b.mp4")
    once = (tmp_path / f"once.{ending}").read_bytes()
    assert once == (tmp_path / f"steps.{ending}").read_bytes()
