"""A package whose imports are put off until something of it is used."""

import importlib
import sys
from pathlib import Path

import pytest

from videoprism_mlx.runtime.libraries import import_later


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that counts its imports, and has a module inside."""
    name = "putoffpackage"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(
        "import sys\nsys.putoff = getattr(sys, 'putoff', 0) + 1\nfrom putoffpackage import inner\n"
        "from putoffpackage.inner import value\n"
    )
    (tmp_path / name / "inner.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "putoff", 0, raising=False)
    yield name
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]


def test_it_is_imported_at_the_first_use(package: str) -> None:
    import_later(package)
    assert importlib.import_module(f"{package}.inner").value == 7
    assert sys.putoff == 0  # type: ignore[attr-defined]
    assert importlib.import_module(package).value == 7
    assert sys.putoff == 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        _ = importlib.import_module(package).nothing
    assert sys.putoff == 1  # type: ignore[attr-defined]


def test_what_is_imported_or_missing_stays_as_it_is(package: str) -> None:
    module = importlib.import_module(package)
    import_later(package)
    assert sys.modules[package] is module
    import_later("nosuchpackage")
    assert "nosuchpackage" not in sys.modules
