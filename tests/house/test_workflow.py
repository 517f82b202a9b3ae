"""The workflow: the machines it runs on, and the check whose result it keeps."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def job() -> dict[str, Any]:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    found: dict[str, Any] = workflow["jobs"]["test"]
    return found


def test_where_it_runs(job: dict[str, Any]) -> None:
    matrix = job["strategy"]["matrix"]
    assert matrix["python"] == [f"3.{minor}" for minor in range(10, 16)]
    assert len([name for name in matrix["os"] if name.startswith("macos-")]) == 2
    assert {"ubuntu-24.04", "ubuntu-24.04-arm"} < set(matrix["os"])
    assert "macos-14" not in matrix["os"]  # GitHub retired it in November 2026.


def test_the_check_is_kept_also_if_something_failed(job: dict[str, Any]) -> None:
    steps = job["steps"]
    [number] = [n for n, step in enumerate(steps) if "check --json" in step.get("run", "")]
    kept = steps[number + 1]
    assert kept["with"]["path"] == "check.json"
    assert steps[number]["if"] == kept["if"] == "${{ !cancelled() }}"
    assert job["defaults"]["run"]["shell"] == "bash"  # With pipefail: a failing check fails it.
