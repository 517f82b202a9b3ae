"""The comparison on real weights, run on a stand-in where the official package is installed."""

import subprocess
import sys

import pytest
from conftest import REFERENCE

pytest.importorskip("jax")
pytest.importorskip("videoprism")

SCRIPT = """
import json, runpy, sys
import videoprism_mlx as vp

name, folder, script = sys.argv[1:4]
vp.models.CONFIGS[name] = json.load(open(f"{folder}/config.json"))
sys.path.insert(0, script.rpartition("/")[0])
sys.argv = [script, name, "--checkpoint", f"{folder}/checkpoint.npz"]
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.parametrize("name", ["encoder", "classifier"])
def test_it_prints_a_table_and_agrees(name: str) -> None:
    command = [sys.executable, "-c", SCRIPT, name, REFERENCE / name, REFERENCE / "compare_real.py"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Flax-f64" in printed and "output/spatial_features" in printed
