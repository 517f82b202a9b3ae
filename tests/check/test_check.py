"""`check`: passes here, and fails by name on what is not as it should be."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from videoprism_mlx.check import machine, replay
from videoprism_mlx.check.replay import Result, replay_all, worst
from videoprism_mlx.cli import main
from videoprism_mlx.models import DEMO_MODEL, SHIPPED
from videoprism_mlx.runtime import device, precision


@pytest.fixture(autouse=True)
def rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate of products is measured in one test only, since it takes long."""
    monkeypatch.setattr(machine, "matrix_rate", lambda dtype: 100.0)


REAL_RATE = machine.matrix_rate


def test_every_saved_output_agrees_on_each_device_and_in_each_type() -> None:
    results = list(replay_all())
    assert all(one.agrees for one in results)
    kinds = {(one.model, one.output) for one in results}
    assert kinds == {
        ("at_the_cap", "features"),
        ("mild", "logits"),
        ("shipped", "video embeddings"),
        ("shipped", "text embeddings"),
    }
    assert len(results) == len(kinds) * 3 * len(replay.devices())
    for one in results:  # The bounds are those of the parity suite.
        if one.dtype == "float32":
            assert one.allowed == 2 * max(one.flax, 1e-6) and one.flax < 1e-5
        else:
            assert one.allowed == (
                0.989 if (one.model, one.dtype) == ("at_the_cap", "bfloat16") else 0.999
            )


def test_the_saved_outputs_take_little_room() -> None:
    assert sum(path.stat().st_size for path in Path(str(replay.DATA)).iterdir()) < 1e6


def altered_model(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    """A copy of the model that ships, with weights that `change` has altered."""
    altered = shutil.copytree(SHIPPED[DEMO_MODEL], folder / "altered")
    weights = mx.load(str(altered / "model.safetensors"))
    assert isinstance(weights, dict)
    arrays = {name: np.array(array) for name, array in weights.items()}
    change(arrays)
    changed = {name: mx.array(array) for name, array in arrays.items()}
    mx.save_safetensors(str(altered / "model.safetensors"), changed)
    return altered


@pytest.mark.parametrize("number", [0, 7, 41])
def test_a_model_with_one_altered_weight(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value of one parameter, drawn at random, is off by a hundredth."""
    random = np.random.RandomState(number)

    def change(arrays: dict[str, np.ndarray]) -> None:
        values = arrays[sorted(arrays)[random.randint(len(arrays))]]
        values.flat[random.randint(values.size)] += 0.01

    altered = altered_model(tmp_path, change)
    monkeypatch.setattr(replay, "DEMO_MODEL", altered)
    assert main(["check"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED shipped, float32 on the cpu: " in printed
    assert "FAILED at_the_cap" not in printed and "FAILED mild" not in printed


@pytest.mark.parametrize("part", ["self_attention.key.bias", "pooling_attention.key.bias"])
def test_an_altered_weight_that_hardly_changes_outputs(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        next(values for name, values in arrays.items() if name.endswith(part)).flat[3] += 0.001

    altered = altered_model(tmp_path, change)
    monkeypatch.setitem(SHIPPED, DEMO_MODEL, altered)
    assert main(["check"]) == 1
    assert f"FAILED weights: {altered / 'model.safetensors'} was altered" in capsys.readouterr().out


def test_reduced_precision_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "in_force", lambda: "tf32")
    assert main(["check"]) == 1
    assert "FAILED precision: float32 products have reduced precision (tf32); set MLX_ENABLE" in (
        capsys.readouterr().out
    )


def test_a_missing_decoder_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(machine.DECODERS, "AV1", "no-such-decoder")
    assert main(["check"]) == 1
    assert "FAILED decoder: there is none for AV1" in capsys.readouterr().out


def test_a_missing_option_is_no_fault(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(machine.OPTIONAL, "no_such_module", ("a command", "extra"))
    assert main(["check"]) == 0
    assert "no_such_module, needed by a command: pip install 'extra'" in capsys.readouterr().out


def test_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "matrix_rate", REAL_RATE)
    assert main(["check", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True and found["faults"] == []
    assert found["machine"]["precision"] == "float32"
    assert 0 < found["machine"]["gflops"]["float32"] != 100
    assert set(found["machine"]["decoders"].values()) == {True}
    assert all(one["agrees"] for one in found["results"]) and len(found["results"]) >= 12


def test_the_table_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    table = capsys.readouterr().out.split("\n\n")[1]
    assert len(table.splitlines()) == 1 + 9 * len(replay.devices())
    assert max(map(len, table.splitlines())) <= 80


def results() -> Iterator[Result]:
    for output, measured in (("one", 1e-7), ("other", 5e-7), ("third", 3e-7)):
        yield Result("cpu", "float32", "model", output, measured, 1e-7, 2e-6)
    for output, measured in (("one", 0.9999), ("other", float("nan"))):
        yield Result("cpu", "bfloat16", "model", output, measured, 0.9999, 0.999)


def test_the_worst_output_is_shown_and_nan_is_the_worst() -> None:
    shown = worst(list(results()))
    assert [one.output for one in shown] == ["other", "other"]
    assert [one.agrees for one in shown] == [True, False]
    assert not Result("cpu", "float32", "model", "one", 3e-6, 1e-7, 2e-6).agrees


@pytest.mark.parametrize(("gflops", "side"), [(7.0, 1024), (230.0, 2048), (14_000.0, 2048)])
def test_a_slow_device_multiplies_smaller_matrices(
    gflops: float, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the rate is known in seconds with the reference BLAS, too."""
    sides = []

    def products(factor: mx.array, streams: Sequence[mx.Stream | None]) -> float:
        sides.append(len(factor))
        return len(streams) * 2 * len(factor) ** 3 / gflops / 1e9

    monkeypatch.setattr(machine, "products", products)
    monkeypatch.setattr(machine.device, "backend", lambda: device.gpu_backend())
    assert REAL_RATE("float32") == pytest.approx(gflops)
    assert sides[-1] == side


def test_a_figure_that_is_nan_is_null_in_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "replay_all", lambda: iter(list(results())[-1:]))
    assert main(["check", "--json"]) == 1

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found["results"][0]["measured"] is None and found["results"][0]["agrees"] is False


def test_which_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert machine.blas_name() == "Accelerate"
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(machine.blas, "loaded", lambda: None)
    assert machine.blas_name() == "the reference BLAS of MLX's wheel, which is slow"
    monkeypatch.setattr(machine.blas, "loaded", object)
    assert machine.blas_name() == "a library that was loaded before MLX"

    class Library:
        @staticmethod
        def openblas_get_config() -> bytes:
            return b"OpenBLAS 0.3.34 DYNAMIC_ARCH NO_AFFINITY Haswell MAX_THREADS=64"

    monkeypatch.setattr(machine.blas, "loaded", Library)
    assert machine.blas_name() == "OpenBLAS 0.3.34"


def test_a_mac_on_which_no_program_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(command: Sequence[str], **_: object) -> None:
        assert command[0].startswith("/usr/sbin/")
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(machine.subprocess, "run", missing)
    assert machine.mac() == {"chip": "", "memory_gb": 0.0}


def test_options_that_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--model", "videoprism_public_v1_base", "--speed"]) == 2
    assert "--speed and --tune have no effect with --model" in capsys.readouterr().err
