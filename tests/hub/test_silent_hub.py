"""A Hub that does not answer: one line with what to do next, or the copy in the cache, and soon."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import media
import pytest
from hub_console import Console
from hub_standin import Hub

from videoprism_mlx.models import DEMO_MODEL

TEXT = ("--text", "a red ball", "a blue star")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return Path(shutil.copyfile(media.clip("b.mp4"), tmp_path / "clip.mp4"))


@pytest.fixture(params=["breaks", "silent"])
def fault(request: pytest.FixtureRequest, console: Console, hub: Hub) -> Iterator[str]:
    """A way of not answering. Calling `hub.dies_at` or waiting begins when the test says so."""
    console.python("import os; os.environ['HF_HUB_ETAG_TIMEOUT'] = '1'")
    yield request.param
    hub.dies_at, hub.silent_seconds = None, 0.0
    console.python("import os; del os.environ['HF_HUB_ETAG_TIMEOUT']")


def begin(hub: Hub, fault: str) -> None:
    """From now on, the stand-in breaks every connection, or is silent."""
    hub.dies_at = " /" if fault == "breaks" else None
    hub.silent_seconds = 1.5 if fault == "silent" else 0.0


def test_one_line_and_the_next_step(console: Console, hub: Hub, clip: Path, fault: str) -> None:
    begin(hub, fault)
    for arguments, what in (
        (("--model", f"you/new-{fault}"), f"fetch you/new-{fault}"),
        (("--adapters", f"you/lora-{fault}"), f"fetch you/lora-{fault}"),
    ):
        said = console.run("similarity", clip, *TEXT, *arguments)
        assert said.code == 2 and said.line.startswith(f"videoprism-mlx: could not {what}: ")
        assert said.line.endswith(
            "Without a network, use a model directory (--model DIRECTORY) or "
            f"{DEMO_MODEL}, a tiny model that comes with the package"
        )
        assert ("no answer in 1 s" in said.line) == (fault == "silent")
        assert said.seconds < 5


def test_the_copy_in_the_cache(
    console: Console, hub: Hub, clip: Path, fault: str, tiny: Path
) -> None:
    """It is used, which is said once, and the Hub is waited for once, whatever is needed of it."""
    name = f"you/kept-{fault}"
    assert console.run("upload", tiny, name).code == 0
    command = ("similarity", clip, *TEXT, "--model", name)
    first = console.run(*command)
    assert first.code == 0 and first.err == ""
    asked = len(hub.asked)
    begin(hub, fault)
    said = console.run(*command)
    assert said.code == 0 and said.out == first.out
    assert said.line.startswith(f"{name} is the copy in the cache: ")
    assert len(hub.asked) == asked + 1 and said.seconds < 5


def test_an_upload(console: Console, hub: Hub, tiny: Path, fault: str) -> None:
    begin(hub, fault)
    said = console.run("upload", tiny, f"you/never-{fault}")
    assert said.code == 2 and said.line.startswith("videoprism-mlx: could not upload you/never-")
    assert said.line.endswith("run the same command again when there is a network")
    assert said.seconds < 5 and ("model", f"you/never-{fault}") not in hub.repositories


def test_a_download_that_stops(console: Console, hub: Hub, clip: Path, tiny: Path) -> None:
    """The Hub answers, and breaks off at the weights: one line about that, and one at the end."""
    assert console.run("upload", tiny, "you/half").code == 0
    hub.dies_at = "GET /you/half/resolve"
    with console.without_waiting():
        said = console.run("similarity", clip, *TEXT, "--model", "you/half")
    hub.dies_at = None
    *before, last = said.err.splitlines()  # huggingface_hub tries again from 1.0 on.
    assert before in (["the Hub does not answer about you/half; trying again"], [])
    assert last.startswith("videoprism-mlx: could not fetch you/half: ") and said.code == 2
    assert console.run("similarity", clip, *TEXT, "--model", "you/half").code == 0
    assert os.environ.get("HF_ENDPOINT") != hub.address  # Only the other process talks to it.
