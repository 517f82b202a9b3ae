"""What another process or thread does at the worst instant."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_clips import add, contents, copy_clips
from library_media import given

import videoprism_mlx as vp
from videoprism_mlx.errors import LibraryError, NoLibraryError
from videoprism_mlx.library import storage
from videoprism_mlx.library.indexing import claims, recognise
from videoprism_mlx.library.indexing.claims import Claims
from videoprism_mlx.library.indexing.view import View
from videoprism_mlx.library.search import search
from videoprism_mlx.library.storage import LOCKS, MAKING, connect, keep_earlier, making, new_or_open
from videoprism_mlx.library.table import MOMENTS, Tables, moments_schema


def replace(tables: Tables, take: int, vector: np.ndarray, end: str = "") -> None:
    """Writes a new take of the only video, in the steps of a run, up to one of them."""
    import pyarrow as pa

    [row] = tables.rows()
    moment = dict(video=row["id"], take=take, number=0, start=0.0, end=4.0, picture=b"")
    table = pa.Table.from_pylist([{**moment, "embedding": vector}], moments_schema(len(vector)))
    tables.add_moments(table)
    tables.put_videos([{**row, "take": take}])
    tables.remove(MOMENTS, f"take != {take}")


def test_a_search_sees_one_of_two_takes_at_any_instant(tmp_path: Path) -> None:
    """The tables are opened one after the other, and a take is replaced in between."""
    vector = np.float32([1, 0])
    reader = given(tmp_path / "library", {"/clip.mp4": vector[None]})
    writer, moments = Tables.open(tmp_path / "library"), reader.moments
    takes = iter(range(2, 5))

    class Late:
        def checkout_latest(self) -> None:
            if (take := next(takes, None)) is not None:
                writer.refresh()
                replace(writer, take, vector)
            moments.checkout_latest()

        def __getattr__(self, name: str) -> object:
            return getattr(moments, name)

    reader.moments = Late()
    reader.refresh()
    assert [one.path for one in search(reader, vector)] == ["/clip.mp4"]


def test_a_search_begins_again_when_another_thread_refreshes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = np.float32([1, 0])
    tables = given(tmp_path / "library", {"/clip.mp4": vector[None]})
    module = search.__globals__
    real, changes = module["best_videos"], iter([True])

    def best_videos(*arguments: object) -> object:
        rows = real(*arguments)
        if next(changes, False):
            writer = Tables.open(tmp_path / "library")
            replace(writer, 2, vector)
            tables.refresh()
        return rows

    monkeypatch.setitem(module, "best_videos", best_videos)
    assert [one.path for one in search(tables, vector)] == ["/clip.mp4"]


def test_rows_are_never_known_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path / "library", copy_clips(tmp_path / "clips", 3))
    tables = Tables.open(tmp_path / "library")
    view, seen = View(tables), list[int]()
    real = Tables.rows

    def rows(*arguments: object, **options: object) -> object:
        looking = threading.Thread(
            target=lambda: seen.append(min(len(view.by_path), len(view.by_id)))
        )
        looking.start()
        looking.join()
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Tables, "rows", rows)
    view.read()
    assert seen == [3]


def test_a_copy_of_a_video_whose_moments_have_just_been_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, library = copy_clips(tmp_path / "clips", 1), tmp_path / "library"
    add(library, clips)
    (clips / "copy.mp4").write_bytes((clips / "0.mp4").read_bytes())
    real, changes = recognise.copied_moments, iter([True])

    def copied_moments(*arguments: object) -> object:
        if next(changes, False):
            writer = Tables.open(library)
            [row] = writer.rows()
            writer.remove(MOMENTS, f"take = {row['take']}")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(recognise, "copied_moments", copied_moments)
    add(library, clips)
    assert not [row for row in Tables.open(library).rows() if row["path"].endswith("copy.mp4")]


def test_a_claim_that_could_not_be_cleared_up_stays_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, library = copy_clips(tmp_path / "clips", 1), tmp_path / "library"
    add(library, clips)
    left = library / LOCKS / "0123.lock"
    left.touch()

    def fails(*_: object) -> None:
        raise LibraryError("the disk is full")

    with monkeypatch.context() as context, pytest.raises(LibraryError, match="disk is full"):
        context.setattr(claims, "remove_others", fails)
        add(library, clips)
    assert left.exists()
    assert Claims(Tables.open(library)).take("0123")
    assert len(contents(library)) == len(vp.Library(library).search("a red ball")) == 1


def test_a_library_that_another_process_is_just_making(tmp_path: Path) -> None:
    """Its folder is there, and nothing is in it yet."""
    (tmp_path / "library" / "videos.lance" / "_versions").mkdir(parents=True)
    with pytest.raises(NoLibraryError):
        Tables.open(tmp_path / "library")


def moment_of(video: str) -> Any:
    """A table with a moment."""
    import pyarrow as pa

    moment = dict(video=video, take=1, number=0, start=0.0, end=4.0, picture=b"")
    return pa.Table.from_pylist([{**moment, "embedding": [1.0, 0.0]}], moments_schema(2))


def test_many_make_a_library_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    """LanceDB alone lets some of them make the same table anew."""
    together, names = threading.Barrier(4), [f"video {number}" for number in range(4)]

    def write(where: Path, name: str) -> None:
        together.wait()
        new_or_open(connect(str(where)), MOMENTS, moments_schema(2)).add(moment_of(name))

    for turn in range(8):
        where = tmp_path / str(turn)
        with ThreadPoolExecutor(len(names)) as threads:
            list(threads.map(write, [where] * len(names), names))
        found = new_or_open(connect(str(where)), MOMENTS, moments_schema(2)).to_arrow()
        assert sorted(found["video"].to_pylist()) == names
    with making(str(tmp_path / "0")):
        assert [path.name for path in (tmp_path / "0" / LOCKS).iterdir()] == [MAKING]
    assert not list((tmp_path / "0" / LOCKS).iterdir())


def test_a_table_that_another_process_makes_anew_at_the_same_time(tmp_path: Path) -> None:
    """In a bucket, nothing prevents that: what is written before, meanwhile and after it stays."""
    tables = Tables.create(tmp_path / "library", {}, 2)
    database = connect(tables.where)

    def make(schema: Any = None) -> Any:
        found = moments_schema(2) if schema is None else schema
        return database.create_table(MOMENTS, schema=found, mode="overwrite")

    keep_earlier(make())
    tables.add_moments(moment_of("a"))  # It was opened before, and has seen no other version.
    again = make()
    assert again.count_rows() == 0
    tables.add_moments(moment_of("b"))
    keep_earlier(again)
    tables.add_moments(moment_of("c"))
    found = database.open_table(MOMENTS)
    assert sorted(found.to_arrow()["video"].to_pylist()) == ["a", "b", "c"]
    keep_earlier(make(moments_schema(2).with_metadata({"of": "another model"})))
    found.checkout_latest()
    assert found.schema.metadata is None and found.count_rows() == 3


def test_a_table_that_is_damaged_is_not_made_anew(tmp_path: Path) -> None:
    tables = Tables.create(tmp_path / "library", {}, 2)
    tables.add_moments(moment_of("a"))
    shutil.rmtree(tmp_path / "library" / f"{MOMENTS}.lance" / "_versions")
    for opened in (Tables.open, lambda where: Tables.create(where, {}, 2)):
        with pytest.raises(LibraryError, match="or is damaged"):
            opened(tmp_path / "library")
    assert list((tmp_path / "library" / f"{MOMENTS}.lance" / "data").iterdir())


def test_whoever_makes_a_table_is_not_waited_for_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    where = str(tmp_path)
    with (
        making(where),
        pytest.raises(LibraryError, match=f"if there is none, remove {where}/{LOCKS}/{MAKING}"),
    ):
        new_or_open(connect(where), MOMENTS, moments_schema(2))
