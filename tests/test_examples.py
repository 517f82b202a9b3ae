"""The examples run, on what they draw."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_demo() -> None:
    command = [sys.executable, EXAMPLES / "demo.py"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "features     (1, 128, 48)" in printed
    assert "parity " in printed
