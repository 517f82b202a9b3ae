"""Every single flipped bit in small files: an error of one line, or the very same result."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import targets

import videoprism_mlx as vp
from videoprism_mlx.errors import CheckpointError
from videoprism_mlx.features.formats import read_features, read_record
from videoprism_mlx.features.processor import Processor, with_settings_of
from videoprism_mlx.files.checksum import with_checksum
from videoprism_mlx.models import DEMO_MODEL, SHIPPED
from videoprism_mlx.weights.adapters import read_adapter_config
from videoprism_mlx.weights.directory import read_checked_config
from videoprism_mlx.weights.labels import load_labels


def config(folder: Path) -> tuple[Path, Callable[[], Any]]:
    directory = targets.model_directory(folder)
    return directory / "config.json", lambda: read_checked_config(directory)[0]


def processor(folder: Path) -> tuple[Path, Callable[[], Any]]:
    Processor(8, 36, resize="crop", fps=2.5, template="a vidéo of {}").save(folder)
    return folder / "processor.json", lambda: with_settings_of(folder, Processor())


def labels(folder: Path) -> tuple[Path, Callable[[], Any]]:
    content = with_checksum({"labels": ["cat", "dog", "é"], "multi_label": False})
    (folder / "labels.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder / "labels.json", lambda: load_labels(folder, 3)


def adapters(folder: Path) -> tuple[Path, Callable[[], Any]]:
    directory = targets.model_directory(folder)
    vp.save_adapters(vp.add_adapters(vp.load_model(directory), 2), folder / "a", directory)

    def read() -> Any:
        settings, base = read_adapter_config(folder / "a")
        base.pop("weights_sha256")  # It is compared with the adapters.
        return settings, base

    return folder / "a" / "adapter_config.json", read


def features(folder: Path) -> tuple[Path, Callable[[], Any]]:
    path = targets.features(folder, "jsonl").path
    first, *_ = path.read_text().splitlines(keepends=True)
    path.write_text(first)
    return path, lambda: (read_record(path), read_features(path))


@pytest.mark.parametrize("make", [config, processor, labels, adapters, features])
def test_every_flipped_bit(make: Callable[[Path], Any], tmp_path: Path) -> None:
    path, read = make(tmp_path)
    content, right = path.read_bytes(), read()
    for number in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[number // 8] ^= 1 << number % 8
        path.write_bytes(flipped)
        try:
            found = read()
        except vp.VideoPrismError as error:
            message = str(error)
            assert len(message) < 500 and "\n" not in message and path.name in message, message
        else:
            assert alike(found, right), f"bit {number}: {bytes(flipped)!r}"


def alike(found: Any, right: Any) -> bool:
    if isinstance(right, dict):
        return found.keys() == right.keys() and all(alike(found[k], right[k]) for k in right)
    if isinstance(right, tuple):
        return len(found) == len(right) and all(map(alike, found, right))
    if isinstance(right, np.ndarray):
        return found.dtype == right.dtype and np.array_equal(found, right)
    return bool(found == right)


def test_a_line_about_one_video_whose_checksum_lost_its_name(tmp_path: Path) -> None:
    """All its digits may look like a number, and so like a feature."""
    path, read = features(tmp_path)
    line = json.loads(path.read_text())
    del line["crc32"]
    path.write_text(json.dumps(line))
    assert len(read()[1]) == 2
    path.write_text(json.dumps(line | {"crc33": "12345678"}))
    with pytest.raises(vp.VideoPrismError, match="is damaged, or not a file of features"):
        read()


@pytest.mark.parametrize("make", [config, processor, labels])
def test_a_change_of_ones_own(make: Callable[[Path], Any], tmp_path: Path) -> None:
    path, read = make(tmp_path)
    content = json.loads(path.read_text())
    change = {
        "config.json": {"atten_logit_cap": 40.0},
        "processor.json": {"size": 54},
        "labels.json": {"labels": ["cat", "dog", "kite"]},
    }[path.name]
    path.write_text(json.dumps(content | change))
    with pytest.raises(CheckpointError, match=r"if the change is yours, remove 'crc32' from it$"):
        read()
    path.write_text(json.dumps(dict(reversed(content.items())), indent=7))  # Nothing is changed.
    read()
    del content["crc32"]
    path.write_text(json.dumps(content | change))
    found = read()
    if path.name == "config.json":
        assert found["atten_logit_cap"] == 40
        assert vp.load_model(path.parent).config == found
    elif path.name == "processor.json":
        assert found == dataclasses.replace(found, size=54)
    else:
        assert found.names == ("cat", "dog", "kite")


def test_the_shipped_model_has_its_checksum() -> None:
    described = json.loads((SHIPPED[DEMO_MODEL] / "config.json").read_text())
    assert described == with_checksum(described)
    assert "crc32" in described
