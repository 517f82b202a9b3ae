"""Watches the other ranks of a group, so that none waits for one that is gone.

A collective may wait for ever for a rank that has died, in native code that nothing interrupts.
Each rank therefore has a TCP connection to each other one, and a thread that listens to all:

- A process that ends closes its connections at once, and one that ends well says so before.
- A machine that is off, or cut off, does not confirm what it is sent: see `connections`.
- A process that is stopped, or hangs with Python's lock, says nothing for SILENCE. A long
  computation does not: MLX gives the lock back meanwhile.

The thread then ends this process. Only the lowest rank that is left says why.
"""

import atexit
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from videoprism_mlx.errors import ElsewhereError, in_words
from videoprism_mlx.ranks.connections import connected
from videoprism_mlx.ranks.group import Group
from videoprism_mlx.ranks.noise import Noise

# The exit code of a rank that ends because another was lost, or has failed.
LOST, FAILED = 3, 2

# Seconds: between two signs of life; and without one, until a rank is taken for lost.
BEAT, SILENCE = 2.0, 30.0

# Seconds: in which a rank hears of lower ones that are lost, too, and then tells it in their
# place, before the launcher ends all; in which the watching thread hears of a loss that a
# collective has met; in which several ranks tell one error; for a rank to print its error before
# the others end; and for a stopped rank to end by itself.
GRACE, HEARING, SAME, TELLING, STOPPING = 0.04, 1.0, 1.0, 2.0, 3.0

