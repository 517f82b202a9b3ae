"""Arrays of videos that ranks prepare together, with one cache folder or one each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rank_threads import each_rank

from videoprism_mlx.errors import FeatureFileError, VideoError
from videoprism_mlx.features.cache import ArrayCache, fill
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.ranks import files
from videoprism_mlx.ranks.alike import require_alike
from videoprism_mlx.ranks.group import Group


def array_of(path: Path) -> np.ndarray:
    """What is made of a video: of other sizes by its number."""
    number = int(path.stem)
    return np.random.RandomState(number).randint(0, 255, (number + 1, 50)).astype(np.uint8)


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    """Seven files, the last of which is bad, and the first of which is listed twice."""
    paths = [tmp_path / f"{number}.mp4" for number in range(7)]
    for path in paths:
        path.write_text("bad" if path.stem == "6" else "good")
    return [*paths, paths[0]]


def reader(read: list[str]) -> Callable[[Path], np.ndarray]:
    """Reads good videos, and notes what it has read."""

    def reading(path: Path) -> np.ndarray:
        read.append(path.stem)
        if path.read_text() == "bad":
            raise VideoError(f"{path} is damaged")
        return array_of(path)

    return reading


@pytest.mark.parametrize("piece", [100, 1 << 20])
@pytest.mark.parametrize("size", [2, 3])
def test_each_rank_makes_its_share_and_gets_the_others(
    size: int, piece: int, tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PIECE", piece)
    read: list[list[str]] = [[] for _ in range(size)]

    def prepared(group: Group) -> tuple[list[Path | None], list[str]]:
        cache = ArrayCache(tmp_path / f"cache{group.rank}", {"how": 1})
        return fill(cache, videos, reader(read[group.rank]))

    for rank, (paths, lines) in enumerate(each_rank(size, prepared)):
        assert [path is None for path in paths] == [False] * 6 + [True, False]
        assert lines == [f"cannot be used: {videos[6]} is damaged"]
        for video, path in zip(videos, paths, strict=True):
            if path is not None:
                assert path.is_relative_to(tmp_path / f"cache{rank}")
                np.testing.assert_array_equal(np.load(path), array_of(video))
    every = sorted(name for each in read for name in each)
    assert every == sorted([*"0123456", "6"])  # The first rank tries the bad one again.
    assert all(len(each) in range(2, 6) for each in read)

    again: list[list[str]] = [[] for _ in range(size)]
    read[:] = again
    each_rank(size, prepared)
    assert again[0] == ["6"] and not any(again[1:])


def test_with_one_folder_nothing_is_sent(
    tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(*_: object) -> None:
        raise AssertionError("a file is sent")

    monkeypatch.setattr(files, "send", send)
    found = each_rank(3, lambda _: fill(ArrayCache(tmp_path / "cache", {}), videos, reader([])))
    assert found[0] == found[1] == found[2]


def test_what_one_rank_has_is_not_made_again(tmp_path: Path, videos: list[Path]) -> None:
    fill(ArrayCache(tmp_path / "cache1", {}), videos[:6], reader([]))
    read: list[str] = []

    def prepared(group: Group) -> list[Path | None]:
        cache = ArrayCache(tmp_path / f"cache{group.rank}", {})
        return fill(cache, videos[:6], reader(read))[0]

    paths = each_rank(2, prepared)[0]
    assert read == [] and paths[0] is not None and paths[0].is_relative_to(tmp_path / "cache0")
    np.testing.assert_array_equal(np.load(paths[5] or ""), array_of(videos[5]))


def test_the_first_rank_reads_what_another_cannot(
    tmp_path: Path, videos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk of the other Mac is not there, and so its videos have no version either."""

    def prepared(group: Group) -> list[Path | None]:
        listed = videos[:6]
        if not group.is_first:
            listed = [tmp_path / "elsewhere" / path.name for path in listed]
        cache = ArrayCache(tmp_path / f"cache{group.rank}", {})
        return fill(cache, listed, reader([]))[0]

    for paths in each_rank(2, prepared):
        for video, path in zip(videos, paths, strict=False):
            assert path is not None
            np.testing.assert_array_equal(np.load(path), array_of(video))
    said = capsys.readouterr().err
    assert "rank 1 (mac1) cannot read 3 videos: " in said and "there is no such file" in said
    assert "cannot be used" not in said


@pytest.mark.parametrize("most", [1, 64])
def test_files_go_to_those_who_lack_them(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST", most)
    monkeypatch.setattr(files, "PIECE", 1000)
    contents = [np.random.RandomState(n).bytes(size) for n, size in enumerate((0, 1, 999, 2500))]

    def complete(group: Group) -> list[bytes | None]:
        paths = [tmp_path / f"{group.rank}" / f"{number}" for number in range(5)]
        for number, content in enumerate(contents):
            if number % group.size == group.rank:
                with new_file(paths[number]) as partial:
                    partial.write_bytes(content)
        files.complete(group, paths, Path.read_bytes)
        return [path.read_bytes() if path.exists() else None for path in paths]

    assert each_rank(3, complete) == [[*contents, None]] * 3


def test_a_damaged_array_is_not_sent(tmp_path: Path, videos: list[Path]) -> None:
    """Otherwise the other rank would send it back after it was removed."""
    made = fill(ArrayCache(tmp_path / "cache0", {}), videos[:2], reader([]))[0][1] or tmp_path
    made.write_bytes(made.read_bytes()[:-1])

    def prepared(group: Group) -> list[Path | None]:
        return fill(ArrayCache(tmp_path / f"cache{group.rank}", {}), videos[:2], reader([]))[0]

    with pytest.raises(FeatureFileError, match=f"{made.name} is damaged"):
        each_rank(2, prepared)
    assert not list(tmp_path.glob("cache1/**/*.npy"))
    made.unlink()
    for path in each_rank(2, prepared):
        np.testing.assert_array_equal(np.load(path[1] or ""), array_of(videos[1]))


def test_ranks_that_differ_are_named() -> None:
    record = {"model": {"name": "here", "weights": "a" * 64}, "data": "one"}

    def differing(group: Group) -> str:
        own = {**record, "data": "other" if group.rank == 1 else "one"}
        own["model"] = {"name": f"a path of {group.rank}", "weights": "a" * 64}
        try:
            require_alike(group, own)
        except RuntimeError as error:
            return str(error)
        return ""

    said = "rank 1 (mac1) differs from rank 0 (mac0): data is other there and one here. "
    for each in each_rank(3, differing):
        assert each.startswith(said)
    assert each_rank(2, lambda group: require_alike(group, record)) == [None, None]
