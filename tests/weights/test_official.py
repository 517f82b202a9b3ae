"""Running the official Flax model; without its libraries, an error that says what to install."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REFERENCE, reference_config

from videoprism_mlx.convert.official import run_outputs
from videoprism_mlx.convert.verify import OUTPUT, distance

WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None  # As if it were not installed.
from videoprism_mlx.convert import official
from videoprism_mlx.errors import MissingLibraryError
try:
    official.flax_model({"model": "FactorizedEncoder"}, "float32")
except MissingLibraryError as error:
    print(error)
"""


@pytest.mark.parametrize("library", ["jax", "videoprism"])
def test_a_missing_library_is_named(library: str) -> None:
    command = [sys.executable, "-c", WITHOUT, library]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "run `pip install jax flax einops einshape`" in printed and "PYTHONPATH" in printed


def test_the_saved_outputs_come_out_again() -> None:
    pytest.importorskip("jax")
    pytest.importorskip("videoprism")
    folder: Path = REFERENCE / "encoder_mild"
    with np.load(folder / "plain.npz") as saved:
        found = run_outputs(
            reference_config("encoder_mild"),
            folder / "checkpoint.npz",
            {"inputs": saved["input/inputs"]},
            np.float64,
        )
        assert found and all(key.startswith(OUTPUT) for key in found)
        for key, array in found.items():
            assert distance(array, saved[f"float64/{key}"]) < 1e-6, key
