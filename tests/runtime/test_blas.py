"""The library that MLX takes its matrix products from on Linux."""

import ctypes
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from videoprism_mlx.runtime import openblas

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone")

has_wheel = pytest.mark.skipif(find_spec("scipy_openblas32") is None, reason="no wheel here")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the copy is made by the first test that needs it."""
    return tmp_path_factory.mktemp("cache")


def start(script: str, cache: Path, **environment: str) -> "subprocess.Popen[str]":
    """A fresh Python. Variables that are set for these tests alone count, and no others."""
    kept = {name: value for name, value in os.environ.items() if "OPENBLAS" not in name}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=kept | {"VIDEOPRISM_MLX_CACHE": str(cache)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output(script: str, cache: Path, **environment: str) -> str:
    process = start(script, cache, **environment)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    return printed


def copies(cache: Path) -> list[Path]:
    return list((cache / "openblas").iterdir())


# Prints the files of all libraries that have OpenBLAS's matrix products and are loaded for all.
LOADED = (
    "import videoprism_mlx\n"
    "maps = {line.split()[-1] for line in open('/proc/self/maps') if '/libopenblas' in line}\n"
    "print(*sorted(maps))\n"
)
# Prints the version, the number of threads and a product that MLX made on the CPU.
USED = (
    "import ctypes, videoprism_mlx, mlx.core as mx\n"
    "mx.set_default_device(mx.cpu)\n"
    "library = ctypes.CDLL(None)\n"
    "library.openblas_get_config.restype = ctypes.c_char_p\n"
    "print(library.openblas_get_config().decode().split()[0], library.openblas_get_num_threads())\n"
    "print((mx.array([[1.0, 2.0]]) @ mx.array([[3.0], [4.0]])).item())\n"
)
HIDE_SYSTEM = (
    "import ctypes\n"
    "load = ctypes.CDLL\n"
    "class CDLL(load):\n"
    "    def __init__(self, name, *rest, **options):\n"
    "        if name == 'libopenblas.so.0': raise OSError('hidden')\n"
    "        super().__init__(name, *rest, **options)\n"
    "ctypes.CDLL = CDLL\n"
)


@has_wheel
def test_mlx_uses_the_copy_with_one_thread(cache: Path) -> None:
    assert output(USED, cache) == "OpenBLAS 1\n11.0\n"
    assert output(USED, cache, OPENBLAS_NUM_THREADS="2") == "OpenBLAS 2\n11.0\n"
    [copy] = copies(cache)
    assert output(LOADED, cache) == f"{copy}\n"


@has_wheel
def test_mlx_calls_it(tmp_path: Path, cache: Path) -> None:
    output(LOADED, cache)
    # The system notes which library each name in another library is bound to.
    noted = {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(tmp_path / "noted"), "LD_BIND_NOW": "1"}
    output("import videoprism_mlx, mlx.core", cache, **noted)
    lines = [
        line
        for file in tmp_path.iterdir()
        for line in file.read_text(errors="replace").splitlines()
        if "libmlx.so" in line and ("`cblas_sgemm'" in line or "`sgesdd_'" in line)
    ]
    [copy] = copies(cache)
    assert len(lines) == 2 and all(str(copy) in line.split(" to ")[1] for line in lines)


@has_wheel
def test_it_has_plain_names_and_a_name_of_its_own(tmp_path: Path) -> None:
    original, identity = openblas.find_original()
    assert identity.count("-") >= 1 and identity[0].isdigit()
    copy = tmp_path / "copy.so"
    assert not openblas.is_whole(copy)
    openblas.make(original, copy)
    assert openblas.is_whole(copy)
    library = ctypes.CDLL(str(copy))
    plain = ("cblas_sgemm", "sgemm_", "sgesdd_", "sgeqrf_", "sgetri_", "openblas_get_config")
    assert all(hasattr(library, name) for name in plain)
    assert not any(hasattr(library, f"scipy_{name}") for name in plain)
    assert openblas.SONAME.encode() in copy.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["copy.so"]


@has_wheel
def test_it_is_made_once(cache: Path) -> None:
    output(LOADED, cache)
    [copy] = copies(cache)
    made = copy.stat()
    assert output(LOADED, cache) == f"{copy}\n"
    assert copy.stat().st_mtime_ns == made.st_mtime_ns
    assert copy.stat().st_ino == made.st_ino


@has_wheel
@pytest.mark.parametrize("left", [0, 10, 1_000_000, -1])
def test_half_a_copy_is_made_again(tmp_path: Path, cache: Path, left: int) -> None:
    output(LOADED, cache)
    [whole] = copies(cache)
    (tmp_path / "openblas").mkdir()
    half = tmp_path / "openblas" / whole.name
    half.write_bytes(whole.read_bytes()[:left])
    assert output(USED, tmp_path) == "OpenBLAS 1\n11.0\n"
    assert half.read_bytes() == whole.read_bytes()


@has_wheel
def test_two_at_once(tmp_path: Path) -> None:
    processes = [start(USED, tmp_path) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert printed == ["OpenBLAS 1\n11.0\n"] * 2
    assert len(copies(tmp_path)) == 1


@has_wheel
def test_a_cache_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    printed = output(USED, blocked, TMPDIR=str(temporary)).splitlines()
    assert printed[0].startswith("OpenBLAS cannot be kept in the cache folder (")
    assert "Set VIDEOPRISM_MLX_CACHE" in printed[0]
    assert printed[1:] == ["OpenBLAS 1", "11.0"]
    assert list(temporary.iterdir()) == []


@has_wheel
def test_without_a_home_folder(tmp_path: Path) -> None:
    script = "import os; [os.environ.pop(name) for name in ('HOME', 'VIDEOPRISM_MLX_CACHE')]\n"
    script += "import pwd\ndef unknown(uid): raise KeyError(uid)\npwd.getpwuid = unknown\n"
    printed = output(script + USED, tmp_path, XDG_CACHE_HOME="").splitlines()
    assert printed[0].startswith("OpenBLAS cannot be kept in the cache folder (")
    assert printed[1:] == ["OpenBLAS 1", "11.0"]


@has_wheel
def test_without_patchelf(tmp_path: Path, cache: Path) -> None:
    script = (
        f"{HIDE_SYSTEM}import shutil\n"
        "shutil.which = lambda *_, **__: None\n"
        "import videoprism_mlx, videoprism_mlx.cli\n"
    )
    printed = output(script, tmp_path)
    assert printed.count("pip install scipy-openblas32 patchelf") == 1
    assert "patchelf is not installed" in printed
    assert list(tmp_path.iterdir()) == []
    output(LOADED, cache)
    assert output(script, cache) == ""  # The copy is made already.


@has_wheel
def test_an_old_patchelf(tmp_path: Path) -> None:
    program = tmp_path / "patchelf"
    program.write_text("#!/bin/sh\necho syntax: patchelf >&2\nexit 1\n")
    program.chmod(0o755)
    script = (
        f"{HIDE_SYSTEM}import shutil\nshutil.which = lambda *_, **__: {str(program)!r}\n"
        "import videoprism_mlx\n"
    )
    [line] = output(script, tmp_path / "cache").splitlines()
    assert f"{program} failed: syntax: patchelf (patchelf 0.19 or newer is needed)" in line


def test_without_the_wheel_there_is_one_hint(tmp_path: Path) -> None:
    script = f"{HIDE_SYSTEM}import sys\nsys.modules['scipy_openblas32'] = None\n"
    printed = output(f"{script}import videoprism_mlx, videoprism_mlx.cli", tmp_path)
    assert printed.count("pip install scipy-openblas32 patchelf") == 1
    assert printed.count("Matrix products will be many times slower") == 1
    assert len(printed.splitlines()) == 1


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    assert output(LOADED, tmp_path, VIDEOPRISM_MLX_OPENBLAS="0") == "\n"
    assert list(tmp_path.iterdir()) == []


@has_wheel
def test_a_path_chooses_the_library(tmp_path: Path, cache: Path) -> None:
    output(LOADED, cache)
    chosen = tmp_path / "libopenblas-mine.so"
    chosen.write_bytes(copies(cache)[0].read_bytes())
    assert output(LOADED, tmp_path, VIDEOPRISM_MLX_OPENBLAS=str(chosen)) == f"{chosen}\n"
    assert output(USED, tmp_path, VIDEOPRISM_MLX_OPENBLAS=str(chosen)) == "OpenBLAS 1\n11.0\n"


def test_the_system_library_and_what_cannot_be_loaded(tmp_path: Path) -> None:
    [line] = output(
        f"{HIDE_SYSTEM}import videoprism_mlx", tmp_path, VIDEOPRISM_MLX_OPENBLAS="system"
    ).splitlines()
    assert "VIDEOPRISM_MLX_OPENBLAS is 'system', expected 0, system or the path" in line
    [line] = output(
        "import videoprism_mlx", tmp_path, VIDEOPRISM_MLX_OPENBLAS="/missing.so"
    ).splitlines()
    assert "'/missing.so'" in line and "cannot open shared object file" in line
    [line] = output(
        "import videoprism_mlx", tmp_path, VIDEOPRISM_MLX_OPENBLAS="libm.so.6"
    ).splitlines()
    assert "this library has no cblas_sgemm" in line


def test_too_late_is_said_once(tmp_path: Path) -> None:
    printed = output("import mlx.core, videoprism_mlx, videoprism_mlx.cli", tmp_path)
    assert printed.count("mlx was imported before videoprism_mlx") == 1


@has_wheel
def test_what_was_loaded_first_is_trusted(tmp_path: Path, cache: Path) -> None:
    output(LOADED, cache)
    [copy] = copies(cache)
    script = f"import ctypes, os\nctypes.CDLL({str(copy)!r}, os.RTLD_GLOBAL)\n"
    assert output(f"{script}import mlx.core, videoprism_mlx", tmp_path) == ""
    assert output(script + LOADED, tmp_path) == f"{copy}\n"
    assert list(tmp_path.iterdir()) == []


@has_wheel
def test_decompositions_are_right(cache: Path) -> None:
    script = (
        "import videoprism_mlx, mlx.core as mx, numpy as np\n"
        "mx.set_default_device(mx.cpu)\n"
        "a = np.random.default_rng(0).normal(size=(60, 60)).astype(np.float32)\n"
        "x = mx.array(a)\n"
        "u, s, vt = (np.array(part, np.float64) for part in mx.linalg.svd(x))\n"
        "assert np.allclose(s, np.linalg.svd(a.astype(float), compute_uv=False), atol=1e-4)\n"
        "assert np.allclose(u * s @ vt, a, atol=1e-4)\n"
        "q, r = (np.array(part, np.float64) for part in mx.linalg.qr(x))\n"
        "assert np.allclose(q @ r, a, atol=1e-4) and np.allclose(q.T @ q, np.eye(60), atol=1e-4)\n"
        "assert np.allclose(a @ np.array(mx.linalg.inv(x), np.float64), np.eye(60), atol=1e-3)\n"
        "print('right')\n"
    )
    assert output(script, cache) == "right\n"
