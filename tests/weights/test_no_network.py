"""Without a network: one line with the next step, within seconds."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from videoprism_mlx import tokenizers
from videoprism_mlx.errors import DownloadError
from videoprism_mlx.files import download
from videoprism_mlx.weights import hub

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def refusing() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    places = {"HF_HOME": str(tmp_path / "hf"), "VIDEOPRISM_MLX_CACHE": str(tmp_path / "cache")}
    return {**kept, **places, **more}


def run(tmp_path: Path, model: str, **variables: str) -> tuple[list[str], float]:
    """What `embed` prints to stderr, and how long it takes."""
    (tmp_path / "clip.mp4").write_bytes(b"not looked at")
    arguments = ("embed", tmp_path / "clip.mp4", "-o", tmp_path / "out.npz", "--model", model)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "videoprism_mlx", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(tmp_path, **variables),
        check=False,
    )
    assert done.returncode == 2
    return done.stderr.splitlines(), time.perf_counter() - started


@pytest.mark.parametrize("model", ["videoprism_public_v1_base", "someone/a-model"])
@pytest.mark.parametrize("kind", ["refused", "silent", "proxy"])
def test_one_line_and_soon(kind: str, model: str, tmp_path: Path, silent: str) -> None:
    variables = {
        "refused": {"HF_ENDPOINT": refusing()},
        "silent": {"HF_ENDPOINT": silent, "HF_HUB_ETAG_TIMEOUT": "1"},
        "proxy": {"HTTPS_PROXY": refusing()},
    }
    [line], seconds = run(tmp_path, model, **variables[kind])
    assert line.startswith("videoprism-mlx: could not fetch ")
    step = "is it the name of" if "/" in model else "convert flax_base_f16r288_repeated.npz -o DIR"
    assert step in line
    reason = "no answer in 1 s (HF_HUB_ETAG_TIMEOUT" if kind == "silent" else "onnection refused"
    assert reason in line
    assert seconds < 15  # Retries took 24 s. Loaded machines need seconds to start Python.


def test_in_python_the_traceback_is_short(tmp_path: Path) -> None:
    """It had 115 lines, of which the last said what to do."""
    for name, step in (("public_v1_base", "-o DIRECTORY"), ("lvt_public_v1_base", "-o DIRECTORY")):
        code = f"import videoprism_mlx as vp; vp.load_model('videoprism_{name}')"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment(tmp_path, HF_ENDPOINT=refusing()),
            check=False,
        )
        lines = done.stderr.splitlines()
        assert "onnection refused" in lines[-1] and step in lines[-1]
        assert len(lines) < 40 and "httpx" not in done.stderr


def test_an_answer_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert download.answer_seconds() <= 4
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "60")
    assert download.answer_seconds() == 60
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "soon")
    assert download.answer_seconds() <= 4
    assert download.answered(lambda: 3) == 3
    with pytest.raises(KeyError, match="x"):
        download.answered(lambda: {}["x"])


def test_a_silent_server_of_the_tokenizer(
    silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.3)
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    with pytest.raises(DownloadError, match=r"no answer in 0.3 s .* save it as .*kept"):
        download.download_bytes(silent, tmp_path / "kept")
    monkeypatch.setitem(tokenizers.TOKENIZER_URLS, "c4_en", silent)
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path))
    started = time.perf_counter()
    with pytest.raises(DownloadError, match=r"no answer in 0.3 s") as caught:
        tokenizers.load_text_tokenizer("c4_en")
    assert time.perf_counter() - started < 10
    assert silent in str(caught.value) and str(tmp_path / "tokenizers") in str(caught.value)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["stops", "never ends"])
def test_a_server_that_does_not_come_to_an_end(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # The other end has enough of it.
                while kind == "never ends":
                    self.wfile.write(bytes(2**20))
                time.sleep(3)

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(download, "MOST_BYTES", 2**22)
    reason = "timed out" if kind == "stops" else "it has more than 4,194,304 bytes"
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(DownloadError, match=f"could not fetch {url}: {reason}; without a"):
            download.download_bytes(url, tmp_path / "kept")
        server.shutdown()


def test_what_is_in_the_cache_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network")

    def cached(local_files_only: bool = False, **_: Any) -> str:
        assert local_files_only
        return "kept.npz"

    monkeypatch.setattr(hub, "_silent", {})
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", offline)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cached)
    found = hub.download_checkpoint("videoprism_public_v1_base")
    assert found == Path("kept.npz")


class Slow(BaseHTTPRequestHandler):
    """Answers like the Hub, and sends a file more slowly than an answer may take."""

    content = (REFERENCE / "encoder" / "checkpoint.npz").read_bytes()

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        if not self.path.endswith(".npz"):  # huggingface_hub asks for more than the file.
            return self.send_error(404)
        self._answer()
        for first in range(0, len(self.content), len(self.content) // 5):
            time.sleep(0.5)
            self.wfile.write(self.content[first : first + len(self.content) // 5])

    def _answer(self) -> None:
        self.send_response(200)
        for name, value in (
            ("Content-Length", str(len(self.content))),
            ("ETag", '"abc"'),
            ("X-Repo-Commit", "0" * 40),
        ):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_slow_download_goes_on(tmp_path: Path) -> None:
    """An answer may take 2 s here, and the download takes 2.5 s: it has no limit in all."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = (
            "from videoprism_mlx.weights import hub\n"
            "print(hub.download_checkpoint('videoprism_public_v1_base'))"
        )
        endpoint = f"http://127.0.0.1:{server.server_port}"
        variables = {"HF_ENDPOINT": endpoint, "HF_HUB_ETAG_TIMEOUT": "2", "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment(tmp_path, **variables),
            check=False,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == Slow.content
