"""Worker processes on this machine, and the scheduler that they belong to."""

import asyncio
import contextlib
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dask
from distributed import Scheduler, SpecCluster
from distributed.deploy.spec import ProcessInterface

from videoprism_mlx.errors import WorkerError
from videoprism_mlx.runtime.limits import available_cores
from videoprism_mlx.workers import process
from videoprism_mlx.workers.quiet import is_quiet, quiet

# A process that dies sooner than this, in seconds, is started again after a while, which grows.
SOON, SHORTEST, LONGEST = 10.0, 0.1, 5.0

# Dask gives a worker up that is not there some time after it died, also if it died again just then.
NEVER = "1000 hours"


class WorkerProcess(ProcessInterface):
    """A worker in a process of its own. If it dies, another one takes its place."""

    def __init__(self, scheduler: str, name: int, cores: list[int] | None, folder: str) -> None:
        super().__init__()
        settings = {"scheduler": scheduler, "name": name, "cores": cores, "folder": folder}
        self._settings = json.dumps({**settings, "path": sys.path, "is_quiet": is_quiet()})
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the process, and waits until the scheduler knows it."""
        if not await self._launch():
            raise WorkerError("a worker process ended as soon as it was started")
        self._watching = asyncio.create_task(self._watch())
        await super().start()

    async def _launch(self) -> bool:
        """Starts the process. Whether the scheduler knows it now; else it has ended."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", process.__name__, self._settings),
            stdin=asyncio.subprocess.PIPE,  # It ends when this is closed, also by our death.
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process alone.
        )
        assert self._process.stdout is not None
        return await self._process.stdout.readline() == process.READY

    async def _watch(self) -> None:
        """Starts the process again whenever it has died."""
        pause = SHORTEST
        while self._process is not None:
            began = time.monotonic()
            await self._process.wait()
            pause = SHORTEST if time.monotonic() - began > SOON else min(2 * pause, LONGEST)
            await asyncio.sleep(pause)
            await self._launch()

    async def close(self) -> None:
        """Ends the process."""
        if self._watching is not None:
            self._watching.cancel()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await super().close()


@contextmanager
def local_workers(count: int) -> Iterator[SpecCluster]:
    """A scheduler in this process, and `count` workers, each a process that runs a task at a time.

    On Linux, they share the processor's cores.
    """
    with quiet(), tempfile.TemporaryDirectory(prefix="videoprism_mlx-workers-") as folder:
        host = "127.0.0.1"
        scheduler = {"host": host, "port": 0, "dashboard_address": f"{host}:0"}
        workers = {
            name: {
                "cls": WorkerProcess,
                "options": {"name": name, "cores": share, "folder": folder},
            }
            for name, share in enumerate(shares(count))
        }
        try:
            with dask.config.set({"temporary-directory": folder}):
                cluster = SpecCluster(
                    workers=workers, scheduler={"cls": Scheduler, "options": scheduler}
                )
        except WorkerError:
            raise WorkerError(
                "a worker process ended as soon as it was started; what it has printed says why"
            ) from None
        try:
            with dask.config.set({"distributed.deploy.lost-worker-timeout": NEVER}):
                yield cluster
        finally:
            with suppress(KeyError):  # Of Dask, for a worker that died meanwhile.
                cluster.close()


def shares(count: int) -> list[list[int] | None]:
    """The processor cores of each of `count` workers; None where a system cannot give shares."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * count
    cores = sorted(os.sched_getaffinity(0))
    assert len(cores) == available_cores()
    if count > len(cores):
        return [[cores[each % len(cores)]] for each in range(count)]
    cuts = [each * len(cores) // count for each in range(count + 1)]
    return [cores[start:stop] for start, stop in itertools.pairwise(cuts)]
