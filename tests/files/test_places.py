"""Where the cache is."""

import sys
from pathlib import Path

import pytest

import videoprism_mlx as vp
from videoprism_mlx.errors import InputError
from videoprism_mlx.files import places
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.lock import locked


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and no variable that names a place."""
    for name in ("VIDEOPRISM_MLX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_cache_is_where_it_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path))
    assert places.cache_directory() == tmp_path
    monkeypatch.delenv("VIDEOPRISM_MLX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert places.cache_directory() == tmp_path / "xdg" / "videoprism_mlx"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform == "linux":
        assert places.cache_directory() == tmp_path / ".cache" / "videoprism_mlx"


def on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes platformdirs give the places of a Mac."""
    import platformdirs
    from platformdirs.macos import MacOS

    monkeypatch.setattr(
        platformdirs,
        "user_cache_path",
        lambda name, appauthor=None: MacOS(name, appauthor).user_cache_path,
    )


def test_a_new_cache_on_a_mac_is_where_the_system_keeps_caches(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_mac(monkeypatch)
    assert places.cache_directory() == home / "Library" / "Caches" / "videoprism_mlx"


@pytest.mark.parametrize("xdg", [None, "elsewhere"])
def test_a_cache_of_an_earlier_version_goes_on_being_used(
    xdg: str | None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_mac(monkeypatch)
    if xdg:
        monkeypatch.setenv("XDG_CACHE_HOME", str(home / xdg))
    earlier = home / (xdg or ".cache") / "videoprism_mlx"
    earlier.mkdir(parents=True)
    assert places.cache_directory() == earlier


def test_a_tilde(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", "~/kept")
    assert places.cache_directory() == home / "kept"
    with pytest.raises(InputError, match="'~no_such_user/x' cannot be used as a path"):
        places.user_path("~no_such_user/x")


def test_no_path_contains_a_null_character(tmp_path: Path) -> None:
    for use in (
        lambda path: new_file(path).__enter__(),
        lambda path: locked(path, path).__enter__(),
        lambda path: vp.read_captions(path),
    ):
        with pytest.raises(InputError, match="null character"):
            use(tmp_path / "a\0b.csv")
