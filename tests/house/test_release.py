"""A release needs a tag that is the version, and a changelog with its date."""

import importlib.util
import re
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

spec = importlib.util.spec_from_file_location("check_tag", ROOT / ".ci" / "check_tag.py")
assert spec is not None and spec.loader is not None
check_tag = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_tag)


@pytest.mark.parametrize(
    ("tag", "heading", "expected"),
    [
        ("v1.2.3", "## 1.2.3 (2030-01-31)", None),
        ("v1.2.4", "## 1.2.3 (2030-01-31)", "expected v1.2.3"),
        ("1.2.3", "## 1.2.3 (2030-01-31)", "expected v1.2.3"),
        ("v1.2.3", "## 1.2.3 (unreleased)", "expected the date"),
        ("v1.2.3", "## 1.2.30 (2030-01-31)", "no section 1.2.3"),
    ],
)
def test_a_tag_is_checked(tag: str, heading: str, expected: str | None) -> None:
    problem = check_tag.problem_with(
        tag, 'name = "x"\nversion = "1.2.3"\n', f"# Log\n\n{heading}\n"
    )
    assert problem is None if expected is None else expected in problem


def test_the_version_is_said_in_one_place() -> None:
    [said] = re.findall(r'^version = "(.+)"$', PROJECT, re.MULTILINE)
    assert version("videoprism_mlx") == said
    assert f"## {said}" in CHANGELOG
    for path in (ROOT / "videoprism_mlx").rglob("*.py"):
        assert said not in path.read_text(encoding="utf-8"), path
