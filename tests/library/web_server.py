"""The page's server in a thread, and a small client that sends what it is told."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import media
import numpy as np
from library_media import draw

from videoprism_mlx.demo.animation import draw_clip
from videoprism_mlx.demo.scenes import Scene, Thing
from videoprism_mlx.demo.world import clip_random
from videoprism_mlx.library.library import Library
from videoprism_mlx.library.searcher import Searcher
from videoprism_mlx.library.web.app import create_app
from videoprism_mlx.library.web.limits import Limits
from videoprism_mlx.library.web.previews import Previews
from videoprism_mlx.library.web.security import Access
from videoprism_mlx.library.web.server import Page, open_socket
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.video.ffmpeg.write import write_video

HEART = Scene((Thing("heart", "yellow", "large", "plain", "still"),), "sand")
SCENES = [
    HEART,
    Scene((Thing("star", "blue", "large", "plain", "left"),), "night sky"),
    Scene((Thing("cross", "green", "large", "striped", "spinning"),), "white"),
]
ROW = "<img src=x onerror=alert(1)> in a row.mp4"


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The value of its JSON."""
        return json.loads(self.body)


class Site(NamedTuple):
    """A server that runs."""

    port: int
    page: Page
    searcher: Searcher

    @property
    def address(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: Any = None,
        **query: Any,
    ) -> Answer:
        """The answer to a request. The path is sent as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            sent = {"Host": f"127.0.0.1:{self.port}", **(headers or {})}
            if body is not None and "Transfer-Encoding" not in sent:
                sent.setdefault("Content-Length", str(len(body)))
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, content)

    def video(self, name: str) -> dict[str, Any]:
        """What the page is told of a video, by its name."""
        [found] = [one for one in self.ask("/api/newest").json["videos"] if one["name"] == name]
        return found


def make_library(root: Path) -> Path:
    """A library of drawn clips, one that shows all of them in a row, and one in an old codec."""
    paths = draw(root / "clips", SCENES)
    (root / "clips" / "deeper").mkdir()
    shown = [draw_clip(scene, clip_random(9, i)) for i, scene in enumerate(SCENES)]
    write_video(root / "clips" / "deeper" / ROW, np.concatenate([*shown, *shown, *shown]), 4)
    (root / "clips" / "old.avi").write_bytes(media.clip("mpeg4.avi").read_bytes())
    Library(root / "library").add(root / "clips", DEMO_MODEL, progress=False)
    assert len(paths) == len(SCENES)
    return root / "library"


@contextlib.contextmanager
def serving(
    library: Path, folder: Path, limits: Limits | None = None, token: str | None = None
) -> Iterator[Site]:
    """The server of a library, in a thread. Previews are kept in the folder."""
    limits = limits or Limits()
    searcher, opened = Searcher(library), open_socket("127.0.0.1", 0)
    port = opened.getsockname()[1]
    access = Access.to("127.0.0.1", port, token)
    page = Page(create_app(searcher, access, limits, Previews(limits, folder)), opened, limits)
    thread = threading.Thread(target=page.run)
    thread.start()
    try:
        while not page.started:
            time.sleep(0.01)
        yield Site(port, page, searcher)
    finally:
        page.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


__all__ = ["HEART", "ROW", "SCENES", "Answer", "Site", "make_library", "quote", "serving"]
