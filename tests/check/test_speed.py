"""`check --speed` and `--tune`: what fits, figures of a fake clock, and what is kept."""

import itertools
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from conftest import reference_config

from videoprism_mlx import models
from videoprism_mlx.check import flops, machine, replay, speed, table, tune
from videoprism_mlx.cli import main
from videoprism_mlx.runtime import device, memory, tuning

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import cost, work

GB = 10**9
RATE = 100.0


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    """A fake clock, a fixed rate of products, 20 GB of memory, and an empty cache folder."""
    fake = Clock()
    monkeypatch.setattr(speed.time, "perf_counter", fake)
    monkeypatch.setattr(machine, "matrix_rate", lambda dtype, times=5: RATE)
    monkeypatch.setattr(memory, "working_set", lambda kind=None: 20 * GB)
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path))
    tuning.kept.cache_clear()
    yield fake
    tuning.kept.cache_clear()


@pytest.fixture
def passes(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[int], float]], list[int]]:
    """Makes a pass of so many clips take as long as a function says. Returns the batches."""

    def use(seconds: Callable[[int], float]) -> list[int]:
        seen: list[int] = []

        def forward(model: Any, video: mx.array) -> None:
            seen.append(len(video))
            clock.now += seconds(len(video))

        monkeypatch.setattr(speed, "forward", forward)
        monkeypatch.setattr(speed, "ready_model", lambda name, dtype: None)
        monkeypatch.setattr(speed, "clips", lambda name, batch: mx.zeros((batch, 1)))
        return seen

    return use


# Work and memory that are foreseen.


@pytest.mark.parametrize("name", models.RELEASES)
def test_flops_are_those_that_are_counted_in_the_graph(name: str) -> None:
    model, inputs = models.get_model(name), work.inputs_of(name)
    counted = cost.model_cost(model, {"inputs": inputs["inputs"]})
    assert flops.clip_flops(models.get_config(name)) == counted.flops


@pytest.mark.parametrize("name", ["encoder_mild", "clip_mild"])
def test_flops_of_small_models(name: str) -> None:
    config = reference_config(name)
    frames, rows, columns = config["pos_emb_shape"]
    side = config["patch_size"]
    video = mx.zeros((1, frames, rows * side, columns * side, 3))
    counted = cost.model_cost(models.get_model(config), {"inputs": video})
    assert flops.clip_flops(config) == counted.flops


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU is given, computed on the CPU."""
    backend = device.gpu_backend()
    monkeypatch.setattr(device, "backend", lambda: backend)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model like the base one, with fewer layers, a smaller width and frames."""
    small = dict(model_dim=96, num_heads=12, mlp_dim=384, pos_emb_shape=(8, 16, 16), patch_size=6)
    layers = dict(num_spatial_layers=2, num_temporal_layers=1)
    config = models.get_config("videoprism_public_v1_base") | small | layers
    monkeypatch.setitem(models.CONFIGS, "narrow", config)
    return "narrow"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_memory_that_is_foreseen(
    kind: str, batch: int, narrow: str, request: pytest.FixtureRequest
) -> None:
    """It is an upper estimate, and not a wild one."""
    if kind == "gpu":
        request.getfixturevalue("gpu")
    model, video = speed.ready_model(narrow, "float32"), speed.clips(narrow, batch)
    with device.block_size(1.0):
        speed.forward(model, video)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        speed.forward(model, video)
        weights = sum(array.nbytes for array in speed.video_weights(model).values())
        needed = speed.needed_bytes(narrow, "float32", batch) - weights
        taken = mx.get_peak_memory() - before
    assert 0.2 * needed < taken < needed


