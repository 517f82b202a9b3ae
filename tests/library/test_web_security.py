"""Who is answered: hosts, origins, tokens, methods, and what every answer says."""

import contextlib
import socket
import time
from pathlib import Path

import pytest
from web_server import ROW, Site, quote, serving

from videoprism_mlx.errors import InputError
from videoprism_mlx.library.web.limits import Limits
from videoprism_mlx.library.web.security import HEADERS, Access, check_token
from videoprism_mlx.library.web.server import address_of, open_socket

TOKEN = "correct-horse"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "127.0.0.2", "", "localhost.", "a b", "[::1",
     "localhost:80:80", "0.0.0.0", "user@localhost", "[::2]:80"],
)  # fmt: skip
def test_other_names_are_not_those_of_the_server(site: Site, host: str) -> None:
    for path in ("/", "/api/status", "/assets/app.js"):
        assert site.ask(path, {"Host": host}).status == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:1", "[::1]:8765"])
def test_names_of_the_server(site: Site, host: str) -> None:
    assert site.ask("/api/status", {"Host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost"},  # The Host is 127.0.0.1.
        {"Origin": "https://{host}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_other_sites_are_refused(site: Site, headers: dict[str, str]) -> None:
    sent = {name: value.format(host=f"127.0.0.1:{site.port}") for name, value in headers.items()}
    paths = ["/api/status", f"/media/{site.video('clip00000.mp4')['id']}"]
    assert [site.ask(path, sent).status for path in paths] == [403, 403]
    assert site.ask("/api/upload", sent, "POST", b"x").status == 403


def test_the_page_itself_is_not_another_site(site: Site) -> None:
    own = {"Origin": site.address, "Sec-Fetch-Site": "same-origin"}
    assert site.ask("/api/status", own).status == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert site.ask("/", link).status == 200


def test_every_answer_has_a_policy(site: Site) -> None:
    for answer in (
        site.ask("/"),
        site.ask("/nothing"),
        site.ask("/api/status", {"Host": "evil.example"}),
        site.ask(f"/media/{site.video(ROW)['id']}", {"Range": "bytes=0-1"}),
    ):
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    assert "'unsafe" not in HEADERS["content-security-policy"]
    page = site.ask("/").body.decode()
    assert "<script>" not in page and " style=" not in page and "<style" not in page
    assert "http:" not in page and "https:" not in page


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_other_methods(site: Site, method: str) -> None:
    assert site.ask("/api/status", method=method, body=b"").status == 405
    assert site.ask("/api/upload").headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path",
    ["/media/../../etc/passwd", "/media//etc/passwd", "/media/%2e%2e%2fetc%2fpasswd",
     "/media/%2Fetc%2Fpasswd", "/assets/../app.py", "/assets/%2e%2e/app.py", "/assets/app.py",
     "/assets/page.html", "/media/-1", "/media/%00", "/media/a'%20OR%20'1'%3D'1", "/picture/x/-1",
     "/picture/x/99999999999999999999", "/preview/x/1", "/api/video/x", "//evil.example/",
     "/media/" + 65 * "a", "/api/video/%ff%fe", "http://evil.example/", "*"],
)  # fmt: skip
def test_nothing_else_is_there(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert answer.status in (400, 404) and b"root:" not in answer.body


def test_ids_and_numbers_are_those_of_the_library(site: Site) -> None:
    video = site.video(ROW)["id"]
    for path, status in (
        (f"/picture/{video}/0", 200),
        (f"/picture/{video}/9999", 404),
        (f"/preview/{video}/999999", 422),
        (f"/media/{video.upper()}x", 404),
    ):
        assert site.ask(path).status == status


def test_the_folder_of_a_search_is_one_of_the_library(site: Site, web_library: Path) -> None:
    inside = str(web_library.parent / "clips" / "deeper")
    found = site.ask("/api/search", q="a star", folder=inside).json["moments"]
    assert [one["name"] for one in found] == [ROW]
    for folder in ("/", "/etc", "..", "~root", f"{inside}/.."):
        assert site.ask("/api/search", q="a star", folder=folder).status == 400


def test_words_that_look_like_a_path_are_words(site: Site, web_library: Path) -> None:
    file = web_library.parent / "clips" / "clip00000.mp4"
    words = site.ask("/api/search", q=str(file)).json["moments"]
    picture = site.searcher.search(site.searcher.embed_video(file), 1)
    assert words[0]["score"] != pytest.approx(picture[0].score, abs=1e-3)
    assert site.ask("/api/search", q="./nothing.mp4").status == 200


def test_long_addresses_and_headers(site: Site) -> None:
    assert site.ask("/api/search", q="a" * 5000).status == 414
    assert site.ask("/" + 5000 * "a").status == 414
    assert site.ask("/", {"X-Long": "a" * 20_000}).status == 431
    assert site.ask("/", {f"X-{n}": "a" * 900 for n in range(40)}).status == 431
    with contextlib.suppress(ConnectionError):  # It is not even read to its end.
        assert site.ask("/", {"X-Long": "a" * 500_000}).status == 400


def test_a_token(web_library: Path, tmp_path: Path) -> None:
    with serving(web_library, tmp_path, token=TOKEN) as site:
        for path in ("/", "/api/status", "/assets/app.js", "/?token=wrong-horse", "/?token="):
            refused = site.ask(path)
            assert refused.status == 401 and "set-cookie" not in refused.headers
        assert site.ask(f"/api/status?token={TOKEN}").status == 401  # Only the page takes it.
        first = site.ask(f"/?token={TOKEN}")
        cookie = first.headers["set-cookie"]
        assert first.status == 200 and first.body.startswith(b"<!DOCTYPE html>")
        assert all(one in cookie for one in ("HttpOnly", "SameSite=Strict", f"-{site.port}="))
        name, value = cookie.partition(";")[0].split("=")
        for given, status in ((value, 200), (f"{value}x", 401), ("", 401), ("é", 401)):
            sent = {"Cookie": f"other=1; {name}={given}".encode().decode("latin-1")}
            assert site.ask("/api/status", sent).status == status
        assert site.ask("/", {"Authorization": f"Bearer {TOKEN}"}).status == 200
        assert site.ask("/", {"Authorization": f"Basic {TOKEN}"}).status == 401


def test_a_network_needs_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", ""):
        with pytest.raises(InputError, match=r"give a token as well: --token"):
            check_token(host, None)
        check_token(host, TOKEN)
    check_token("127.0.0.1", None)
    for bad in ("short", "", "with space", "späte-ernte"):
        with pytest.raises(InputError, match=r"the token has to have 8 characters or more"):
            check_token("127.0.0.1", bad)
    everywhere = Access.to("0.0.0.0", 80, TOKEN)
    assert everywhere.knows("192.168.1.5:80") and everywhere.knows(socket.gethostname())
    assert not everywhere.knows("evil.example")
    assert Access.to("192.168.1.5", 80, TOKEN).knows("192.168.1.5:80")
    assert not Access.to("192.168.1.5", 80, TOKEN).knows("192.168.1.6:80")
    assert address_of("0.0.0.0", 80, TOKEN) == f"http://127.0.0.1:80/?token={TOKEN}"


def test_ports() -> None:
    with open_socket("127.0.0.1", None) as first, open_socket("127.0.0.1", None) as second:
        ports = first.getsockname()[1], second.getsockname()[1]
        assert ports[0] != ports[1]
        with pytest.raises(InputError, match=rf"port {ports[0]} .*; name another --port"):
            open_socket("127.0.0.1", ports[0])
    for host, port in (("127.0.0.1", 70_000), ("8.8.8.8", 8765)):
        with pytest.raises(InputError, match=r"cannot listen on"):
            open_socket(host, port)


# Slow clients.

HASTY = Limits(head_seconds=0.4, body_idle_seconds=0.3, body_seconds=0.8, send_seconds=0.8)


def connected(site: Site, *sent: bytes, pause: float = 0.0) -> socket.socket:
    """A connection over which some bytes were sent, with pauses between them."""
    client = socket.create_connection(("127.0.0.1", site.port), timeout=10)
    for part in sent:
        client.sendall(part)
        time.sleep(pause)
    return client


def test_slow_clients_are_let_go_and_others_are_answered(web_library: Path, tmp_path: Path) -> None:
    with serving(web_library, tmp_path, HASTY) as site:
        host = f"Host: 127.0.0.1:{site.port}\r\n".encode()
        post = b"POST /api/upload HTTP/1.1\r\n" + host + b"Content-Length: 1000\r\n\r\n"
        silent = [connected(site) for _ in range(20)]
        half = [connected(site, b"GET / HTTP/1.1\r\n" + host) for _ in range(20)]
        bodies = [connected(site, post, b"x") for _ in range(10)]
        assert site.ask("/api/status").status == 200
        for client in (*silent, *half):
            assert client.recv(10) == b""
        for client in bodies:
            assert client.recv(12) == b"HTTP/1.1 408"
        trickling = connected(site, post)
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                trickling.sendall(b"x")
                time.sleep(0.1)
            raise AssertionError("the server waits for as long as bytes come")
        for client in (*silent, *half, *bodies, trickling):
            client.close()


def test_a_client_that_takes_nothing_is_let_go(
    web_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = b"x" * 2**24
    with serving(web_library, tmp_path, HASTY) as site:
        monkeypatch.setattr("videoprism_mlx.library.web.app.PAGE", "large")
        guard: object = site.page.config.app
        endpoint = guard.app.routes[0].endpoint.__self__  # type: ignore[attr-defined]
        endpoint.assets["large"] = large
        request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\n".encode()
        client = connected(site, request)
        assert client.recv(12) == b"HTTP/1.1 200"
        began = time.monotonic()
        deadline = began + 10
        while site.page.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not site.page.server_state.connections
        assert time.monotonic() - began > 0.5
        client.close()


def test_names_are_quoted_in_the_page_only_as_text(site: Site) -> None:
    """No script makes HTML of a string."""
    for name in ("app", "lib", "player", "results", "video"):
        script = site.ask(f"/assets/{name}.js").body.decode()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in script
    assert quote(site.video(ROW)["name"]) == quote(ROW)
