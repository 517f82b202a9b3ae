"""Slow links: frames pass through this process, which delays them and limits their rate.

    python link.py RATE DELAY SWITCH HOST...

RATE is in bits a second, DELAY in seconds one way, SWITCH and each HOST are processes in their
network namespaces. In each host, the link is eth0; in the switch, port0, port1, and so on. It ends
when its input does. The kernel's own tool for it, netem, is a module that many kernels lack.
"""

import collections
import contextlib
import ctypes
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
CLONE_NEWNET = 0x40000000

# What a frame takes on the wire beside its bytes: preamble, checksum and gap.
AROUND = 24
# Frames that would wait for longer than this, in seconds, are dropped, as a router does.
LONGEST = 0.1
AT_ONCE = 64

# While frames are on their way, they are looked after this often, in seconds: each by itself takes
# half of a core at 100 Mbit/s.
TICK = 0.0005


class Direction:
    """The frames on their way from one device to another."""

    def __init__(self, source: int, target: int, rate: float, delay: float):
        self.source, self.target, self.rate, self.delay = source, target, rate, delay
        self.free = 0.0  # When the last frame has been sent.
        self.waiting: collections.deque[tuple[float, bytes]] = collections.deque()

    def take(self, frame: bytes, now: float) -> None:
        """Takes a frame that was sent now."""
        begins = max(now, self.free)
        if begins - now > LONGEST:
            return
        self.free = begins + 8 * (len(frame) + AROUND) / self.rate
        self.waiting.append((self.free + self.delay, frame))

    def arrived(self, now: float) -> "list[bytes]":
        """The frames that have arrived by now."""
        frames = []
        while self.waiting and self.waiting[0][0] <= now:
            frames.append(self.waiting.popleft()[1])
        return frames


def device(pid: str, name: str) -> int:
    """Makes a network device in the namespace of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/net") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    number = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(number, TUNSETIFF, struct.pack("16sH22s", name.encode(), IFF_TAP | IFF_NO_PI, b""))
    return number


def read(direction: Direction) -> None:
    """Takes the frames that are there."""
    for _ in range(AT_ONCE):
        try:
            frame = os.read(direction.source, 65536)
        except BlockingIOError:
            return
        except OSError:  # The device is not up.
            return
        direction.take(frame, time.monotonic())


def relay(directions: "dict[int, Direction]") -> None:
    """Passes frames on until the input ends."""
    sources = [sys.stdin.fileno(), *directions]
    while True:
        ends = [each.waiting[0][0] for each in directions.values() if each.waiting]
        if ends:
            time.sleep(min(TICK, max(0.0, min(ends) - time.monotonic())))
        ready, _, _ = select.select(sources, [], [], 0 if ends else None)
        if sources[0] in ready:
            return
        for number in ready:
            read(directions[number])
        for each in directions.values():
            for frame in each.arrived(time.monotonic() + TICK):
                with contextlib.suppress(OSError):  # The other end is full or gone: it is lost.
                    os.write(each.target, frame)


def main() -> None:
    rate, delay = map(float, sys.argv[1:3])
    switch, *hosts = sys.argv[3:]
    directions = {}
    for number, host in enumerate(hosts):
        inner, outer = device(host, "eth0"), device(switch, f"port{number}")
        directions[inner] = Direction(inner, outer, rate, delay)
        directions[outer] = Direction(outer, inner, rate, delay)
    print("ready", os.getpid(), flush=True)
    relay(directions)


if __name__ == "__main__":
    main()
