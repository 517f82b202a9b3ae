"""Many clients at once, some of whom send what no browser sends."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from web_server import ROW, Site, serving

from videoprism_mlx.library.web.limits import Limits

SECRET = b"nobody may read this"
LIMITS = Limits(body_idle_seconds=1, body_seconds=3, head_seconds=3, upload_bytes=2**20)

# A request: what is sent, and what may be answered. 0 stands for a closed connection.
Request = tuple[bytes | Iterator[bytes], set[int]]


def head(site: Site, target: str, *headers: str, method: str = "GET", host: str = "") -> bytes:
    """The beginning of a request."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host or f'127.0.0.1:{site.port}'}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


def large_body(site: Site) -> Iterator[bytes]:
    """A gigabyte, as long as the server takes it."""
    yield head(site, "/api/upload", f"Content-Length: {2**30}", method="POST")
    for _ in range(2**10):
        yield bytes(2**20)


def chunked_body(site: Site) -> Iterator[bytes]:
    """A gigabyte, without saying so before."""
    yield head(site, "/api/upload", "Transfer-Encoding: chunked", method="POST")
    for _ in range(2**10):
        yield b"100000\r\n" + bytes(2**20) + b"\r\n"


def slow_body(site: Site) -> Iterator[bytes]:
    """A body that comes a byte at a time."""
    yield head(site, "/api/upload", "Content-Length: 1000", method="POST")
    for _ in range(1000):
        time.sleep(0.2)
        yield b"x"


def malformed(site: Site, video: str, outside: Path) -> list[Callable[[], Request]]:
    """What no browser sends."""
    refused = {400, 404}

    def get(target: str, *headers: str, answers: set[int] = refused, host: str = "") -> Request:
        return head(site, target, *headers, host=host), answers

    return [
        lambda: get(f"/media/../../../..{outside}"),
        lambda: get(f"/media/{outside}"),
        lambda: get(f"/assets/..%2f..%2f..%2f..{outside}"),
        lambda: get(f"{outside}"),
        lambda: get(f"file://{outside}"),
        lambda: get(f"/media/{'../' * 20}etc/passwd"),
        lambda: get("/", answers={421}, host="evil.example"),
        lambda: get("/api/status", "Host: evil.example", answers={400, 421}),
        lambda: get(f"/media/{video}", "Range: bytes=999999999-", answers={416}),
        lambda: get(f"/media/{video}", "Range: bytes=-", answers={200}),
        lambda: get(f"/media/{video}", "Range: bytes=9-1,,--", answers={200}),
        lambda: get("/media/-1"),
        lambda: get(f"/picture/{video}/-1"),
        lambda: get(f"/preview/{video}/-7"),
        lambda: get("/api/search?like=-1:-1"),
        lambda: get(f"/api/search?q=a&folder={outside.parent}"),
        lambda: get(f"/api/search?q={outside}", answers={200}),
        lambda: get(f"/api/search?q=a&k={'9' * 400}"),
        lambda: get(f"/?{'x' * 100_000}", answers={0, 400, 414, 431}),
        lambda: (b"\x16\x03\x01 not HTTP \r\n\r\n", {0, 400}),
        lambda: (head(site, "/api/upload", "Content-Length: -1", method="POST"), {400, 413}),
        lambda: (large_body(site), {0, 413}),
        lambda: (chunked_body(site), {0, 413}),
        lambda: (slow_body(site), {0, 408, 503}),
    ]


def usual(site: Site, video: str, content: bytes) -> list[Callable[[], tuple[bytes, set[int]]]]:
    """What the page sends."""
    return [
        lambda: (head(site, "/"), {200}),
        lambda: (head(site, "/assets/app.js"), {200}),
        lambda: (head(site, "/api/status"), {200}),
        lambda: (head(site, "/api/search?q=a+yellow+heart"), {200}),
        lambda: (head(site, f"/api/video/{video}?q=something+spinning"), {200}),
        lambda: (head(site, f"/picture/{video}/0"), {200}),
        lambda: (head(site, f"/media/{video}", "Range: bytes=0-99"), {206}),
        lambda: (head(site, f"/media/{video}", "Range: bytes=-99"), {206}),
        lambda: (head(site, f"/media/{video}"), {200}),
    ]


def answered(site: Site, request: Request) -> tuple[int, bytes]:
    """The status of the answer, and all of it. Status 0 if there is none."""
    sent, _ = request
    answer = b""
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as client:
        with contextlib.suppress(ConnectionError):
            for part in [sent] if isinstance(sent, bytes) else sent:
                client.sendall(part)
        with contextlib.suppress(ConnectionError):
            while part := client.recv(2**16):
                answer += part
    return int(answer[9:12] or 0), answer


def attack(library: Path, folder: Path, clients: int, requests: int, most_seconds: float) -> None:
    """A tenth of the requests is malformed. All are answered or refused, and soon."""
    outside = folder / "secret.mp4"
    outside.write_bytes(SECRET)
    wrong: list[str] = []
    with serving(library, folder / "previews", LIMITS) as site:
        video = site.video(ROW)["id"]
        content = next((library.parent / "clips").rglob(ROW)).read_bytes()
        bad, good = malformed(site, video, outside), usual(site, video, content)
        order = [
            bad[i // 10 % len(bad)] if i % 10 == 0 else good[i % len(good)] for i in range(requests)
        ]
        random.Random(0).shuffle(order)
        waiting, lock = iter(order), threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    make = next(waiting, None)
                if make is None:
                    return
                request, began = make(), time.monotonic()
                status, answer = answered(site, request)
                took = time.monotonic() - began
                body = answer.partition(b"\r\n\r\n")[2]
                is_part = status == 206 and body not in (content[:99], content[:100], content[-99:])
                if status not in request[1] or SECRET in answer or b"root:" in answer or is_part:
                    wrong.append(f"{status} for {request}: {answer[:300]!r}")
                if took > most_seconds:
                    wrong.append(f"{took:.1f} s for {request}")

        threads = [threading.Thread(target=work) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        assert not any(thread.is_alive() for thread in threads)
        assert next(waiting, None) is None
        assert site.ask("/api/status").status == 200
    assert wrong == []


def test_many_clients_at_once(web_library: Path, tmp_path: Path) -> None:
    attack(web_library, tmp_path, clients=24, requests=96, most_seconds=15)


@pytest.mark.slow
def test_five_hundred_requests_of_fifty_clients(web_library: Path, tmp_path: Path) -> None:
    attack(web_library, tmp_path, clients=50, requests=500, most_seconds=15)
