"""What runs on the first host: many tasks that do next to nothing, one after the other.

    python -m benchmarks.machines.drive ADDRESS TASKS BYTES

Each task returns so many bytes, as the moments of a span do. It prints a line of JSON now and then:
the tasks so far, the seconds, and what this process has used.
"""

import json
import os
import sys
import time
from collections.abc import Iterator

from videoprism_mlx.workers.connect import connected
from videoprism_mlx.workers.crew.crew import Crew
from videoprism_mlx.workers.tasks import Task

LINES = 20


def some(count: int) -> bytes:
    """So many bytes."""
    return os.urandom(count)


def accept(*_: object) -> None:
    """Every worker may do these tasks."""


def tasks(count: int, size: int) -> Iterator[Task]:
    """The tasks, one when it is asked for."""
    for number in range(count):
        yield Task(f"task {number}", some, (size,))


def main() -> None:
    address, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with connected(address) as client, Crew(client, accept) as crew:
        started, worked = time.perf_counter(), time.process_time()
        for number, done in enumerate(crew.run(tasks(count, size)), start=1):
            assert done.error is None and len(done.value) == size
            if number % max(1, count // LINES) == 0:
                line = {"tasks": number, "seconds": time.perf_counter() - started}
                line["core_seconds"] = time.process_time() - worked
                with open("/proc/self/statm") as file:
                    line["memory"] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
