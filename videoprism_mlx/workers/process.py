"""The program of a worker process on this machine: `python -m videoprism_mlx.workers.process`.

`local.py` starts it. It ends with the process that has started it, however that one ends.
"""

import asyncio
import json
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from typing import Any

# How often the folder is removed, and how long that may take, in seconds.
TRIES, PATIENCE = 3, 2.0

# What it prints once the scheduler knows it.
READY = b"ready\n"


def end_with_parent(folder: str) -> None:
    """Waits until the other end of stdin is closed, and ends this process."""
    while os.read(0, 1):
        pass
    for _ in range(TRIES):  # The worker may still write to it.
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def use_cores(cores: list[int] | None) -> None:
    """Uses these processor cores only, on a system that can tell."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


async def work(settings: Mapping[str, Any], ready: int) -> None:
    """Runs a worker until its scheduler ends it. One task runs at a time."""
    from distributed import Worker

    worker = Worker(
        settings["scheduler"],
        nthreads=1,
        name=settings["name"],
        host="127.0.0.1",
        local_directory=settings["folder"],
        # Models take most of the memory. Dask would take them for results that it has to spill.
        memory_limit=0,
        dashboard=False,
    )
    async with worker:
        os.write(ready, READY)
        os.close(ready)
        await worker.finished()


def main() -> None:
    """Runs the worker that the argument, a JSON object, describes."""
    settings = json.loads(sys.argv[1])
    sys.path[:] = settings["path"]
    use_cores(settings["cores"])
    watching = threading.Thread(target=end_with_parent, args=[settings["folder"]], daemon=True)
    watching.start()
    ready = os.dup(1)
    os.dup2(2, 1)  # stdout is for results, which the process that has started this one prints.

    from videoprism_mlx.runtime import blas
    from videoprism_mlx.workers.quiet import quiet

    blas.preload()  # Before MLX is loaded.
    with quiet(settings["is_quiet"]):
        asyncio.run(work(settings, ready))
    watching.join(PATIENCE)  # The scheduler may be gone because the process that started us is.


if __name__ == "__main__":
    main()
