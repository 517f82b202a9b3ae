"""The check that pip finds wheels: which dependencies it asks for on each machine."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = """
dependencies = [
    "mlx>=0.30; sys_platform == 'darwin'",
    "mlx[cpu]>=0.30; sys_platform == 'linux'",
    "numpy", # a comment
    "old>=1,<2; python_version < '3.12'",
    "fast; platform_machine == 'aarch64'",
]

[project.optional-dependencies]
pictures = ["drawing"] # a comment
parquet = ["tables>=17"]
completion = []
library = [
    "found",
    "server[fast]>=1; python_version < '3.12'",
]
machines = ["scheduling>=2"]
test = ["other"]
"""

EXTRAS = ["drawing", "tables>=17", "found"]


@pytest.mark.parametrize(
    ("system", "processor", "python", "expected"),
    [
        (
            "darwin",
            "arm64",
            "3.10",
            ["mlx>=0.30", "numpy", "old>=1,<2", *EXTRAS, "server[fast]>=1", "scheduling>=2"],
        ),
        ("linux", "aarch64", "3.14", ["mlx[cpu]>=0.30", "numpy", "fast", *EXTRAS, "scheduling>=2"]),
    ],
)
def test_what_is_required(system: str, processor: str, python: str, expected: list[str]) -> None:
    spec = importlib.util.spec_from_file_location("check", ROOT / ".ci/check_resolver.py")
    assert spec and spec.loader
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    assert check.dependencies(PROJECT, system, processor, python) == expected
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert len(check.dependencies(project, system, processor, python)) >= 12