# The signals that stop a rank.
STOPS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class Watch:
    """The connections to the other ranks of a group, watched in the block.

    An error that leaves the block ends the other ranks, which do not print it again.
    """

    def __init__(self, group: Group, noise: Noise):
        self.group = group
        self.noise = noise
        self.lost: dict[int, str] = {}  # The ranks that were lost, and why.
        self.failed: dict[int, str] = {}  # The errors of other ranks.
        self.over: set[int] = set()  # The ranks that have ended well, or have said why not.
        self._is_leaving = threading.Event()  # The main thread says how this rank ends.
        self._is_ending = threading.Event()  # The watching thread ends the process.
        self._peers = connected(group)
        self._quiet = dict.fromkeys(self._peers, 0.0)
        self._unread = dict.fromkeys(self._peers, b"")
        self._signals, self._wakeup = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._wakeup.setblocking(False)
        if threading.current_thread() is threading.main_thread():
            self._before = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._thread.start()
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._before)
        if self.lost:
            self.explain()
        if error is None:
            self._leave({"over": True})
            self._thread.join()
            self._close()
            return
        told = in_words(error) if isinstance(error, Exception) else type(error).__name__
        self._leave({"failed": told})
        atexit.register(self._wait_for_others)
        if self._is_told_elsewhere(told):
            raise ElsewhereError(told) from None

    @property
    def is_ending(self) -> bool:
        """Whether the watching thread is about to end the process."""
        return self._is_ending.is_set()

    def explain(self) -> None:
        """Waits for the watching thread, which ends the process if a rank was lost or has failed.

        It returns if it does not.
        """
        time.sleep(HEARING)
        while self._is_ending.is_set():
            time.sleep(HEARING)

    def _leave(self, message: dict[str, Any]) -> None:
        self._is_leaving.set()
        self._send(message)

    def _is_told_elsewhere(self, told: str) -> bool:
        """Whether a lower rank has failed with the same error at about the same time."""
        until = time.monotonic() + SAME
        lower = range(self.group.rank)
        while lower and time.monotonic() < until:
            if any(self.failed.get(rank) == told for rank in lower):
                return True
            time.sleep(SAME / 20)
        return False

    def _wait_for_others(self) -> None:
        """Ends last, so that no other rank hits upon a closed connection and tells that, too."""
        self._thread.join(2 * TELLING)

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        for peer in list(self._peers.values()):
            with suppress(OSError):  # If it is gone, reading notices.
                peer.send(line)

    def _watch(self) -> None:
        """Reads from all connections, until all ranks are over."""
        with selectors.DefaultSelector() as selector:
            for rank, peer in self._peers.items():
                selector.register(peer, selectors.EVENT_READ, rank)
            selector.register(self._signals, selectors.EVENT_READ, None)
            beat = 0.0
            while len(self.over | self.lost.keys()) < len(self._peers):
                started = time.monotonic()
                for key, _ in selector.select(BEAT / 2):
                    if key.data is None:
                        if not STOPS.isdisjoint(self._signals.recv(64)):
                            self._stop_soon()
                    elif not self._read(key.data):
                        selector.unregister(key.fileobj)
                # If the whole group was stopped, nobody was silent: a turn counts one beat at most.
                passed = min(time.monotonic() - started, BEAT)
                self._count(passed)
                beat += passed
                if beat >= BEAT:
                    beat = 0.0
                    self._send({})
                if not self._is_leaving.is_set() and (self.lost or self.failed):
                    self._end()

    def _read(self, rank: int) -> bool:
        """Reads what a rank has sent. Whether its connection goes on."""
        self._quiet[rank] = 0.0
        try:
            found = self._peers[rank].recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError as error:
            self._lose(rank, f"the connection broke: {in_words(error)}")
            return False
        if not found:
            self._lose(rank, "the process has ended")
            return False
        *lines, self._unread[rank] = (self._unread[rank] + found).split(b"\n")
        for line in lines:
            self._take(rank, json.loads(line))
        return True

    def _take(self, rank: int, message: dict[str, Any]) -> None:
        """Notes what a rank says."""
        if not message.keys().isdisjoint({"over", "failed", "told"}):
            self.over.add(rank)
        if "failed" in message:
            self.failed[rank] = message["failed"]
        for number, why in message.get("lost", []):
            self.lost.setdefault(number, why)

    def _lose(self, rank: int, why: str) -> None:
        if rank not in self.over:
            self.lost.setdefault(rank, why)

    def _count(self, passed: float) -> None:
        """Counts how long each rank has been silent."""
        for rank in self._quiet.keys() - self.over:
            self._quiet[rank] += passed
            if self._quiet[rank] > SILENCE:
                self._lose(rank, f"no answer for {SILENCE:.0f} seconds")

    def _end(self) -> None:
        """Ends the process, after the lowest rank that is left has said why."""
        self._is_ending.set()
        if self.failed and not self.lost:
            # The rank that has failed prints its error meanwhile, and this one may fail as well.
            if not self._is_leaving.wait(TELLING):
                self._exit(FAILED)
            return
        self._send({"lost": list(self.lost.items())})
        until = time.monotonic() + GRACE
        while not self._is_lowest() and time.monotonic() < until:
            time.sleep(GRACE / 4)
            self._read_others()
        self._read_others()
        if self._is_lowest():
            self.noise.say(text_of(self.group, self.lost))
            self._send({"told": True})
        self._exit(LOST)

    def _is_lowest(self) -> bool:
        """Whether all ranks before this one were lost."""
        return all(rank in self.lost for rank in range(self.group.rank))

    def _read_others(self) -> None:
        """Reads what has come from the ranks that are left."""
        for rank in self._peers.keys() - self.lost.keys():
            self._read(rank)

    def _stop_soon(self) -> None:
        """Ends the process if the main thread, which got a signal, cannot."""

        def end() -> None:
            if not self._is_leaving.is_set():
                self._is_ending.set()
                self._send({"failed": KeyboardInterrupt.__name__})
                if self.group.is_first:
                    self.noise.say("stopped")
                self._exit(FAILED)

        timer = threading.Timer(STOPPING, end)
        timer.daemon = True
        timer.start()

    def _exit(self, code: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):  # The terminal has hung up, or it is closed.
                    stream.flush()
        os._exit(code)

    def _close(self) -> None:
        for each in (*self._peers.values(), self._signals, self._wakeup):
            each.close()


def text_of(group: Group, lost: Mapping[int, str]) -> str:
    """Which ranks were lost, and why the first of them was."""
    names = " and ".join(group.name(rank) for rank in sorted(lost))
    verb = "was" if len(lost) == 1 else "were"
    return (
        f"{names} {verb} lost: {next(iter(lost.values()))}; so all ranks end. {group.kept}".strip()
    )
