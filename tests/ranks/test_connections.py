"""The connections between ranks, and what is printed beside them."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing

import mlx.core as mx
import pytest

from videoprism_mlx.errors import RankError
from videoprism_mlx.ranks import connections, joining
from videoprism_mlx.ranks.group import Group
from videoprism_mlx.ranks.noise import Noise

TOKEN = "a" * 32


@pytest.fixture
def group() -> Group:
    group = Group(0, 3)
    group.hosts = ("mac1", "mac2", "mac3")
    return group


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with closing(connections.listener()) as server:
        yield server


def connected(server: socket.socket, greeting: bytes) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", server.getsockname()[1]), 5)
    peer.sendall(greeting)
    return peer


def test_only_ranks_of_the_run_are_accepted(group: Group, server: socket.socket) -> None:
    strangers = [
        connected(server, greeting)
        for greeting in (b"GET / HTTP/1.1\r\n\r\n", f"{'b' * 32} 1\n".encode(), b"\xff\n")
    ]
    rank = connected(server, f"{TOKEN} 2\n".encode())
    number, peer = connections.accept(group, server, TOKEN)
    assert number == 2 and rank.recv(1) == b"!"
    assert [each.recv(1) for each in strangers] == [b""] * 3
    for each in (*strangers, rank, peer):
        each.close()


def test_a_rank_that_cannot_be_reached_is_named(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    table = [{"port": port, "host": "mac1", "addresses": ["127.0.0.1", "::1"]}]
    group.rank = 1
    with pytest.raises(RankError, match=r"rank 1 \(mac2\) cannot reach rank 0 \(mac1\) under any"):
        connections.connect(group, table, 0, TOKEN)
    monkeypatch.setattr(connections, "CONNECTING", 0.05)
    with closing(connections.listener()) as server, pytest.raises(RankError, match="not all ranks"):
        connections.accept(group, server, TOKEN)


def test_a_rank_waits_for_one_that_starts_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX's ring gives up by itself after half a minute."""
    answers: list[object] = [RuntimeError("[ring] Couldn't connect (error: 111)")] * 2 + ["group"]

    def init(strict: bool) -> object:
        answer = answers.pop(0)
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    monkeypatch.setattr(mx.distributed, "init", init)
    assert joining._wait_for_all_ranks() == "group"
    answers[:] = [RuntimeError("[ring] Couldn't bind socket (error: 98)"), "group"]
    with pytest.raises(RankError, match=r"cannot be joined.*bind"):
        joining._wait_for_all_ranks()
    monkeypatch.setattr(joining, "JOINING", 0)
    answers[:] = [RuntimeError("[ring] Couldn't connect (error: 111)"), "group"]
    with pytest.raises(RankError, match=r"cannot be joined.*connect"):
        joining._wait_for_all_ranks()


def test_the_addresses_of_the_ring_come_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    hosts = os.path.join(tmp_path, "hosts")
    with open(hosts, "w") as file:
        file.write('[["10.0.0.1:5000", "10.0.1.1:5001"], ["[fe80::1]:5002"]]')
    monkeypatch.setenv("MLX_HOSTFILE", hosts)
    assert connections.addresses(0)[:2] == ["10.0.0.1", "10.0.1.1"]
    assert connections.addresses(1)[0] == "fe80::1"
    assert socket.gethostname() in connections.addresses(7)


def test_noise_is_put_aside_and_can_be_shown(capfd: pytest.CaptureFixture[str]) -> None:
    noise = Noise()
    with noise.aside():
        os.write(2, b"[ring] Socket 3 was closed by the peer\n")
        noise.say("rank 1 was lost\x1b")
    assert capfd.readouterr().err == "videoprism-mlx: rank 1 was lost\\x1b\n"
    noise.show()
    assert capfd.readouterr().err == "[ring] Socket 3 was closed by the peer\n"
    noise.close()
