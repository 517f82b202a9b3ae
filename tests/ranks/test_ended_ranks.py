"""A rank that is to end does so, also while it waits for others, and without a terminal."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from videoprism_mlx.ranks.watch import LOST, Watch

WAITING = """
import signal, sys, videoprism_mlx
from videoprism_mlx.ranks import joining

def stop(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, stop)  # As commands have it. Python runs it after native code.
print("begins", flush=True)
with joining.joined():
    pass
"""


def test_a_rank_that_waits_for_another_one_is_ended_by_a_signal(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = [each.getsockname()[1] for each in (one, two)]
    hostfile = tmp_path / "hosts.json"
    hostfile.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports]))
    environment = os.environ | {"MLX_HOSTFILE": str(hostfile), "MLX_RANK": "1"}
    command = [sys.executable, "-c", WAITING]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begins\n"
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(5) == -signal.SIGTERM
        finally:
            process.kill()


def test_a_rank_ends_when_its_terminal_has_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def flush() -> None:
        raise OSError(5, "Input/output error")

    codes: list[int] = []
    hung_up: Any = SimpleNamespace(flush=flush)
    monkeypatch.setattr(sys, "stdout", hung_up)
    monkeypatch.setattr(os, "_exit", codes.append)
    Watch._exit(object.__new__(Watch), LOST)
    assert codes == [LOST]
