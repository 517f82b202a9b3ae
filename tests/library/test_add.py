"""Bringing videos into a library."""

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import media
import numpy as np
import pytest
from drawn_clips import MISSING, OK, add, contents, copy_clips, model, statuses
from PIL import Image

import videoprism_mlx as vp
from videoprism_mlx.library.indexing import add as adding
from videoprism_mlx.library.indexing import ingest, scan, starts
from videoprism_mlx.library.indexing.recognise import ENCODED, Outcome
from videoprism_mlx.library.table import Tables


def vectors(where: Path, path: Path) -> np.ndarray:
    return np.stack([np.frombuffer(one[2], np.float32) for one in contents(where)[str(path)]])


def picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_short_clip_is_one_moment_as_encode_gives_it(tmp_path: Path) -> None:
    clips = copy_clips(tmp_path / "clips", 2)
    added = add(tmp_path / "library", clips)
    assert (added.videos, added.encoded, added.moments, added.skipped) == (2, 2, 2, {})
    paths = sorted(clips.iterdir())
    for path, encoded in zip(paths, vp.encode(*model(), paths), strict=True):
        [(start, end, vector, _)] = contents(tmp_path / "library")[str(path)]
        assert (start, end) == (0, 2)
        expected = encoded.features["embedding"]
        np.testing.assert_allclose(np.frombuffer(vector, np.float32), expected, atol=2e-6)


