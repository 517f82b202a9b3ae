"""A TCP connection from each rank of a group to each other one."""

import json
import os
import secrets
import socket
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import RankError, in_words
from videoprism_mlx.ranks.group import Group
from videoprism_mlx.ranks.launched import RING

# Seconds: for a connection to be made; and in which another machine must confirm what it is sent.
CONNECTING, CONFIRMING = 20.0, 10

# The option of macOS that says how long data may be unconfirmed. Python has no name for it.
TCP_RXT_CONNDROPTIME = 0x80


def connected(group: Group) -> dict[int, socket.socket]:
    """Connects the ranks of a group, whose `hosts` it learns: the connection to each other rank."""
    with closing(listener()) as server:
        own = {"port": server.getsockname()[1], "host": host(), "addresses": addresses(group.rank)}
        table = group.collect(own)
        group.hosts = tuple(each["host"] for each in table)
        token = group.broadcast(secrets.token_hex(16))
        peers = {rank: connect(group, table, rank, token) for rank in range(group.rank)}
        while len(peers) < group.size - 1:
            rank, peer = accept(group, server, token)
            peers[rank] = peer
    for peer in peers.values():
        prepare(peer)
    return peers


def listener() -> socket.socket:
    """A server on a free port of all addresses of this machine."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def host() -> str:
    """The name of this machine, without its domain."""
    return socket.gethostname().partition(".")[0]


def addresses(rank: int) -> list[str]:
    """The addresses under which others may reach a rank: those of the ring, and its name's."""
    found: list[str] = []
    with suppress(OSError, ValueError, KeyError, IndexError, AttributeError):
        hosts = json.loads(Path(os.environ[RING]).read_text())
        found += [address.rpartition(":")[0].strip("[]") for address in hosts[rank]]
    with suppress(OSError):
        infos = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
        found += [str(info[4][0]) for info in infos]
    return list(dict.fromkeys([*found, socket.gethostname()]))


def connect(group: Group, table: list[dict[str, Any]], rank: int, token: str) -> socket.socket:
    """A connection to a lower rank, by the first of its addresses that answers."""
    there = table[rank]
    tried = [*there["addresses"], *(["127.0.0.1"] if there["host"] == host() else [])]
    for address in tried:
        with suppress(OSError):
            peer = socket.create_connection((address, there["port"]), CONNECTING / len(tried))
            with suppress(OSError):
                peer.sendall(f"{token} {group.rank}\n".encode())
                if peer.recv(1) == b"!":
                    return peer
            peer.close()
    raise RankError(
        f"{group.name(group.rank)} cannot reach {group.name(rank)} under any of "
        f"{', '.join(tried)}; let Python through that machine's firewall"
    )


def accept(group: Group, server: socket.socket, token: str) -> tuple[int, socket.socket]:
    """A connection from a higher rank. Whatever else connects is refused."""
    server.settimeout(2 * CONNECTING)
    while True:
        try:
            peer, _ = server.accept()
        except OSError as error:
            raise RankError(
                f"not all ranks have reached {group.name(group.rank)}: {in_words(error)}; let "
                "Python through that machine's firewall"
            ) from None
        peer.settimeout(CONNECTING)
        with suppress(OSError, ValueError):
            greeting, more = b"", b"more"
            while more and b"\n" not in greeting and len(greeting) < 64:
                more = peer.recv(64)
                greeting += more
            given, rank = greeting.decode().split()
            if secrets.compare_digest(given, token):
                peer.sendall(b"!")
                return int(rank), peer
        peer.close()


def prepare(peer: socket.socket) -> None:
    """Lets the system notice, without the other process, that the other machine is gone.

    A process that is busy or stopped does not matter: its system confirms for it.
    """
    peer.setblocking(False)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "darwin":
        with suppress(OSError):
            peer.setsockopt(socket.IPPROTO_TCP, TCP_RXT_CONNDROPTIME, CONFIRMING)
    elif hasattr(socket, "TCP_USER_TIMEOUT"):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * CONFIRMING)
