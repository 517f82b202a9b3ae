"""float32 matrix products have full precision, unless the user has chosen otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from videoprism_mlx.runtime import precision
from videoprism_mlx.weights.identity import ModelIdentity

PRINT = "import os; print(os.environ.get('MLX_ENABLE_TF32'))"


def said(*command: str | Path, chosen: str | None = None) -> str:
    """What a fresh process prints, in which the user has chosen that value or none."""
    environment = {key: value for key, value in os.environ.items() if key != precision.VARIABLE}
    if chosen is not None:
        environment[precision.VARIABLE] = chosen
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(("chosen", "expected"), [(None, "0"), ("0", "0"), ("1", "1")])
def test_the_variable_is_set_before_mlx_reads_it(chosen: str | None, expected: str) -> None:
    script = f"import videoprism_mlx, sys; assert 'mlx.core' not in sys.modules; {PRINT}"
    assert said("-c", script, chosen=chosen) == f"{expected}\n"


def test_workers_have_it_too(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import concurrent.futures, multiprocessing, os, videoprism_mlx\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:\n"
        "        print(pool.submit(os.getenv, 'MLX_ENABLE_TF32').result())\n"
    )
    assert said(script) == "0\n"


def test_the_command_line_has_it() -> None:
    script = f"from videoprism_mlx.cli import main; main(['info', 'no-such-model']); {PRINT}"
    assert "0" in said("-c", script).splitlines()


def test_the_benchmarks_have_it() -> None:
    root = Path(__file__).parents[2]
    script = f"import sys; sys.path.insert(0, {str(root)!r}); import benchmarks.work; {PRINT}"
    assert said("-c", script) == "0\n"


def test_the_tests_have_it() -> None:
    assert os.environ[precision.VARIABLE] == "0"
    assert precision.in_force() == "float32"


def test_reduced_precision_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 has 10 bits after the point: the factors are rounded to them."""

    def rounded(array: mx.array) -> mx.array:
        return mx.round(array * 2**10) / 2**10

    monkeypatch.setattr(precision, "product", lambda one, other: rounded(one) @ rounded(other))
    assert precision.measured.__wrapped__("a GPU") == "tf32"
    assert precision.measured.__wrapped__("a CPU") == "tf32"
    monkeypatch.undo()
    assert precision.measured.__wrapped__("a CPU") == "float32"


@pytest.mark.parametrize("reduced", [False, True])
def test_too_late_is_said_once(
    reduced: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(precision.VARIABLE)
    monkeypatch.setattr(precision, "in_force", lambda: "tf32" if reduced else "float32")
    precision.prefer_full()
    precision.prefer_full()
    assert os.environ[precision.VARIABLE] == "0"
    assert caplog.text.count("before videoprism_mlx was imported") == reduced


def test_who_chose_it_is_not_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(precision.VARIABLE, "1")
    monkeypatch.setattr(precision, "in_force", lambda: "tf32")
    precision.prefer_full()
    assert os.environ[precision.VARIABLE] == "1" and not caplog.text


def test_records_say_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = ModelIdentity(None)  # type: ignore[arg-type]
    assert identity.record("precision") == {"precision": "float32"}
    monkeypatch.setattr(precision, "in_force", lambda: "tf32")
    assert identity.record("precision") == {"precision": "tf32"}
