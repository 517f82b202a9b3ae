"""Events from other threads, which one thread handles one after the other."""

import queue
import threading
from collections.abc import Callable
from typing import Any


class Events:
    """Calls that other threads ask for. They are made by whoever calls `handle`."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def put(self, call: Callable[..., None], *arguments: Any) -> None:
        """Asks for a call."""
        self._queue.put(lambda: call(*arguments))

    def handle(self, seconds: float) -> bool:
        """Makes the next call and those that follow by then. Whether one came within the time."""
        try:
            self._queue.get(timeout=seconds)()
        except queue.Empty:
            return False
        while not self._queue.empty():
            self._queue.get()()
        return True

    def in_thread(self, work: Callable[[], Any], then: Callable[..., None], *of: Any) -> None:
        """Calls `work` in a thread of its own, and asks for `then(*of, result, error)`."""

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as caught:
                error = caught
            self.put(then, *of, result, error)

        threading.Thread(target=run, name="crew", daemon=True).start()