def test_what_fits_and_what_does_not(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "matrix_rate", lambda dtype: {"float32": 90.0}.get(dtype, 10.0))
    monkeypatch.setattr(memory, "working_set", lambda kind=None: 2 * GB)
    found = {(case.model, case.dtype): case for case in speed.cases()}
    assert len(found) == 8
    base = found["videoprism_public_v1_base", "float32"]
    assert base.refused is None and base.seconds == pytest.approx(973.288 / 90 / 0.6, rel=1e-4)
    large = found["videoprism_public_v1_large", "float32"]
    assert large.refused == "would need 1.7 of 2.0 GB of memory"
    half = found["videoprism_public_v1_base", "bfloat16"]
    assert half.refused == "would take about 162 s a clip"
    monkeypatch.setattr(memory, "working_set", lambda kind=None: None)
    assert not any("GB" in (case.refused or "") for case in speed.cases())


# Measuring.


def case(name: str = "videoprism_public_v1_base", seconds: float = 1.0) -> speed.Case:
    return speed.Case(name, "float32", 50 * GB, seconds, 1.0, None)


def test_figures_of_a_fake_clock(passes: Callable[..., list[int]]) -> None:
    seen = passes(lambda batch: 1 + batch)  # A clip takes 2, 1.5, 1.25, 1.125, 1.06, 1.03 s.
    first, best = speed.measured(case(), 10_000, 20 * GB)
    assert (first.batch, first.seconds, first.of_rate, first.rate_gflops) == (1, 2, 0.25, RATE)
    assert best.batch == 32 and best.seconds == 33 / 32
    assert best.of_rate == pytest.approx(0.5 * 32 / 33)
    assert first.larger == best.larger == "no faster"
    assert [batch for batch, _ in itertools.groupby(seen)] == [1, 2, 4, 8, 16, 32, 64]
    assert seen.count(1) == 1 + speed.ROUNDS and seen.count(64) == speed.ROUNDS


def test_a_larger_batch_that_is_hardly_faster_is_not_better(
    passes: Callable[..., list[int]],
) -> None:
    seen = passes(lambda batch: 2 * batch * 0.98 ** (batch - 1))
    assert [row.batch for row in speed.measured(case(), 1000, 20 * GB)] == [1]
    assert max(seen) == 2


