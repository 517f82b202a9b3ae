"""Dask on the hosts, and what its processes take: seconds of a core, and memory."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.machines.lab.hosts import Host, Lab, descendants, stop

TICKS = os.sysconf("SC_CLK_TCK")

# A worker runs one task at a time. Its memory is the model's, and not results for Dask to spill.
WORKER = ("--nthreads", "1", "--memory-limit", "0", "--no-dashboard")


class Used(NamedTuple):
    """What processes have used so far: seconds of a core, and bytes of memory now."""

    seconds: float
    memory: int

    def since(self, before: "Used") -> float:
        """The seconds of a core since then."""
        return self.seconds - before.seconds


def used(pids: Sequence[int]) -> Used:
    """What these processes, and the processes that they have started, have used."""
    seconds, memory = 0.0, 0
    for pid in {each for one in pids for each in (one, *descendants(one))}:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        seconds += (int(fields[11]) + int(fields[12])) / TICKS
        memory += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return Used(seconds, memory)


class Cluster:
    """A scheduler on the first host, and workers on others."""

    def __init__(self, lab: Lab, port: int = 8786):
        self.lab, self.address = lab, f"tcp://{lab.hosts[0].name}:{port}"
        self.log = open(lab.folder / f"dask-{port}.log", "w")  # noqa: SIM115 - until the end
        # It shares the cores with all. On a Mac of its own, it would have one.
        words = ["dask", "scheduler", "--port", str(port), "--dashboard-address", ":0"]
        self.scheduler = self._start(lab.hosts[0], words, core=lab.cores)
        self.workers: dict[str, tuple[Host, subprocess.Popen[str]]] = {}

    def add(self, host: Host, name: str | None = None) -> str:
        """Starts a worker on a host. Its name."""
        name = name or host.name
        words = ["dask", "worker", self.address, "--name", name, *WORKER]
        self.workers[name] = (host, self._start(host, words))
        return name

    def _start(self, host: Host, words: list[str], **options: str) -> "subprocess.Popen[str]":
        return host.start(
            words, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, **options
        )

    def wait(self, count: int | None = None) -> None:
        """Waits until so many workers are there; all, by default."""
        script = f"from distributed import Client\nClient('{self.address}', timeout=60)"
        script += f".wait_for_workers({len(self.workers) if count is None else count}, timeout=60)"
        done = self.lab.hosts[0].run([sys.executable, "-c", script])
        if done.returncode:
            log = Path(self.log.name).read_text()
            raise RuntimeError(f"the workers did not come: {done.stderr[-500:]}\n{log[-1500:]}")

    def used(self) -> dict[str, Used]:
        """What the scheduler and each worker have used."""
        processes = {"scheduler": self.scheduler}
        processes |= {name: process for name, (_, process) in self.workers.items()}
        return {name: used([process.pid]) for name, process in processes.items()}

    def stop(self, name: str) -> None:
        """Kills a worker, with the process that would start it again."""
        stop(self.workers.pop(name)[1])

    def close(self) -> None:
        """Kills all."""
        for name in list(self.workers):
            self.stop(name)
        stop(self.scheduler)
        self.log.close()


def timed(lab: Lab, words: Sequence[str | Path], timeout: float = 600) -> tuple[float, float]:
    """Runs a command on the first host, on all cores: its seconds, and those of a core."""
    started, before = time.perf_counter(), os.times()
    done = lab.hosts[0].run(words, core=lab.cores, timeout=timeout)
    after = os.times()
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(map(str, words))}: {done.stdout[-500:]}{done.stderr[-2000:]}"
        )
    worked = after.children_user + after.children_system
    worked -= before.children_user + before.children_system
    return time.perf_counter() - started, worked