def test_the_bar_counts_each_byte_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one byte too many, it would show no share."""
    media.write(tmp_path / "long.mp4", 4, size=(64, 48))
    counted: list[int] = []

    class Bar(io.StringIO):
        def update(self, count: int) -> None:
            counted.append(count)

        def set_description_str(self, *_: object, **__: object) -> None:
            pass

    def outcomes(self: object, files: list[scan.File]) -> Iterator[Outcome]:
        [file] = files
        for share in np.linspace(0, 1, 40)[1:-1]:
            yield Outcome(file, ENCODED, float(share), is_final=False)
        yield Outcome(file, ENCODED)

    monkeypatch.setattr(adding, "bar", lambda **_: Bar())
    monkeypatch.setattr(ingest.Ingest, "run", outcomes)
    add(tmp_path / "library", tmp_path / "long.mp4")
    assert sum(counted) == (tmp_path / "long.mp4").stat().st_size


def test_a_long_video_is_windows_with_pictures_of_their_middles(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    media.write(path, 105, fps=10, size=(160, 80))
    add(tmp_path / "library", path)
    loaded, _ = model()
    windows = [*vp.encode_windows(loaded, path, 4, fps=1, features=["embedding"])]
    moments = contents(tmp_path / "library")[str(path)]
    assert [one[:2] for one in moments] == [(one.start, one.end) for one in windows]
    assert [one[:2] for one in moments] == [(0, 4), (4, 8), (7, pytest.approx(10.5))]
    expected = np.stack([one.features["embedding"] for one in windows])
    np.testing.assert_allclose(vectors(tmp_path / "library", path), expected, atol=2e-6)
    pictures = [picture(one[3]) for one in moments]
    assert {one.shape for one in pictures} == {(80, 160, 3)}
    assert [media.number(one) for one in pictures] == [20, 60, 90]
    [row] = Tables.open(tmp_path / "library").rows()
    facts = ("path", "size", "width", "height", "rate", "codec", "moments", "status")
    size = path.stat().st_size
    assert [row[name] for name in facts] == [
        *(str(path), size, 160, 80, pytest.approx(10), "h264", 3, OK)
    ]
    assert row["date"] == path.stat().st_mtime_ns / 1e9


def test_windows_that_overlap(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    media.write(path, 60, fps=10)
    add(tmp_path / "library", path, window=6, stride=2, fps=2)
    options = dict(fps=2, features=["embedding"])
    windows = [*vp.encode_windows(model()[0], path, 6, 2, **options)]
    expected = np.stack([one.features["embedding"] for one in windows])
    assert len(expected) == 4
    np.testing.assert_allclose(vectors(tmp_path / "library", path), expected, atol=2e-6)


def test_a_second_run_reads_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = copy_clips(tmp_path / "clips", 2)
    add(tmp_path / "library", clips)
    versions = [table.version for table in both(tmp_path)]
    monkeypatch.setattr(starts, "checksum", lambda _: pytest.fail("a file is read"))
    added = vp.Library(tmp_path / "library").add(clips, model(), progress=False)
    assert (added.videos, added.encoded) == (2, 0)
    assert [table.version for table in both(tmp_path)] == versions


def both(folder: Path) -> tuple[object, ...]:
    tables = Tables.open(folder / "library")
    return tables.videos, tables.moments


def test_moved_and_renamed_videos_are_not_encoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, library = copy_clips(tmp_path / "clips", 3), tmp_path / "library"
    add(library, clips)
    before = contents(library)
    ids = {Path(row["path"]).name: row["id"] for row in Tables.open(library).rows()}
    clips.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "1.mp4").rename(tmp_path / "elsewhere" / "renamed.mp4")
    monkeypatch.setattr(ingest.Opening, "of", lambda *_: pytest.fail("a video is read"))
    added = add(library, tmp_path / "elsewhere")
    assert (added.moved, added.encoded, added.missing) == (3, 0, 0)
    after = contents(library)
    assert sorted(map(str, after)) == sorted(map(str, (tmp_path / "elsewhere").iterdir()))
    assert sorted(map(str, after.values())) == sorted(map(str, before.values()))
    now = {Path(row["path"]).name: row["id"] for row in Tables.open(library).rows()}
    assert now == {"0.mp4": ids["0.mp4"], "2.mp4": ids["2.mp4"], "renamed.mp4": ids["1.mp4"]}


def test_a_changed_file_replaces_its_moments(tmp_path: Path) -> None:
    clips, library = copy_clips(tmp_path / "clips", 2), tmp_path / "library"
    add(library, clips)
    [other] = copy_clips(tmp_path / "other", 1, first=5).iterdir()
    shutil.copy(other, clips / "0.mp4")
    assert add(library, clips).encoded == 1
    add(tmp_path / "fresh", clips)
    assert contents(library) == contents(tmp_path / "fresh")
    assert Tables.open(library).moments.count_rows() == 2


def test_a_file_with_a_new_time_and_the_same_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, library = copy_clips(tmp_path / "clips", 1), tmp_path / "library"
    add(library, clips)
    os.utime(clips / "0.mp4", (1e9, 1e9))
    monkeypatch.setattr(ingest.Opening, "of", lambda *_: pytest.fail("a video is read"))
    assert add(library, clips).encoded == 0
    assert Tables.open(library).rows()[0]["modified"] == 10**18
    monkeypatch.setattr(starts, "checksum", lambda _: pytest.fail("a file is read"))
    add(library, clips)


def test_a_vanished_file_is_marked_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clips, library = copy_clips(tmp_path / "clips", 2), tmp_path / "library"
    add(library, clips)
    (clips / "0.mp4").rename(tmp_path / "0.mp4")
    added = vp.Library(library).add(clips, model())
    assert (added.missing, statuses(library)) == (1, {"0.mp4": MISSING, "1.mp4": OK})
    assert "1 video is no longer there, and is marked as missing" in capsys.readouterr().err
    assert add(library, clips).missing == 0
    monkeypatch.setattr(ingest.Opening, "of", lambda *_: pytest.fail("a video is read"))
    (tmp_path / "0.mp4").rename(clips / "0.mp4")
    add(library, clips)
    assert statuses(library) == {"0.mp4": OK, "1.mp4": OK}
    (clips / "0.mp4").rename(tmp_path / "0.mp4")
    add(library, clips)
    assert vp.Library(library).prune() == [str(clips / "0.mp4")]
    assert statuses(library) == {"1.mp4": OK}
    assert Tables.open(library).moments.count_rows() == 1


def test_only_what_was_asked_for_can_be_missing(tmp_path: Path) -> None:
    library = tmp_path / "library"
    clips, others = copy_clips(tmp_path / "clips", 2), copy_clips(tmp_path / "others", 1, first=2)
    add(library, [clips, others])
    shutil.rmtree(clips)
    add(library, others)
    assert statuses(library) == dict.fromkeys(("0.mp4", "1.mp4", "2.mp4"), OK)


@pytest.mark.parametrize("kind", ["gone", "empty"])
def test_a_disk_that_is_not_there(tmp_path: Path, kind: str) -> None:
    """Its mount point is gone, or empty. Nothing is marked, and that is said."""
    library, disk = tmp_path / "library", copy_clips(tmp_path / "disk", 2)
    add(library, [disk])
    disk.rename(tmp_path / "away")
    if kind == "empty":
        disk.mkdir()
    added = add(library, disk)
    [said] = added.skipped.values()
    assert "the library has 2 videos of it. If that disk is not connected" in said
    assert set(statuses(library).values()) == {OK}
    assert vp.Library(library).prune() == []
    assert len(vp.Library(library).prune(disk)) == 2


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, clips = tmp_path / "library", copy_clips(tmp_path / "clips", 2)
    copy_clips(clips / "deeper", 1, first=2)
    add(library, clips)
    (clips / "1.mp4").unlink()
    list_folder = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "deeper":
            raise PermissionError(13, "no permission", str(path))
        return list_folder(path)

    with monkeypatch.context() as context:
        context.setattr(os, "scandir", refuse)
        added = add(library, clips)
    assert [*added.skipped] == [str(clips / "deeper")]
    assert statuses(library) == {"0.mp4": OK, "1.mp4": MISSING, "2.mp4": OK}


def test_several_paths_to_one_file_are_one_entry(tmp_path: Path) -> None:
    library, clips = tmp_path / "library", copy_clips(tmp_path / "clips", 1)
    os.link(clips / "0.mp4", clips / "hard.mp4")
    (clips / "soft.mp4").symlink_to(clips / "0.mp4")
    (tmp_path / "second").symlink_to(clips)
    added = add(library, [clips, tmp_path / "second"])
    assert (added.videos, statuses(library)) == (1, {"0.mp4": OK})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.link(clips / "0.mp4", elsewhere / "another.mp4")
    add(library, elsewhere)
    assert statuses(library) == {"0.mp4": OK}
    (clips / "0.mp4").unlink()
    (clips / "hard.mp4").unlink()
    (clips / "soft.mp4").unlink()
    assert add(library, [elsewhere, clips]).moved == 1
    assert statuses(library) == {"another.mp4": OK}


def test_a_copy_has_an_entry_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, clips = tmp_path / "library", copy_clips(tmp_path / "clips", 1)
    add(library, clips)
    shutil.copy(clips / "0.mp4", clips / "copy.mp4")
    monkeypatch.setattr(ingest.Opening, "of", lambda *_: pytest.fail("a video is read"))
    assert add(library, clips).copied == 1
    found = contents(library)
    assert found[str(clips / "0.mp4")] == found[str(clips / "copy.mp4")]
    assert len({row["id"] for row in Tables.open(library).rows()}) == 2
    assert vp.Library(library).verify().is_whole


def test_copies_of_one_run_are_encoded_once(tmp_path: Path) -> None:
    library, clips = tmp_path / "library", copy_clips(tmp_path / "clips", 1)
    for number in range(1, 4):
        shutil.copy(clips / "0.mp4", clips / f"{number}.mp4")
    added = add(library, clips)
    assert (added.encoded, added.copied, added.busy) == (1, 3, 0)
    assert len({str(moments) for moments in contents(library).values()}) == 1


def test_a_name_that_another_file_has_taken(tmp_path: Path) -> None:
    """The old file keeps its id at its new place, and the new one gets another."""
    library, clips = tmp_path / "library", copy_clips(tmp_path / "clips", 2)
    add(library, clips)
    (clips / "0.mp4").rename(clips / "moved.mp4")
    [other] = copy_clips(tmp_path / "other", 1, first=5).iterdir()
    shutil.copy(other, clips / "0.mp4")
    add(library, clips)
    (clips / "1.mp4").rename(clips / "again.mp4")
    add(library, clips)
    [another] = copy_clips(tmp_path / "another", 1, first=6).iterdir()
    shutil.copy(another, clips / "1.mp4")
    add(library, clips)
    add(tmp_path / "fresh", clips)
    assert contents(library) == contents(tmp_path / "fresh")
    verified = vp.Library(library).verify()
    assert (verified.problems, verified.videos) == ((), 4)


def test_a_folder_of_images(tmp_path: Path) -> None:
    library, frames = tmp_path / "library", tmp_path / "clips" / "frames"
    frames.mkdir(parents=True)
    for number in range(5):
        Image.fromarray(media.frame(number)).save(frames / f"{number}.png")
    assert add(library, tmp_path / "clips").encoded == 1
    [row] = Tables.open(library).rows()
    assert (row["path"], row["codec"], row["duration"]) == (str(frames), "images", 0.2)
    assert add(library, tmp_path / "clips").encoded == 0
    Image.fromarray(media.frame(9)).save(frames / "2.png")
    assert add(library, tmp_path / "clips").encoded == 1


def test_a_bad_file_is_listed_and_tried_when_it_changes(tmp_path: Path) -> None:
    library, clips = tmp_path / "library", copy_clips(tmp_path / "clips", 1)
    bad = clips / "bad.mp4"
    bad.write_text("no video")
    added = add(library, clips)
    assert (added.encoded, [*added.skipped]) == (1, [str(bad)])
    [listed] = vp.Library(library).errors()
    assert listed["path"] == str(bad) and "is text, and no video" in listed["error"]
    assert [*add(library, clips).skipped] == [str(bad)]
    assert vp.Library(library).verify().is_whole
    shutil.copy(copy_clips(tmp_path / "other", 1, first=4) / "4.mp4", bad)
    assert (add(library, clips).encoded, vp.Library(library).errors()) == (1, [])
    bad.write_text("no video")
    assert add(library, clips).encoded == 0
    assert statuses(library) == {"0.mp4": OK, "bad.mp4": "error"}
    assert Tables.open(library).moments.count_rows() == 1


def test_a_file_that_could_not_be_opened_is_tried_by_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, clips = tmp_path / "library", copy_clips(tmp_path / "clips", 1)

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as context:
        context.setattr(ingest.Opening, "of", refuse)
        assert len(add(library, clips).skipped) == 1
    assert (add(library, clips).encoded, statuses(library)) == (1, {"0.mp4": OK})


def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, clips = tmp_path / "library", copy_clips(tmp_path / "clips", 1)
    open_one = ingest.Opening.of

    def change(path: Path, reading: object) -> object:
        opening = open_one(path, reading)
        os.utime(path, (5, 5))
        return opening

    with monkeypatch.context() as context:
        context.setattr(ingest.Opening, "of", change)
        [error] = add(library, clips).skipped.values()
    assert "was changed while it was read" in error
    assert add(library, clips).encoded == 1


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    library, clips = tmp_path / "library", copy_clips(tmp_path / "clips", 1)
    os.rename(clips / "0.mp4", os.fsencode(clips) + b"/\xff.mp4")
    [error] = add(library, clips).skipped.values()
    assert "its name is not UTF-8" in error
    assert (add(library, clips).encoded, contents(library)) == (0, {})


def test_parts_of_a_large_file_tell_it_from_others(tmp_path: Path) -> None:
    path, content = tmp_path / "large", bytearray(5 * 2**20)
    path.write_bytes(content)
    before = scan.checksum(path)
    for place in (0, len(content) // 2, len(content) - 1):
        changed = content.copy()
        changed[place] = 1
        path.write_bytes(changed)
        assert scan.checksum(path) != before
    path.write_bytes(content[:-1])
    assert scan.checksum(path) != before
