"""The files and names that FLAX_TO_MLX_CONVERSION_GUIDE.md mentions exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "FLAX_TO_MLX_CONVERSION_GUIDE.md").read_text(encoding="utf-8")

FILES = sorted(set(re.findall(r"[\w/]+\.py\b", GUIDE)))
# "`A`, `B` in `file.py`"; what stands before a full stop or colon belongs to another sentence.
NAMED = [
    (name.split(".")[-1], file)
    for names, file in re.findall(r"((?:`[\w.]+`,?\s+)+)in\s+`([\w/]+\.py)`", GUIDE)
    for name in re.findall(r"`([\w.]+)`", names)
]


def found(name: str) -> Path | None:
    """The file in the repository, or in the package."""
    candidates = (ROOT / name, ROOT / "videoprism_mlx" / name)
    return next((path for path in candidates if path.is_file()), None)


@pytest.mark.parametrize("name", FILES)
def test_files_exist(name: str) -> None:
    assert found(name) is not None


@pytest.mark.parametrize(("name", "file"), NAMED)
def test_names_are_in_their_files(name: str, file: str) -> None:
    path = found(file)
    assert path is not None
    assert re.search(rf"\b{name}\b", path.read_text(encoding="utf-8")), f"{name} is not in {file}"


def test_there_are_some() -> None:
    assert len(FILES) > 5 and len(NAMED) > 10
