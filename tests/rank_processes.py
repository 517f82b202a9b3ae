"""Ranks as processes of their own, joined by MLX's ring over loopback."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).parent


def free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(
    commands: Sequence[Sequence[object]], folder: Path, **variables: object
) -> list[subprocess.Popen[str]]:
    """Starts each command as a rank, with a cache of its own unless `variables` name one."""
    hosts = folder / f"hosts-{time.monotonic_ns()}.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(len(commands))]))
    ranks = []
    for rank, command in enumerate(commands):
        own = {
            "MLX_HOSTFILE": hosts,
            "MLX_RANK": rank,
            "VIDEOPRISM_MLX_CACHE": folder / f"cache{rank}",
            "PYTHONPATH": os.pathsep.join(map(str, (TESTS, *TESTS.iterdir()))),
            **variables,
        }
        environment = {**os.environ, **{key: str(value) for key, value in own.items()}}
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = [str(word) for word in command]
        ranks.append(subprocess.Popen([sys.executable, *line], env=environment, **pipes))
    return ranks


def finish(
    ranks: Sequence[subprocess.Popen[str]], seconds: float = 60
) -> list[tuple[int, str, str]]:
    """The exit code of each rank, what it printed, and its errors. All must end in time."""
    try:
        until = time.monotonic() + seconds
        found = [each.communicate(timeout=max(until - time.monotonic(), 0.1)) for each in ranks]
    finally:
        for each in ranks:
            each.kill()
    return [(each.returncode, *said) for each, said in zip(ranks, found, strict=True)]
