"""The tables of a library."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from videoprism_mlx.errors import LibraryError
from videoprism_mlx.library.storage import connect
from videoprism_mlx.library.table import MOMENTS, RECORD, VIDEOS, Tables, quoted

ROW = dict(
    id="a",
    take=1,
    path="/clips/it's.mp4",
    size=10,
    modified=5,
    checksum="c",
    date=1.5,
    duration=2.0,
    width=64,
    height=48,
    rate=8.0,
    codec="h264",
    moments=1,
    status="ok",
    error="",
)


def test_a_library_keeps_its_record_and_its_rows(tmp_path: Path) -> None:
    made = {"model": {"name": "tiny"}, "preprocessing": {"window": 4}}
    record = {"format": 1, "dimension": 8, **made}
    tables = Tables.create(tmp_path / "library", made, 8)
    assert Tables.create(tmp_path / "library", {"model": "another"}, 9).record == record
    tables.put_videos([ROW, ROW | {"id": "b", "path": "/clips/a.mp4"}])
    tables.put_videos([ROW | {"take": 2}])
    again = Tables.open(tmp_path / "library")
    assert (again.record, again.dimension) == (record, 8)
    assert again.rows() == [ROW | {"id": "b", "path": "/clips/a.mp4"}, ROW | {"take": 2}]
    condition = f"path = {quoted('/clips/it' + chr(39) + 's.mp4')}"
    assert again.rows(condition, ["id", "take"]) == [{"id": "a", "take": 2}]


def test_what_others_wrote_is_seen_after_a_refresh(tmp_path: Path) -> None:
    tables = Tables.create(tmp_path, {}, 8)
    Tables.open(tmp_path).put_videos([ROW])
    tables.refresh()
    assert tables.rows() == [ROW]


def test_a_library_that_was_made_in_part(tmp_path: Path) -> None:
    Tables.create(tmp_path, {}, 8)
    connect(str(tmp_path)).drop_table(MOMENTS)
    assert Tables.open(tmp_path).moments.count_rows() == 0


def test_no_library_and_foreign_tables(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"there is no library at .*empty; make one with"):
        Tables.open(tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
    database = connect(str(tmp_path / "foreign"))
    for name in (VIDEOS, MOMENTS):
        database.create_table(name, schema=pa.schema([("id", pa.string())]))
    with pytest.raises(LibraryError, match=r"foreign is not a library of videos"):
        Tables.open(tmp_path / "foreign")


def test_a_library_of_a_later_version_is_refused(tmp_path: Path) -> None:
    database = connect(str(tmp_path))
    later = {RECORD: json.dumps({"format": 2})}
    for name in (VIDEOS, MOMENTS):
        database.create_table(name, schema=pa.schema([("id", pa.string())], metadata=later))
    with pytest.raises(LibraryError, match=r"has format 2, .* up to 1: update videoprism_mlx"):
        Tables.open(tmp_path)
