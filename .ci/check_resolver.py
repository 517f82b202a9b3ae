"""Checks that pip finds wheels of what users install, for each Python and machine.

    python .ci/check_resolver.py

That is the package with its extras, except those for tests and docs. Nothing is built or installed.
It needs the network.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
# The platform tags of wheels that a machine takes, and what sys_platform is there.
MACHINES = {
    "macOS 14, arm64": ("darwin", [f"macosx_{version}_0_arm64" for version in (11, 12, 13, 14)]),
    "Linux, x86-64": (
        "linux",
        [f"manylinux{tag}_x86_64" for tag in ("2014", "_2_27", "_2_28", "_2_35")],
    ),
    "Linux, aarch64": (
        "linux",
        [f"manylinux{tag}_aarch64" for tag in ("2014", "_2_27", "_2_28", "_2_35")],
    ),
}

EXTRAS = ("pictures", "parquet", "completion", "library", "machines")

# What dependencies require on such a system alone. pip asks for the system it runs on instead.
NEEDED_THERE = {"darwin": ["mlx-metal"], "linux": []}


def dependencies(project: str, system: str, processor: str, python: str) -> list[str]:
    """What pyproject.toml requires on such a machine, for the package and each of EXTRAS."""
    required = re.findall(r"^(\w+) = \[(.*?)\](?: #[^\n]*)?$", project, re.MULTILINE | re.DOTALL)
    wanted = [block for name, block in required if name in ("dependencies", *EXTRAS)]
    assert len(wanted) == 1 + len(EXTRAS), f"pyproject.toml has not all of {EXTRAS}"
    found = []
    for line in re.findall(r'"([^"]+)"', "".join(wanted)):
        requirement = Requirement(line)
        environment = {
            "sys_platform": system,
            "platform_machine": processor,
            "python_version": python,
        }
        if requirement.marker is None or requirement.marker.evaluate(environment):
            found.append(line.partition(";")[0].strip())
    return found


def main() -> int:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    bad = False
    for machine, (system, tags) in MACHINES.items():
        for python in PYTHONS:
            processor = tags[0].partition("_0_" if system == "darwin" else "2014_")[2]
            with tempfile.TemporaryDirectory() as folder:
                platforms = [word for tag in tags for word in ("--platform", tag)]
                command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet"]
                where = ["--target", folder, "--only-binary=:all:", "--python-version", python]
                done = subprocess.run(
                    [
                        *(*command, *where, *platforms),
                        *dependencies(project, system, processor, python),
                        *NEEDED_THERE[system],
                    ],
                    capture_output=True,
                    text=True,
                )
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            print(f"{machine}, Python {python}: {errors[-1] if errors else 'fine'}", flush=True)
            bad |= done.returncode != 0
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
