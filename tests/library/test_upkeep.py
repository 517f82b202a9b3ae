"""Checking, cleaning up and exporting a library."""

import re
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_clips import add, contents, copy_clips

import videoprism_mlx as vp
from videoprism_mlx.errors import AlreadyExistsError, InputError
from videoprism_mlx.library.table import MOMENTS, VIDEOS, Tables, replaced
from videoprism_mlx.library.upkeep import compact as compacting
from videoprism_mlx.library.upkeep.compact import Tidying, wants_compaction


@pytest.fixture
def library(tmp_path: Path) -> Path:
    add(tmp_path / "library", copy_clips(tmp_path / "clips", 3))
    return tmp_path / "library"


def moments(library: Path) -> tuple[Tables, list[dict[str, object]]]:
    tables = Tables.open(library)
    return tables, tables.moments.to_arrow().to_pylist()


def rewrite(tables: Tables, rows: list[dict[str, object]]) -> None:
    tables.remove(MOMENTS, "true")
    tables.add_moments(pa.Table.from_pylist(rows, schema=tables.moments.schema))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("short", r"0\.mp4: 1 of its vectors are not of length one"),
        ("gap", r"0\.mp4: 1 of its 1 moments are there, or some are there twice"),
        ("twice", r"0\.mp4: 2 of its 1 moments are there, or some are there twice"),
        ("none", r"0\.mp4: 0 of its 1 moments are there"),
        ("orphan", r"1 moments belong to no video \(nobody\): a run was killed"),
        ("file", r"0\.mp4: the file is not there"),
        ("row", r"two rows are of one video: "),
    ],
)
def test_what_is_wrong_is_said(kind: str, said: str, library: Path) -> None:
    assert vp.Library(library).verify().problems == ()
    tables, rows = moments(library)
    first = tables.rows()[0]
    mine = next(row for row in rows if row["video"] == first["id"])
    others = [row for row in rows if row is not mine]
    vector = np.float32(mine["embedding"])
    changed = {
        "short": [mine | {"embedding": vector * 0.9}],
        "gap": [mine | {"number": 1}],
        "twice": [mine, mine],
        "none": [],
        "orphan": [mine, mine | {"video": "nobody"}],
    }
    if kind in changed:
        rewrite(tables, others + changed[kind])
    elif kind == "file":
        Path(first["path"]).unlink()
    else:
        tables.put_videos([first | {"id": "another"}])
        tables.add_moments(tables.moments.to_arrow().slice(0, 0))
    verified = vp.Library(library).verify()
    assert any(re.search(said, problem) for problem in verified.problems)
    assert len(verified.problems) == (2 if kind == "row" else 1)
    assert (len(verified.missing) == 1) is (kind == "file")


def test_of_two_rows_of_one_video_all_pick_the_same(library: Path, tmp_path: Path) -> None:
    """Two machines that write to one bucket may leave them. The next run removes one."""
    right = contents(library)
    tables = Tables.open(library)
    [row, *_] = tables.rows()
    older = row | {"id": "other", "take": row["take"] - 5}
    tables.videos.add(pa.Table.from_pylist([older], schema=tables.videos.schema))
    assert replaced([row, older]) == replaced([older, row]) == {("other", row["take"] - 5)}
    assert row in tables.current() and older not in tables.current()
    add(library, tmp_path / "clips")
    assert contents(library) == right
    assert vp.Library(library).verify().is_whole


