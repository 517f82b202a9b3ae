"""The house stays readable: how long a module, class or function may be, and how full a folder."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("videoprism_mlx", "convert", "examples", "benchmarks")

MODULE_LINES, CLASS_LINES, FUNCTION_LINES = 400, 200, 60
MODULES_IN_A_FOLDER = 12

# They follow the files of the official Flax model, and stay whole.
FLAX_MIRROR = {f"videoprism_mlx/{name}.py" for name in ("layers", "encoders", "models")}


def modules(*folders: str) -> list[Path]:
    """The Python files below these folders of the repository."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    """A file's path in the repository."""
    return path.relative_to(ROOT).as_posix()


def definitions(path: Path) -> Iterator[tuple[str, ast.stmt, int]]:
    """Each class and function of a module: where it is, what it is, its lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            where = f"{name(path)}:{node.lineno} {node.name}"
            yield where, node, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("folder", [*FOLDERS, "tests"])
def test_no_module_is_too_long(folder: str) -> None:
    lengths = {
        name(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in modules(folder)
        if name(path) not in FLAX_MIRROR
    }
    assert {each: lines for each, lines in lengths.items() if lines > MODULE_LINES} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_folder_is_too_full(folder: str) -> None:
    counts: dict[str, int] = {}
    for path in modules(folder):
        if path.name not in ("__init__.py", "__main__.py"):
            parent = name(path.parent)
            counts[parent] = counts.get(parent, 0) + 1
    assert {each: count for each, count in counts.items() if count > MODULES_IN_A_FOLDER} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_class_or_function_is_too_long(folder: str) -> None:
    found = {}
    for path in modules(folder):
        if name(path) not in FLAX_MIRROR:
            for where, node, lines in definitions(path):
                most = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
                if lines > most:
                    found[where] = lines
    assert found == {}


def test_no_two_test_modules_share_a_name() -> None:
    """Tests are imported by name alone, as their folders are no packages."""
    seen: dict[str, Path] = {}
    for path in modules("tests"):
        assert seen.setdefault(path.name, path) == path
