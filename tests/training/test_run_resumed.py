"""Runs that are stopped or killed, and continued; runs that cannot be continued."""

import dataclasses
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from lines import (
    FILES,
    RECIPE,
    RECORD,
    Lines,
    Stop,
    contents,
    fit,
    flat,
    gradients,
    stopping,
)
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from videoprism_mlx.errors import TrainingError
from videoprism_mlx.files.lock import locked
from videoprism_mlx.training.run import Run


# Three steps make an epoch.
@pytest.mark.parametrize("save_every", [None, 1, 2])
@pytest.mark.parametrize("stops", [[1], [3], [4], [5, 3], [12], [2, 2, 2]])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    stops: list[int], save_every: int | None, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, warmup=4, decay="cosine", weight_decay=0.1, clip=1.0)
    expected, history = fit(tmp_path / "whole", recipe)
    for at in stops:
        with pytest.raises(Stop):
            fit(tmp_path / "run", recipe, save_every=save_every, gradients=stopping(at))
    found, again = fit(tmp_path / "run", recipe, save_every=save_every)
    assert flat(found) == flat(expected) and again == history
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_steps_that_were_kept_are_not_taken_again(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        fit(tmp_path / "run", save_every=2, gradients=stopping(6))
    left: list[int] = []

    def counted(*arguments: Any) -> Any:
        left.append(1)
        return gradients(*arguments)

    fit(tmp_path / "run", save_every=2, gradients=counted)
    assert len(left) == 12 - 5


@pytest.mark.parametrize(
    ("method", "name", "at"),
    [
        ("keep", "", 3),  # In the midst of the second epoch.
        ("_write", "last.safetensors", 4),  # Between the best parameters and the state.
        ("_write", "best.safetensors", 2),  # Between epochs.
    ],
)
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    method: str, name: str, at: int, tmp_path: Path
) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import videoprism_mlx  # Before MLX, as everywhere.
from lines import fit
from videoprism_mlx.training.state import RunFiles
calls, original = 0, RunFiles.{method}
def killed(run, *arguments):
    global calls
    calls += arguments[0] == {name!r} or not {name!r}
    if calls == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    original(run, *arguments)
RunFiles.{method} = killed
fit(Path({str(tmp_path / "run")!r}), save_every=2)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    fit(tmp_path / "run", save_every=2)
    fit(tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_run_that_was_killed_while_it_wrote(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import videoprism_mlx  # Before MLX, as everywhere.
from lines import fit
from videoprism_mlx.training import state
original = state.write_arrays
def halved(path, arrays, metadata):
    original(path, arrays, metadata)
    os.truncate(path, 100)
    if "last" in str(path):
        os.kill(os.getpid(), signal.SIGKILL)
state.write_arrays = halved
fit(Path({str(tmp_path / "run")!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any("partial" in path.name for path in (tmp_path / "run").iterdir())
    fit(tmp_path / "run")
    fit(tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert not any("partial" in path.name for path in (tmp_path / "run").iterdir())


def test_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        fit(tmp_path / "run", gradients=stopping(5))
    before = contents(tmp_path / "run")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="make room or write elsewhere"):
            fit(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(tmp_path / "run") == before
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*FILES, ".lock"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(recipe=dataclasses.replace(RECIPE, seed=4)), "recipe.seed was 3 and is now 4"),
        (dict(recipe=dataclasses.replace(RECIPE, clip=1)), "recipe.clip was None and is now 1"),
        (dict(record={**RECORD, "task": "curves"}), "task was lines and is now curves"),
        (dict(record={"task": "lines"}), r"nested.sizes was \[1, 2\] and is now None"),
    ],
)
def test_another_configuration_does_not_go_on(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    fit(tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(TrainingError, match=message):
        fit(tmp_path / "run", **changes)
    assert contents(tmp_path / "run") == before


def test_what_is_known_early_is_compared_early(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", RECIPE, {"task": "lines"}, "quality")
    run.require_alike()  # There is none.
    fit(tmp_path / "run")
    run.require_alike()  # What the rest will be is not known yet.
    run.record = {"task": "lines", "nested": {"sizes": [1]}}
    with pytest.raises(TrainingError, match=r"sizes was \[1, 2\] and is now \[1\]"):
        run.require_alike()
    run.record = {"task": "lines", "more": None}
    run.require_alike()


def test_two_runs_at_once(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "run", tmp_path),
        pytest.raises(ValueError, match="another run is writing to"),
    ):
        fit(tmp_path / "run")


def test_a_best_file_of_other_contents_is_not_published(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    path = tmp_path / "run" / "best.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\xff" * 4)
    with pytest.raises(TrainingError, match=r"best.safetensors is damaged .*its checksum is wrong"):
        fit(tmp_path / "run")


@pytest.mark.parametrize("name", ["last.safetensors", "best.safetensors"])
def test_damaged_states_are_named(name: str, tmp_path: Path) -> None:
    fit(tmp_path / "run")
    path = tmp_path / "run" / name
    whole = path.read_bytes()
    for damaged in (b"", whole[:50], whole[:-10]):
        path.write_bytes(damaged)
        with pytest.raises(TrainingError, match=rf"{path} is damaged .* remove"):
            fit(tmp_path / "run")
    path.unlink()
    if name.startswith("best"):
        with pytest.raises(TrainingError, match="is damaged"):
            fit(tmp_path / "run")
    mx.save_safetensors(str(tmp_path / "run" / "last.safetensors"), {"x": mx.zeros(1)})
    with pytest.raises(TrainingError, match="is damaged"):
        fit(tmp_path / "run")


def test_other_parameters_are_refused(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    run = Run(tmp_path / "run", RECIPE, RECORD, "quality")
    with pytest.raises(TrainingError, match="holds parameters of other names or shapes"):
        run.fit(Lines(start=lambda: {"layer": {"weight": mx.zeros((4, 1))}}))


def test_a_damaged_progress_is_named(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    path = tmp_path / "run" / "last.safetensors"
    with safe_open(path, framework="numpy") as file:
        described = json.loads(file.metadata()["run"])
    described["progress"]["mood"] = "good"
    save_file(load_file(path), path, {"run": json.dumps(described)})
    with pytest.raises(TrainingError, match=r"is damaged .*mood.* remove"):
        fit(tmp_path / "run")
    save_file(load_file(path), path, {"run": "[" * 100_000})
    with pytest.raises(TrainingError, match=r"last.safetensors is damaged"):
        fit(tmp_path / "run")
