"""The library that MLX takes its matrix products from on Linux."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone")


def output(script: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout + run.stderr


LOADED = "print('/libopenblas' in open('/proc/self/maps').read())"


def installed() -> bool:
    try:
        import ctypes

        ctypes.CDLL("libopenblas.so.0")
    except OSError:
        return False
    return True


@pytest.mark.skipif(not installed(), reason="OpenBLAS is not installed")
def test_it_is_loaded_before_mlx() -> None:
    assert output(f"import videoprism_mlx; {LOADED}") == "True\n"


@pytest.mark.skipif(not installed(), reason="OpenBLAS is not installed")
def test_too_late_is_said_once() -> None:
    printed = output("import mlx.core, videoprism_mlx, videoprism_mlx.cli")
    assert printed.count("mlx was imported before videoprism_mlx") == 1


def test_it_can_be_turned_off() -> None:
    script = f"import videoprism_mlx; {LOADED}"
    assert output(script, VIDEOPRISM_MLX_OPENBLAS="0") == "False\n"


@pytest.mark.skipif(not installed(), reason="OpenBLAS is not installed")
def test_what_loaded_it_first_is_trusted() -> None:
    script = "import ctypes, os\nctypes.CDLL('libopenblas.so.0', os.RTLD_GLOBAL)\n"
    assert output(f"{script}import mlx.core, videoprism_mlx") == ""


def test_where_it_is_missing_there_is_one_hint() -> None:
    script = (
        "import ctypes\n"
        "def missing(*_, **__): raise OSError\n"
        "load, ctypes.CDLL = ctypes.CDLL, missing\n"
        "import videoprism_mlx, videoprism_mlx.cli\n"
    )
    assert output(script).count("apt-get install libopenblas0-pthread") == 1
