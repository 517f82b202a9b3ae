"""The clip of the official demos: from the cache, or from its public address."""

import hashlib
from pathlib import Path

from videoprism_mlx.errors import InputError, NotFoundError
from videoprism_mlx.files import download, places
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.identity import sha256

NAME = "water_bottle_drumming.mp4"
# The commit that added the clip to the official repository.
URL = (
    "https://raw.githubusercontent.com/google-deepmind/videoprism/"
    f"76ac9c6ff9c7421b75d5669324abd68045c14bb4/videoprism/assets/{NAME}"
)
SHA256 = "1c74ed0905cba45c74aa4446a85300d1cea921174cf66728cad67f2636c68cd0"


def find_clip(path: str | Path | None = None) -> Path:
    """The clip at `path`, or the kept one. It is fetched if there is none, or a damaged one.

    Raises InputError if the file at `path`, or what was fetched, is not the clip.
    """
    if path is not None:
        given = places.user_path(path)
        places.require_path(given)
        if not given.is_file():
            raise NotFoundError(f"there is no file {given}; expected {NAME}, from {URL}")
        require_clip(sha256(given), str(given), f"the clip is at {URL}")
        return given
    if not is_kept():
        content = download.download_bytes(URL, kept())
        found = hashlib.sha256(content).hexdigest()
        require_clip(
            found, f"what {URL} gave ({len(content):,} bytes)", "it was not kept; try again"
        )
        with new_file(kept(), replace=True) as partial:
            partial.write_bytes(content)
    return kept()


def kept() -> Path:
    """Where the clip is kept once it has been fetched."""
    return places.cache_directory() / "clips" / NAME


def is_kept() -> bool:
    """Whether the clip has been fetched and is undamaged."""
    return kept().is_file() and sha256(kept()) == SHA256


def require_clip(found: str, what: str, advice: str) -> None:
    """Raises InputError, which begins with `what`, unless this is the checksum of the clip."""
    if found != SHA256:
        raise InputError(
            f"{what} is not {NAME}, to which the published figures belong: its SHA-256 is "
            f"{found}, expected {SHA256}; {advice}"
        )
