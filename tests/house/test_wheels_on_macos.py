"""The check of PyAV's and OpenCV's wheels for macOS, on lists of files."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_wheels", ROOT / ".ci/check_wheels.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


AV = ("av.whl", ["av/.dylibs/libavdevice.63.1.102.dylib", "av/.dylibs/libavutil.61.dylib"])
OLD = ("opencv-4.12.whl", ["cv2/.dylibs/libavformat.61.7.100.dylib"])
NEW = ("opencv-5.0.whl", ["cv2/.dylibs/libavdevice.61.3.100.dylib"])


def test_both_with_the_library_is_a_clash(check: ModuleType) -> None:
    assert check.clashes([AV, OLD]) == []
    assert check.clashes([AV, NEW]) == ["av.whl", "opencv-5.0.whl"]


def test_what_is_required_on_a_mac(check: ModuleType) -> None:
    wanted = check.requirements((ROOT / "pyproject.toml").read_text("utf-8"))
    assert [name[:6] for name in wanted] == ["av>=17", "opencv"]
    assert wanted[1].endswith(",<4.12")
