"""A block size that was tuned is used on this machine, and harms nothing where it cannot be."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import videoprism_mlx as vp
from videoprism_mlx.runtime import device as runtime_device
from videoprism_mlx.runtime import tuning

DEFAULT = runtime_device.CPU_BLOCK

# What a fresh process uses, and what the user sets there after that.
SHOW = """
import videoprism_mlx as vp
import mlx.core as mx
from videoprism_mlx.runtime import device
print(device.block_megabytes(mx.float32), device.block_megabytes(mx.bfloat16))
vp.set_block_size(3)
print(device.block_megabytes(mx.float32))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty cache folder."""
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path))
    tuning.kept.cache_clear()
    yield tmp_path
    tuning.kept.cache_clear()


def block(dtype: mx.Dtype = mx.float32) -> float:
    return runtime_device.block_megabytes(dtype)


def test_kept_and_used_in_this_process_and_a_fresh_one(cache: Path) -> None:
    assert block() == DEFAULT
    assert tuning.keep(mx.cpu, {"float32": 25.5, "bfloat16": None}) == cache / "tuning.json"
    assert block() == 25.5 and block(mx.bfloat16) == block(mx.float16) == DEFAULT
    assert not runtime_device.fits(7_000_000, mx.float32)
    assert runtime_device.fits(6_000_000, mx.float32)
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=os.environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["25.5", str(DEFAULT), "3.0" if "3.0" in done.stdout else "3"]
    assert [path.name for path in cache.iterdir() if path.is_file()] == ["tuning.json"]


def test_the_users_choice_wins() -> None:
    tuning.keep(mx.cpu, {"float32": 25.5})
    try:
        vp.set_block_size(2)
        assert block() == 2
        with runtime_device.block_size(7):
            assert block() == 7
        assert block() == 2
    finally:
        vp.set_block_size(None)
    assert block() == 25.5


def test_plain_stays_plain() -> None:
    tuning.keep(mx.cpu, {"float32": 1e-6})
    with runtime_device.plain():
        assert runtime_device.fits(10**12, mx.float32)


def test_types_are_kept_beside_each_other_and_renewed() -> None:
    tuning.keep(mx.cpu, {"float32": 25.5, "bfloat16": 3.0})
    tuning.keep(mx.cpu, {"float32": None})
    assert block() == DEFAULT and block(mx.bfloat16) == 3


@pytest.mark.parametrize(
    "change", [{"device_name": "another chip"}, {"mlx": "0.1"}, {"cores": 77}, {"memory": 7}]
)
def test_another_machine(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as other:
        if "device_name" in change:
            other.setattr(tuning.memory, "device_info", lambda kind: change)
        if "mlx" in change:
            other.setattr(mx, "__version__", "0.1")
        if "cores" in change:
            other.setattr(tuning, "available_cores", lambda: 77)
        if "memory" in change:
            other.setattr(tuning.memory, "total_memory", lambda kind: 7 * 10**9)
        tuning.keep(mx.cpu, {"float32": 25.5})
        assert block() == 25.5
    tuning.kept.cache_clear()
    assert block() == DEFAULT
    tuning.keep(mx.cpu, {"float32": 4.0})
    assert len(json.loads(tuning.path().read_text())["machines"]) == 2
    assert tuning.kept(mx.gpu) == {}


def stored(entry: Any) -> str:
    return json.dumps({"format": 1, "machines": {tuning.machine(mx.cpu): entry}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "\udcff",
        '{"format": 2, "machines": {}}',
        '{"format": 1}',
        '{"format": 1, "machines": [1]}',
        *("entry:" + json.dumps(entry) for entry in (7, [1], "x")),
        *(f'entry:{{"float32": {value}}}' for value in ('"6"', "true", "0", "-1", "NaN", "[]")),
    ],
)
def test_a_file_that_cannot_be_used(text: str, caplog: pytest.LogCaptureFixture) -> None:
    if text.startswith("entry:"):
        text = stored(json.loads(text.removeprefix("entry:")))
    tuning.path().write_bytes(text.encode(errors="surrogateescape"))
    with caplog.at_level(logging.WARNING, "videoprism_mlx"):
        assert block() == block() == DEFAULT
    assert [record.message for record in caplog.records if "are not used" in record.message] != []
    assert len(caplog.records) == 1
    tuning.keep(mx.cpu, {"float32": 25.5})  # It is written anew.
    assert block() == 25.5


def test_a_folder_in_the_place_of_the_file(caplog: pytest.LogCaptureFixture) -> None:
    tuning.path().mkdir()
    assert block() == DEFAULT and "are not used" in caplog.text


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(tuning, "cache_directory", fail)
    assert block() == DEFAULT


def test_a_file_appears_complete_or_not_at_all(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning.keep(mx.cpu, {"float32": 25.5})
    before = tuning.path().read_text()

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning.json, "dumps", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tuning.keep(mx.cpu, {"float32": 4.0})
    assert tuning.path().read_text() == before and len(list(cache.iterdir())) == 1


def test_the_import_does_not_read_it() -> None:
    script = "import sys, videoprism_mlx; print('videoprism_mlx.runtime.tuning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["False"]
