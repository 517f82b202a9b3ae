"""`check --speed` and `--tune` in little memory, and a row of the table."""

import mlx.core as mx
import pytest

from videoprism_mlx.check import machine, speed, table, tune
from videoprism_mlx.runtime import device, memory

GB = 10**9
CASE = speed.Case("videoprism_public_v1_base", "float32", 50 * GB, 1.0, 1.0, None)


@pytest.mark.parametrize("usable", [0, 5e8])
def test_with_too_little_memory_nothing_is_tuned(
    usable: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "working_set", lambda kind=None: usable)
    monkeypatch.setattr(machine, "matrix_rate", lambda dtype, times=5: 1e4)
    monkeypatch.setattr(tune, "ready_model", None)  # No model is made.
    monkeypatch.setattr(tune.tuning, "keep", None)  # Nothing is kept.
    results, path = tune.tune()
    assert results[0].left_out == "there is too little memory" and path is None


def test_a_tuned_block_leaves_room_for_the_largest_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Mac of 8 GB, the large video-text model fits with the default block."""
    backend, usable = device.gpu_backend(), int(16 / 3 * GB)
    monkeypatch.setattr(device, "backend", lambda: backend)
    monkeypatch.setattr(memory, "working_set", lambda kind=None: usable)
    default = device.gpu_block(usable)
    sizes = tune.sizes_that_fit("float32", default, tune.GPU_CLIPS)
    assert sizes == [default * factor for factor in (0.25, 0.5, 1, 2)]
    for size in (default, sizes[-1]):
        with device.block_size(size):
            needed = speed.needed_bytes("videoprism_lvt_public_v1_large", "float32", 1)
        assert speed.fits(needed, usable)


def test_the_peak_is_that_of_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many cores multiply many matrices to measure the rate."""

    def rate(dtype: str, times: int = 5) -> float:
        mx.eval(mx.zeros((64, 2**20)))
        return 100.0

    monkeypatch.setattr(speed, "forward", lambda model, video: None)
    monkeypatch.setattr(speed, "clips", lambda name, batch: None)
    monkeypatch.setattr(machine, "matrix_rate", rate)
    before = mx.get_active_memory()
    row = speed.at_batch(None, CASE, 1, 2)  # type: ignore[arg-type]
    assert row.peak_gb * 1e9 - before < 2**20


def test_a_row_in_words() -> None:
    row = speed.Row(
        "videoprism_lvt_public_v1_large", "bfloat16", 64, 12.3456, 0.716, 9, 12.3, 5, ""
    )
    lines = table.speed_lines([row], [CASE._replace(refused="would take about 31 s a clip")])
    assert [len(line) for line in lines] == [75, 75, 69]
    assert lines[1].split()[1:] == ["bfloat16", "64", "12.3", "72%", "12.30"]
