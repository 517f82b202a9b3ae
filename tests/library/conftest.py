"""What the tests of the page share: one library, and one server of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from web_server import Site, make_library, serving


@pytest.fixture(scope="session")
def web_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_library(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="session")
def site(web_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(web_library, tmp_path_factory.mktemp("previews")) as running:
        yield running
