"""The wheel holds the whole package, and works in an environment without this checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What a wheel is built from. The copy has no build/ folder with files of earlier builds.
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE")
FOLDERS = ("videoprism_mlx", "convert")


def run(*command: object, cwd: Path) -> str:
    """What a command prints, in an environment that knows nothing of the checkout."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(source: Path, output: Path) -> Path:
    """Builds the wheel of a folder or an sdist, as `pip install` does."""
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    run(sys.executable, "-m", "pip", "wheel", *options, "-w", output, source, cwd=output.parent)
    [wheel] = output.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(checkout, tmp_path_factory.mktemp("built") / "wheel")


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel. RECORD, a list of all others, is left out."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/RECORD")]
        return {name: archive.read(name) for name in names}


def test_the_wheel_holds_every_module_and_data_file(checkout: Path, wheel: Path) -> None:
    expected = {
        path.relative_to(checkout).as_posix().replace("convert/", "videoprism_mlx/convert/", 1)
        if path.is_relative_to(checkout / "convert")
        else path.relative_to(checkout).as_posix()
        for name in FOLDERS
        for path in (checkout / name).rglob("*")
        if path.is_file()
    }
    found = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert found == expected
    assert "videoprism_mlx/py.typed" in found
    assert "videoprism_mlx/convert/flax.py" in found
    assert "videoprism_mlx/demo/model/model.safetensors" in found


def test_nothing_else_is_at_the_top(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in contents(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"videoprism_mlx"}


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    script = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", script, tmp_path, cwd=checkout)
    [sdist] = tmp_path.glob("*.tar.gz")
    assert contents(build_wheel(sdist, tmp_path / "wheel")) == contents(wheel)


@pytest.mark.slow
def test_the_installed_wheel_works(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # The dependencies are those of this environment. A .pth file only adds the folders: what makes
    # an editable install of this package known in them, another .pth file, is not read.
    [packages] = environment.glob("lib/python*/site-packages")
    folders = [folder for folder in sys.path if Path(folder).name == "site-packages"]
    (packages / "dependencies.pth").write_text("\n".join(folders))

    where = "import videoprism_mlx, videoprism_mlx.convert as c; print(c.__file__)"
    assert Path(run(python, "-c", where, cwd=tmp_path).strip()).is_relative_to(packages)
    command = environment / "bin" / "videoprism-mlx"
    assert "embed" in run(command, "--help", cwd=tmp_path)
    assert "--verify" in run(python, "-m", "videoprism_mlx.convert", "--help", cwd=tmp_path)
    printed = run(command, "demo", "--clips", 13, "--query", "a red star", cwd=tmp_path)
    assert "a red star" in printed
    assert (tmp_path / "videoprism-demo" / "index.html").is_file()