def test_the_rate_drifts_with_the_model(
    clock: Clock, passes: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is half as fast for a while has the same share."""
    slow = itertools.cycle([1.0, 2.0, 1.0])
    factor = [1.0]

    def rate(dtype: str, times: int = 5) -> float:
        factor[0] = next(slow)
        return RATE / factor[0]

    passes(lambda batch: batch * factor[0])
    monkeypatch.setattr(machine, "matrix_rate", rate)
    (row,) = speed.measured(case(), 1000, 20 * GB)
    assert row.of_rate == 0.5 and row.rounds == 5


@pytest.mark.parametrize(
    ("usable", "seconds", "why", "batches"),
    [(1 * GB, 1000, "memory", [1]), (None, 12, "time", [1]), (None, 10_000, "most", [1, 64])],
)
def test_why_no_larger_batch(
    usable: int | None,
    seconds: float,
    why: str,
    batches: list[int],
    passes: Callable[..., list[int]],
) -> None:
    passes(lambda batch: 1 + 2 * math.sqrt(batch) if seconds > 12 else 5 * batch)
    rows = speed.measured(case(), seconds, usable)
    assert [row.batch for row in rows] == batches and {row.larger for row in rows} == {why}


def test_it_ends_in_time(clock: Clock, passes: Callable[..., list[int]]) -> None:
    passes(lambda batch: 25.0 * batch)
    cases = [case(f"videoprism_{kind}_v1_base", 20.0) for kind in ("", "lvt", "vc", "public")] * 2
    cases = [each._replace(model="videoprism_public_v1_base") for each in cases]
    rows, left_out = speed.measure(cases)
    assert clock.now <= speed.BUDGET + 2 * 25 and len(rows) + len(left_out) == 8 and left_out
    assert left_out[0].refused == "no time is left; would take about 20 s a clip"
    assert speed.foreseen(cases) == speed.BUDGET


@pytest.mark.parametrize("name", ["encoder_mild", "clip_mild"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_real_small_model(
    name: str, dtype: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(machine, "matrix_rate", lambda dtype, times=5: RATE)
    monkeypatch.setitem(models.CONFIGS, "tiny", reference_config(name))
    rows = speed.measured(case("tiny")._replace(dtype=dtype), 0.5, GB)
    for row in rows:
        assert row.seconds > 0 and row.of_rate > 0 and 0 < row.peak_gb < 1
    model = speed.ready_model("tiny", dtype)
    output = model(speed.clips("tiny", 2))[0].astype(mx.float32)
    assert mx.all(mx.isfinite(output)).item() and mx.std(output).item() > 0


# The command.


@pytest.fixture
def quick(passes: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, without the replay, and with passes on the fake clock."""
    passes(lambda batch: 2.0 + 10 * batch)
    monkeypatch.setattr(replay, "replay_all", lambda: iter(()))
    monkeypatch.setattr(machine, "matrix_rate", lambda dtype, times=5: 150.0 / len(dtype))


def test_the_table(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--speed"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80 or "openblas" in printed
    speeds = printed[printed.index("Speed of the released models") :].splitlines()
    assert max(map(len, speeds)) <= 80
    assert "Clips only, without texts" in speeds[1]
    assert any("would take about" in line for line in speeds)


def test_json_has_the_figures_and_the_machine(
    clock: Clock, quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "matrix_rate", lambda dtype, times=5: 1e5)
    assert main(["check", "--speed", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["chip"] and found["machine"]["blocks"]["tuned"] is False
    rows = found["speed"]["rows"]
    assert rows[0]["model"] == "videoprism_public_v1_base" and rows[0]["seconds"] == 12
    assert rows[0]["of_rate"] == pytest.approx(973.288243 / 12 / 1e5)
    assert found["speed"]["working_set_gb"] == 20
    assert len({(row["model"], row["dtype"]) for row in rows}) + len(
        found["speed"]["left_out"]
    ) == len(speed.TYPES) * len(models.RELEASES)


def test_a_row_in_words() -> None:
    row = speed.Row(
        "videoprism_lvt_public_v1_large", "bfloat16", 64, 12.3456, 0.716, 9, 12.3, 5, ""
    )
    lines = table.speed_lines([row], [case()._replace(refused="would take about 31 s a clip")])
    assert [len(line) for line in lines] == [75, 75, 69]
    assert lines[1].split()[1:] == ["bfloat16", "64", "12.3", "72%", "12.30"]


# Tuning.


@pytest.fixture
def blocks(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Mapping[float, float]], list[float]]:
    """Makes a pass take as long as given for its share of the default block. Returns the sizes."""

    def use(seconds: Mapping[float, float]) -> list[float]:
        seen: list[float] = []

        def forward(model: Any, video: mx.array) -> None:
            megabytes = device.block_megabytes(mx.float32)
            seen.append(megabytes)
            clock.now += seconds[megabytes / device.CPU_BLOCK]

        monkeypatch.setattr(tune, "forward", forward)
        monkeypatch.setattr(tune, "ready_model", lambda config, dtype: None)
        monkeypatch.setattr(tune, "clips", lambda config, batch: None)
        monkeypatch.setattr(
            machine, "matrix_rate", lambda dtype, times=5: {"float32": 1e3}.get(dtype, 10.0)
        )
        return seen

    return use


def test_the_fastest_block_is_kept(blocks: Callable[..., list[float]]) -> None:
    seen = blocks({0.25: 1.3, 0.5: 1.2, 1: 1.0, 2: 0.8, 4: 0.9})
    results, path = tune.tune()
    assert path is not None and results[0].megabytes == 12.8
    assert results[0].tried == pytest.approx({1.6: 1.3, 3.2: 1.2, 6.4: 1, 12.8: 0.8, 25.6: 0.9})
    assert results[0].confirmed == pytest.approx(0.8)
    assert results[1].left_out is not None and "a pass would take about" in results[1].left_out
    assert path == tuning.path() and device.block_megabytes(mx.float32) == 12.8
    assert device.block_megabytes(mx.bfloat16) == device.CPU_BLOCK
    assert machine.block_sizes() == {
        "float32": "12.8 MB",
        "bfloat16": "6.4 MB",
        "tuned": str(path),
    }
    first = [seen[turn * 5] for turn in range(6)]  # Every round begins with another size.
    assert len(set(first)) == 5
    tune.tune()  # The default is that without tuning.
    assert device.block_megabytes(mx.float32) == 12.8


@pytest.mark.parametrize("best", [0.98, 1.0, 1.1])
def test_the_default_stays_unless_another_is_clearly_faster(
    best: float, blocks: Callable[..., list[float]]
) -> None:
    blocks({0.25: 1.3, 0.5: 1.2, 1: 1.0, 2: best, 4: 1.2})
    results, path = tune.tune()
    assert path is not None and results[0].megabytes is None
    (entry,) = json.loads(path.read_text())["machines"].values()
    assert entry == {"float32": None}
    assert device.block_megabytes(mx.float32) == device.CPU_BLOCK
    assert "stays" in "".join(table.tuning_lines(results, path))


def test_a_lucky_block_has_to_win_again(
    blocks: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {0.25: 1.3, 0.5: 1.2, 1.0: 1.0, 2.0: 0.8, 4.0: 1.2}
    blocks(times)
    monkeypatch.setattr(tune, "shares", lucky := LuckyOnce(tune.shares, times))
    results, _ = tune.tune()
    assert lucky.calls == 2 and results[0].confirmed == 1 and results[0].megabytes is None


class LuckyOnce:
    """Measures, and makes all sizes equally fast after the first time."""

    def __init__(self, real: Callable[..., Any], times: dict[float, float]) -> None:
        self.real, self.times, self.calls = real, times, 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        found = self.real(*arguments)
        self.times.update(dict.fromkeys(self.times, 1.0))
        return found


def test_a_machine_that_is_too_slow_to_tune_keeps_nothing(
    blocks: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = blocks({})
    monkeypatch.setattr(machine, "matrix_rate", lambda dtype, times=5: 10.0)
    results, path = tune.tune()
    assert path is None and not seen and not tuning.path().exists()
    assert table.tuning_lines(results, path)[1].startswith("float32   not tuned: a pass would")


def test_sizes_that_do_not_fit_are_not_tried(
    blocks: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = len(device.backend().streams)
    rest = speed.needed_bytes(tune.MODEL, "float32", 1)  # With a block of 6.4 MB for each stream.
    usable = (rest + 1.5 * 14 * 6.4e6 * streams) / speed.MEMORY_SHARE
    monkeypatch.setattr(memory, "working_set", lambda kind=None: usable)
    seen = blocks({0.25: 1.3, 0.5: 1.2, 1: 1.0, 2: 0.9})
    tune.tune()
    assert max(seen) == 12.8


def test_tune_prints_what_it_keeps_and_implies_speed(
    quick: None, blocks: Callable[..., list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    blocks({0.25: 1.3, 0.5: 1.2, 1: 1.0, 2: 0.8, 4: 0.9})
    assert main(["check", "--tune"]) == 0
    printed = capsys.readouterr().out
    assert "12.8 MB is kept (again: 0.80)" in printed and "Delete this file" in printed
    assert "Speed of the released models" in printed


def test_a_real_tuning(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path))
    config = reference_config("encoder_mild")
    monkeypatch.setattr(tune, "get_config", lambda name: models.get_config(config))
    monkeypatch.setattr(tune, "LAYERS", {"num_spatial_layers": 1})
    results, path = tune.tune()
    assert [one.left_out for one in results] == [None, None] and path == tuning.path()
    assert all(len(one.tried) == 5 and one.tried[one.default] == 1 for one in results)
