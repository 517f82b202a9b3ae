"""Damaged tables and a full disk: one clear error, and nothing lost."""

import random
import shutil
from pathlib import Path

import pytest
from drawn_clips import add, contents, copy_clips
from full_disk import largest_file

import videoprism_mlx as vp
from videoprism_mlx.errors import LibraryError
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


def test_a_full_disk(tmp_path: Path, made: Path) -> None:
    library = tmp_path / "library"
    shutil.copytree(made / "library", library)
    right = contents(library)
    clips = copy_clips(tmp_path / "more", 2, first=5)
    with (
        largest_file(2000),
        pytest.raises(LibraryError, match=r"the disk is full .*: make room, and run it again"),
    ):
        add(library, clips)
    assert contents(library) == right
    add(library, clips)
    add(tmp_path / "fresh", clips)
    assert contents(library) == right | contents(tmp_path / "fresh")
    assert vp.Library(library).verify().is_whole
    assert Tables.open(library).moments.count_rows() == 5
