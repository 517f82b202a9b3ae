"""Damaged tables and a full disk: one clear error, and nothing lost."""

import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from drawn_clips import add, contents, copy_clips

import videoprism_mlx as vp
from videoprism_mlx.errors import LibraryError
from videoprism_mlx.library import storage
from videoprism_mlx.library.table import Tables


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips and their library."""
    root = tmp_path_factory.mktemp("made")
    add(root / "library", copy_clips(root / "clips", 3))
    return root


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_file_is_one_clear_error_or_does_not_matter(
    seed: int, made: Path, tmp_path: Path
) -> None:
    draw, library = random.Random(seed), tmp_path / "library"
    shutil.copytree(made / "library", library)
    files = sorted(path for path in library.rglob("*") if path.is_file() and path.stat().st_size)
    path = files[seed % len(files)]
    content = bytearray(path.read_bytes())
    if seed % 2:
        del content[draw.randrange(len(content)) :]
    else:
        for _ in range(20):
            content[draw.randrange(len(content))] = draw.randrange(256)
    path.write_bytes(content)
    for use in (vp.Library.verify, vp.Library.info, lambda one: add(library, made / "clips")):
        try:
            use(vp.Library(library))
        except LibraryError as error:
            assert str(library) in str(error)
            assert len(str(error)) < 600 and "\n" not in str(error)


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_full_disk(
    writes: int, tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    shutil.copytree(made / "library", library)
    right = contents(library)
    clips = copy_clips(tmp_path / "more", 2, first=5)
    free = iter([2**40] * writes + [2**20] * 9)
    with monkeypatch.context() as context:
        context.setattr(storage.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free)))
        with pytest.raises(LibraryError, match=r"the disk is full \(1 MB are free, and 67 MB"):
            add(library, clips)
    assert right.items() <= contents(library).items()
    add(library, clips)
    add(tmp_path / "fresh", clips)
    assert contents(library) == right | contents(tmp_path / "fresh")
    assert vp.Library(library).verify().is_whole
    assert Tables.open(library).moments.count_rows() == 5


def test_what_lancedb_says_of_a_full_disk(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = Tables.open(made / "library")

    def refuse(_: object) -> None:
        raise OSError("lance error: LanceError(IO): No space left on device (os error 28), /x")

    monkeypatch.setattr(tables.moments, "add", refuse)
    with pytest.raises(LibraryError, match=r"the disk is full \(.*make room or write elsewhere"):
        tables.add_moments(tables.moments.to_arrow())


@pytest.mark.parametrize(
    "said",
    [
        'LanceError(IO): Permission denied (os error 13) at path "/x", /root/.cargo/lance-io.rs',
        "LanceError(IO): Read-only file system (os error 30)",
    ],
)
def test_what_lancedb_says_of_a_folder_that_is_read_only(
    said: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables.open(made / "library")

    def refuse(_: object) -> None:
        raise OSError(said)

    monkeypatch.setattr(tables.moments, "delete", refuse)
    with pytest.raises(LibraryError, match=r"library: there is no permission to write to it"):
        tables.remove("moments", "take = 1")
