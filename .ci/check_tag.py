"""Checks that a release is what its tag says: `python .ci/check_tag.py v0.1.0`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def problem_with(tag: str, project: str, changelog: str) -> str | None:
    """What keeps a tag from being released; None if nothing does.

    `project` is the text of pyproject.toml.
    """
    [version] = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)
    if tag != f"v{version}":
        return f"the tag is {tag}; expected v{version}, the version in pyproject.toml"
    heading = re.search(rf"^## {re.escape(version)}\b.*$", changelog, re.MULTILINE)
    if heading is None:
        return f"CHANGELOG.md has no section {version}"
    if not re.search(r"\d{4}-\d{2}-\d{2}", heading[0]):
        return f"CHANGELOG.md says {heading[0]!r}; expected the date of the release there"
    return None


if __name__ == "__main__":
    texts = [(ROOT / name).read_text("utf-8") for name in ("pyproject.toml", "CHANGELOG.md")]
    sys.exit(problem_with(sys.argv[1], *texts))
