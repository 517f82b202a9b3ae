"""Commands that are killed at any moment: the next one ends in the same bytes."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import media
import pytest
from conftest import REFERENCE

import videoprism_mlx as vp

KILLS = 60

pytestmark = pytest.mark.attack


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, but for locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def run(script: str, *arguments: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def kill_and_finish(script: str, folder: Path, *arguments: Path) -> None:
    """Runs a script whole, then kills it at random moments and lets it finish."""
    started = time.monotonic()
    whole = run(script, folder / "whole", *arguments)
    assert whole.wait() == 0, whole.communicate()
    seconds = time.monotonic() - started
    right, draw = contents(folder / "whole"), random.Random(0)
    assert right
    for number in range(KILLS):
        output = folder / f"killed {number}"
        for _ in range(3):
            killed = run(script, output, *arguments)
            time.sleep(draw.uniform(0.3, 1.0) * seconds)
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
        last = run(script, output, *arguments)
        _, errors = last.communicate()
        assert last.returncode == 0, errors.decode()
        assert contents(output) == right, number


CONVERT = """
import sys, json; from pathlib import Path; import videoprism_mlx as vp
target = Path(sys.argv[1]) / "m"
if not target.exists():
    vp.convert.flax_to_mlx(sys.argv[2], target, json.loads(Path(sys.argv[3]).read_text()))
"""

EMBED = """
import sys; import videoprism_mlx as vp
vp.embed(sys.argv[3], sys.argv[1] + "/out.npz", sys.argv[2], num_frames=4, progress=False)
"""


def test_converting(tmp_path: Path) -> None:
    folder = REFERENCE / "clip"
    kill_and_finish(CONVERT, tmp_path, folder / "checkpoint.npz", folder / "config.json")


def test_embedding(tmp_path: Path, converted: Callable[[str], Path]) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(12):
        media.write(tmp_path / "videos" / f"{number}.mp4", 8)
    kill_and_finish(EMBED, tmp_path, converted("encoder_mild"), tmp_path / "videos")


def test_saving_adapters(tmp_path: Path, converted: Callable[[str], Path]) -> None:
    """A directory of adapters is whole, or says that it is none."""
    script = (
        "import sys; import videoprism_mlx as vp\n"
        "model = vp.add_adapters(vp.load_model(sys.argv[2]), 2)\n"
        "vp.save_adapters(model, sys.argv[1], sys.argv[2])"
    )
    draw, directory = random.Random(0), converted("encoder_mild")
    for number in range(KILLS):
        killed = run(script, tmp_path / str(number), directory)
        time.sleep(draw.uniform(0.3, 1.5))
        killed.kill()
        killed.communicate()
        try:
            vp.load_adapters(vp.load_model(directory), tmp_path / str(number))
        except vp.CheckpointError as error:
            assert "holds no adapters" in str(error)
