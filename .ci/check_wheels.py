"""Checks that PyAV's and OpenCV's wheels for macOS do not both bring a libavdevice.

    python .ci/check_wheels.py

Both would define the Objective-C classes of AVFoundation's capture, and macOS would print "Class …
is implemented in both …" at every start. Run it when the version of either is raised: it downloads
the wheels that pip would install on a Mac, and reads their lists of files.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
CLASHING = re.compile(r"libavdevice[.\d]*\.dylib$")


def requirements(project: str) -> list[str]:
    """What pyproject.toml requires of PyAV and OpenCV on macOS."""
    lines = re.findall(r'^ +"((?:av|opencv-python)[^a-z][^"]*)"', project, re.MULTILINE)
    return [line.partition(";")[0] for line in lines if "!= 'darwin'" not in line]


def clashes(wheels: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """The wheels, by name and list of files, that bring the library, if more than one does."""
    found = [name for name, files in wheels if any(CLASHING.search(file) for file in files)]
    return found if len(found) > 1 else []


def main() -> int:
    wanted = requirements((ROOT / "pyproject.toml").read_text("utf-8"))
    bad = False
    for python in PYTHONS:
        with tempfile.TemporaryDirectory() as folder:
            target = ["--platform", "macosx_14_0_arm64", "--python-version", python]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
            subprocess.run([*command, folder, "--only-binary=:all:", *target, *wanted], check=True)
            wheels = [(one.name, zipfile.ZipFile(one).namelist()) for one in Path(folder).iterdir()]
            found = clashes(wheels)
            names = ", ".join(sorted(name for name, _ in wheels))
            print(f"Python {python}: {names}: {'both bring libavdevice' if found else 'fine'}")
            bad |= bool(found)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