def test_what_is_in_a_library(library: Path, tmp_path: Path) -> None:
    (tmp_path / "clips" / "bad.mp4").write_text("no video")
    (tmp_path / "clips" / "2.mp4").unlink()
    add(library, tmp_path / "clips")
    info = vp.Library(library).info()
    names = ("library", "format", "dimension", "videos", "errors", "missing", "seconds", "moments")
    assert [info[name] for name in names] == [str(library), 1, 96, 2, 1, 1, 4.0, 2]
    files = [path for path in library.rglob("*.lance/*/*") if path.is_file()]
    assert info["bytes"] == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_export(ending: str, library: Path, tmp_path: Path) -> None:
    (tmp_path / "clips" / "2.mp4").unlink()
    add(library, tmp_path / "clips")
    output = tmp_path / f"out.{ending}"
    assert vp.Library(library).export(output) == 2
    if ending == "npz":
        arrays = dict(np.load(output))
    else:
        table = pq.read_table(output)
        arrays = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    for path, [(start, end, vector, _)] in contents(library).items():
        [place] = np.flatnonzero(arrays["path"] == path)
        assert arrays["video"][place] == Path(path).name
        assert (arrays["start"][place], arrays["end"][place]) == (start, end)
        assert np.float32(arrays["embedding"][place]).tobytes() == vector
    with pytest.raises(AlreadyExistsError, match="--overwrite"):
        vp.Library(library).export(output)
    assert vp.Library(library).export(output, overwrite=True) == 2
    with pytest.raises(InputError, match=r"does not end in \.npz or \.parquet"):
        vp.Library(library).export(tmp_path / "out.csv")


def test_an_empty_library_can_be_exported(tmp_path: Path) -> None:
    Tables.create(tmp_path / "library", {}, 8)
    for name in ("out.npz", "out.parquet"):
        assert vp.Library(tmp_path / "library").export(tmp_path / name) == 0
    assert np.load(tmp_path / "out.npz")["embedding"].shape == (0, 8)


def test_the_folder_does_not_grow_with_the_number_of_writes(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compacting, "EVERY", 8)
    monkeypatch.setattr(compacting, "FEW_FILES", 8)
    monkeypatch.setattr(compacting.compact, "__defaults__", (timedelta(0),))
    tables = Tables.open(library)
    tidying, row = Tidying(tables), tables.rows()[0]
    table = tables.moments.to_arrow().slice(0, 1)
    largest = 0
    for _ in range(48):
        tables.add_moments(table)
        tables.put_videos([row])
        tidying()
        largest = max(largest, sum(1 for _ in library.rglob("*")))
    assert largest < 120  # Without compaction there would be over 300 files.
    assert tables.moments.count_rows() == 51
    assert len(Tables.open(library).rows()) == 3


def test_moments_are_compacted_when_many_files_hold_a_share_of_them(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables.open(library)
    monkeypatch.setattr(compacting, "FEW_FILES", 3)
    compacting.compact(tables.moments, tables.where)
    large = tables.moments.to_arrow()
    table = large.slice(0, 1)
    for _ in range(6):
        large = pa.concat_tables([large, large])
    tables.add_moments(large)
    for _ in range(6):
        tables.add_moments(table)
    assert not wants_compaction(tables.moments, tables.where)
    for _ in range(60):
        tables.add_moments(table)
    assert wants_compaction(tables.moments, tables.where)


def test_compaction_gives_way_to_other_writers(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables.open(library)

    def conflict(**_: object) -> None:
        raise RuntimeError("Retryable commit conflict for version 5")

    monkeypatch.setattr(tables.videos, "optimize", conflict)
    assert not compacting.compact(tables.videos, tables.where)


def test_compacting_a_library(library: Path, tmp_path: Path) -> None:
    right = contents(library)
    for number in range(5):
        shutil.copy(tmp_path / "clips" / "0.mp4", tmp_path / "clips" / f"{number + 3}.mp4")
        add(library, tmp_path / "clips")
    vp.Library(library).compact()
    stats = Tables.open(library).moments.stats()["fragment_stats"]
    assert stats["num_fragments"] == 1
    assert right.items() <= contents(library).items()


def test_pruning_leaves_files_that_are_back(library: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clips" / "0.mp4"
    clip.rename(tmp_path / "away.mp4")
    add(library, tmp_path / "clips")
    (tmp_path / "away.mp4").rename(clip)
    assert vp.Library(library).prune() == []
    assert add(library, tmp_path / "clips").encoded == 0
    assert vp.Library(library).verify().is_whole


def test_two_rows_with_one_id_are_one(library: Path) -> None:
    tables = Tables.open(library)
    [row, *_] = tables.rows()
    later = row | {"take": row["take"] + 5}
    tables.videos.add(pa.Table.from_pylist([later], schema=tables.videos.schema))
    assert tables.current() == [later, *tables.rows()[2:]]
    tables.remove(VIDEOS, f"take = {row['take']}")
    assert len(tables.rows()) == 3
