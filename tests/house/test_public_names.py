"""Type checkers see the public names: those that `__getattr__` imports at their first use."""

import ast
import importlib
from pathlib import Path

import pytest

PACKAGES = ("videoprism_mlx", "videoprism_mlx.pictures")


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_every_public_name_and_no_other(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    [imports] = [node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in imports.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == sorted(module.__all__)
    for name, (home, original) in seen.items():
        assert home is not None and original == name
        assert getattr(importlib.import_module(home), name) is getattr(module, name)
    # If they saw this function, any misspelt name would exist.
    assert not any(
        isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body
    )
