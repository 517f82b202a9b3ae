"""How fast the network is between two hosts: one byte there and back, and many bytes.

python probe.py --answer            on one host
python probe.py HOST [MEGABYTES]    on the other; it prints JSON
"""

import json
import os
import socket
import statistics
import sys
import time

PORT, ECHOES = 7777, 30
SEND, TAKE, ECHO = b"s", b"t", b"e"


def answer() -> None:
    """Answers connections, one after the other."""
    with socket.create_server(("", PORT)) as server:
        print("ready", os.getpid(), flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                reply(connection)


def reply(connection: socket.socket) -> None:
    """Does what the first byte says."""
    kind = connection.recv(1)
    if kind == ECHO:
        while data := connection.recv(1):
            connection.sendall(data)
    elif kind == TAKE:
        while connection.recv(1 << 20):
            pass
        connection.sendall(b".")
    elif kind == SEND:
        count = int(connection.recv(20))
        connection.sendall(bytes(count))


def opened(host: str) -> socket.socket:
    connection = socket.create_connection((host, PORT), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def echoes(host: str) -> "list[float]":
    """The seconds of one byte there and back."""
    seconds = []
    with opened(host) as connection:
        connection.sendall(ECHO)
        for _ in range(ECHOES):
            started = time.perf_counter()
            connection.sendall(b".")
            connection.recv(1)
            seconds.append(time.perf_counter() - started)
    return seconds


def there(host: str, count: int) -> float:
    """The bits a second of that many bytes to the host."""
    with opened(host) as connection:
        connection.sendall(TAKE)
        started = time.perf_counter()
        connection.sendall(bytes(count))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        return 8 * count / (time.perf_counter() - started)


def back(host: str, count: int) -> float:
    """The bits a second of that many bytes from the host."""
    with opened(host) as connection:
        started = time.perf_counter()
        connection.sendall(SEND + f"{count:<20}".encode())
        left = count
        while left:
            left -= len(connection.recv(1 << 20))
        return 8 * count / (time.perf_counter() - started)


def main() -> None:
    if sys.argv[1:] == ["--answer"]:
        answer()
    host, count = sys.argv[1], int(float(sys.argv[2]) * 1e6) if sys.argv[2:] else 30_000_000
    seconds = echoes(host)
    figures = {
        "there_and_back_ms": 1e3 * statistics.median(seconds),
        "there_and_back_most_ms": 1e3 * max(seconds),
        "there_mbit": there(host, count) / 1e6,
        "back_mbit": back(host, count) / 1e6,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
