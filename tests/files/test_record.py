"""Identities of files, and records of how something was made."""

import hashlib
import os
from pathlib import Path

import pytest

from videoprism_mlx.errors import InputError
from videoprism_mlx.files.identity import FileIdentity, sha256
from videoprism_mlx.files.record import differences, digest, flat, made_with, own_version


def test_a_file_differs_from_others_and_from_its_later_versions(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    for each in (path, other):
        each.write_text("same")
        os.utime(each, ns=(1, 1))
    first = FileIdentity.of(path)
    assert first == FileIdentity.of(str(path)) and first != FileIdentity.of(other)
    os.utime(path, ns=(2, 2))
    touched = FileIdentity.of(path)
    path.write_text("longer")
    os.utime(path, ns=(1, 1))
    assert len({first, touched, FileIdentity.of(path)}) == 3


def test_paths_that_cannot_be() -> None:
    with pytest.raises(InputError, match="null character"):
        FileIdentity.of("a\0b")
    with pytest.raises(FileNotFoundError):
        FileIdentity.of("nowhere")


def test_sha256(tmp_path: Path) -> None:
    content = os.urandom(3 * 2**20 + 1)
    (tmp_path / "x").write_bytes(content)
    assert sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_record_starts_with_the_version() -> None:
    record = made_with(frames=16, model={"name": "base"})
    assert list(record.items()) == [
        ("version", own_version()),
        ("frames", 16),
        ("model", {"name": "base"}),
    ]
    assert flat(record) == {"version": own_version(), "frames": 16, "model.name": "base"}


def test_differences_are_said_in_words() -> None:
    there = {"version": "1", "model": {"name": "a", "dtype": "float32"}, "videos": 3, "size": 288}
    now = {"version": "2", "model": {"name": "b", "dtype": "bfloat16"}, "videos": 4, "fps": 2}
    assert differences(there, there) == []
    assert differences(there, now) == [
        "fps was None and is now 2",
        "model.dtype was float32 and is now bfloat16",
        "size was 288 and is now None",
    ]
    template = "a video of {}."
    assert differences({"template": "{}"}, {"template": template}) == [
        "template was '{}' and is now 'a video of {}.'"
    ]


def test_features_of_the_old_reader_are_not_mixed_with_new_ones() -> None:
    there, now = {"preprocessing": {"size": 288}}, {"preprocessing": {"size": 288, "reader": "x"}}
    [difference] = differences(there, now)
    assert difference.startswith("preprocessing.reader was None and is now x (earlier versions")
    assert "OpenCV" in difference


def test_digests() -> None:
    assert digest([1, "a"]) == digest([1, "a"]) != digest([1, "b"])
    assert len(digest("\udc80")) == 16


def test_a_changed_checksum_is_named_by_its_first_digits() -> None:
    before, after = "0123456789abcdef" * 4, "f" * 64
    [said] = differences({"data": {"val": before}}, {"data": {"val": after}})
    assert said == "data.val was SHA-256 0123456789ab… and is now SHA-256 ffffffffffff…"
