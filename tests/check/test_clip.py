"""The official clip: fetched once, kept, and never taken for what it is not."""

import contextlib
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from videoprism_mlx.check import clip
from videoprism_mlx.errors import DownloadError, InputError, NotFoundError
from videoprism_mlx.files import atomic

CONTENT = bytes(range(256)) * 400


class Server(http.server.ThreadingHTTPServer):
    """A public address: what it sends, how much it says that is, and how often it was asked."""

    sends, says, asked = CONTENT, len(CONTENT), 0


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.says))
        self.end_headers()
        self.wfile.write(self.server.sends)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """The server that has the clip. The cache is empty."""
    with running(Server(("127.0.0.1", 0), Handler)) as server:
        monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(clip, "URL", f"http://127.0.0.1:{server.server_port}/clip.mp4")
        monkeypatch.setattr(clip, "SHA256", hashlib.sha256(CONTENT).hexdigest())
        yield server


def files() -> list[str]:
    """What the cache's folder of clips holds."""
    return [path.name for path in clip.kept().parent.glob("*")]


def test_it_is_fetched_once_and_kept(server: Server) -> None:
    assert not clip.is_kept()
    for _ in range(2):
        assert clip.find_clip() == clip.kept() and clip.kept().read_bytes() == CONTENT
    assert clip.is_kept() and server.asked == 1
    assert files() == ["water_bottle_drumming.mp4"]


def test_another_file_is_not_kept(server: Server) -> None:
    server.sends = CONTENT[::-1]
    found = hashlib.sha256(server.sends).hexdigest()
    message = f"its SHA-256 is {found}, expected {clip.SHA256}; it was not kept; try again"
    with pytest.raises(InputError, match=message):
        clip.find_clip()
    assert files() == []


@pytest.mark.parametrize("damaged", [b"", CONTENT[:-1], CONTENT[:-1] + b"?"])
def test_a_damaged_copy_is_fetched_again(server: Server, damaged: bytes) -> None:
    clip.kept().parent.mkdir(parents=True)
    clip.kept().write_bytes(damaged)
    assert clip.find_clip().read_bytes() == CONTENT and server.asked == 1


def test_a_broken_connection_leaves_nothing(server: Server) -> None:
    server.sends = CONTENT[:1000]
    with pytest.raises(DownloadError, match=r"1000 bytes read"):
        clip.find_clip()
    assert files() == []


KILLED = """
import os
from pathlib import Path
from videoprism_mlx.check import clip

clip.URL, clip.SHA256 = {url!r}, {checksum!r}

def half(path, content):
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
    os._exit(9)

Path.write_bytes = half
clip.find_clip()
"""


def test_a_killed_process_leaves_nothing_that_is_trusted(server: Server) -> None:
    script = KILLED.format(url=clip.URL, checksum=clip.SHA256)
    assert subprocess.run([sys.executable, "-c", script], env={**os.environ}).returncode == 9
    [left] = files()
    assert atomic.is_partial(Path(left)) and not clip.is_kept()
    assert clip.find_clip().read_bytes() == CONTENT
    assert files() == ["water_bottle_drumming.mp4"]


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network(
    server: Server, monkeypatch: pytest.MonkeyPatch, offline: bool, tmp_path: Path
) -> None:
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        monkeypatch.setattr(clip, "URL", "http://127.0.0.1:9/clip.mp4")
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set" if offline else "refused"):
        clip.find_clip()
    brought = tmp_path / "brought.mp4"
    brought.write_bytes(CONTENT)
    assert clip.find_clip(brought) == brought
    assert server.asked == 0 and files() == []


def test_a_path_to_another_file(server: Server, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(b"other")
    message = f"other.mp4 is not water_bottle_drumming.mp4.*expected {clip.SHA256}.*{clip.URL}"
    with pytest.raises(InputError, match=message):
        clip.find_clip(other)
    with pytest.raises(NotFoundError, match=f"expected water_bottle_drumming.mp4, from {clip.URL}"):
        clip.find_clip(tmp_path / "none.mp4")
    with pytest.raises(NotFoundError):
        clip.find_clip(tmp_path)
    with pytest.raises(InputError, match="null"):
        clip.find_clip("a\0b")
    assert server.asked == 0
