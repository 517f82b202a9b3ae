"""The page as an application: which address gives what."""

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from videoprism_mlx.errors import InputError, LibraryError, VideoError, printable
from videoprism_mlx.library.searcher import Searcher
from videoprism_mlx.library.web.api import Api, Unknown
from videoprism_mlx.library.web.limits import Limits
from videoprism_mlx.library.web.media import (
    Changed,
    FileAnswer,
    media_type,
    open_indexed,
    require_indexed,
)
from videoprism_mlx.library.web.previews import Busy, Previews
from videoprism_mlx.library.web.security import UPLOAD, Access, Guard, refusal
from videoprism_mlx.library.web.uploads import TooLarge, new_folder, receive, too_large

TEMPLATES = Path(__file__).parent / "templates"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
PAGE = "page.html"

# Pictures and files of one version have an address of their own.
FOREVER = "private, max-age=31536000, immutable"
ASK_AGAIN = "private, no-cache"

T = TypeVar("T")


def create_app(
    searcher: Searcher,
    access: Access | None = None,
    limits: Limits | None = None,
    previews: Previews | None = None,
) -> ASGIApp:
    """The page of a `Searcher`'s library, as an ASGI application."""
    limits = limits or Limits()
    previews = previews or Previews(limits)
    site = Site(Api(searcher, limits, previews), limits, previews)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        previews.is_stopped.set()

    inner = Starlette(routes=site.routes(), exception_handlers=site.handlers(), lifespan=lifespan)
    inner.router.redirect_slashes = False
    return Guard(inner, access or Access(), limits)


class Site:
    """The answers to requests. What takes time is done in threads, a few of each kind at once."""

    def __init__(self, api: Api, limits: Limits, previews: Previews):
        self.api = api
        self.limits = limits
        self.previews = previews
        self.assets = {path.name: path.read_bytes() for path in TEMPLATES.iterdir()}
        self.searching = anyio.CapacityLimiter(limits.searches)
        self.reading = anyio.CapacityLimiter(16)
        self.making = anyio.CapacityLimiter(limits.waiting_previews + 1)
        self.embedding = anyio.CapacityLimiter(64)  # The slots of uploads are fewer.
        self.receiving = 0

    def routes(self) -> list[Route]:
        """The addresses."""
        number = "{number:int}"
        return [
            Route("/", self.page),
            Route("/assets/{name}", self.asset),
            Route("/api/status", self.told(lambda _: self.api.status())),
            Route("/api/folders", self.told(lambda _: self.api.folders())),
            Route("/api/newest", self.told(lambda _: self.api.newest())),
            Route("/api/search", self.told(lambda request: self.api.search(request.query_params))),
            Route("/api/video/{id}", self.told(self.video)),
            Route(UPLOAD, self.upload, methods=["POST"]),
            Route(f"/picture/{{id}}/{number}", self.picture),
            Route("/media/{id}", self.media),
            Route(f"/preview/{{id}}/{number}", self.preview),
        ]

    def handlers(self) -> dict[Any, Any]:
        """What errors look like."""

        async def unknown(_: Request, error: Exception) -> Response:
            return refusal(404, printable(error))

        async def wrong(_: Request, error: Exception) -> Response:
            return refusal(400, printable(error))

        async def busy(_: Request, error: Exception) -> Response:
            return refusal(503, "the server is busy; try again", **{"Retry-After": "2"})

        async def large(_: Request, error: Exception) -> Response:
            return refusal(413, printable(error), Connection="close")

        async def changed(_: Request, error: Exception) -> Response:
            return refusal(410, "the file has changed since it was indexed; index it again")

        async def damaged(_: Request, error: Exception) -> Response:
            return refusal(503, printable(error))

        async def unusable(_: Request, error: Exception) -> Response:
            return refusal(422, printable(error))

        async def gone(_: Request, error: Exception) -> Response:
            return refusal(410, "the file is not there any more, or cannot be read")

        async def refused(_: Request, error: Exception) -> Response:
            assert isinstance(error, HTTPException)
            message = {404: "there is nothing here"}.get(error.status_code, error.detail)
            return refusal(error.status_code, message)

        return {
            HTTPException: refused,
            Unknown: unknown,
            TooLarge: large,
            InputError: wrong,
            VideoError: unusable,
            LibraryError: damaged,
            Busy: busy,
            Changed: changed,
            OSError: gone,
        }

    async def page(self, _: Request) -> Response:
        """The page itself."""
        return Response(self.assets[PAGE], media_type="text/html")

    async def asset(self, request: Request) -> Response:
        """A file of the page: its style or a script."""
        name = request.path_params["name"]
        if name not in self.assets or name == PAGE:
            raise HTTPException(404)
        headers = {"cache-control": ASK_AGAIN}
        media = TYPES[Path(name).suffix]
        return Response(self.assets[name], media_type=media, headers=headers)

    def told(self, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """What answers a request with JSON."""

        async def endpoint(request: Request) -> Response:
            return JSONResponse(await self.search(partial(answer, request)))

        return endpoint

    async def search(self, work: Callable[[], T]) -> T:
        """Does a part of a search in a thread."""
        return await anyio.to_thread.run_sync(work, limiter=self.searching)

    def video(self, request: Request) -> dict[str, Any]:
        """A video and its timeline."""
        return self.api.video(request.path_params["id"], request.query_params)

    async def picture(self, request: Request) -> Response:
        """The small picture of a moment."""
        name = request.path_params
        content = await self.search(partial(self.api.picture, name["id"], name["number"]))
        return Response(content, media_type="image/jpeg", headers={"cache-control": FOREVER})

    async def media(self, request: Request) -> Response:
        """An original file."""
        row = await self.search(partial(self.api.row, request.path_params["id"]))
        descriptor = await anyio.to_thread.run_sync(open_indexed, row, limiter=self.reading)
        return FileAnswer(descriptor, media_type(row["path"]), self.reading, ASK_AGAIN)

    async def preview(self, request: Request) -> Response:
        """A part of a video in a codec that every browser plays."""
        row = await self.search(partial(self.api.row, request.path_params["id"]))
        number = request.path_params["number"]

        def made() -> int:
            require_indexed(row)
            return os.open(self.previews.get(row, number), os.O_RDONLY | os.O_CLOEXEC)

        descriptor = await anyio.to_thread.run_sync(made, limiter=self.making)
        return FileAnswer(descriptor, "video/mp4", self.reading, FOREVER)

    async def upload(self, request: Request) -> Response:
        """Keeps the embedding of a picture or a clip, and says by which key."""
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self.limits.upload_bytes:
            raise TooLarge(too_large(self.limits))
        if self.receiving >= self.limits.receiving:
            raise Busy
        folder, is_handed_on = new_folder(), False
        self.receiving += 1
        try:
            path = await receive(request.stream(), Path(folder.name), self.limits)
            if not self.api.uploads.slots.acquire(blocking=False):
                raise Busy
            is_handed_on = True
        finally:
            self.receiving -= 1
            if not is_handed_on:
                folder.cleanup()
        with anyio.move_on_after(self.limits.upload_seconds):
            key = await anyio.to_thread.run_sync(
                self._embed, path, folder, abandon_on_cancel=True, limiter=self.embedding
            )
            return JSONResponse({"key": key})
        return refusal(422, "the file takes too long to be read; cut it or scale it down")

    def _embed(self, path: Path, folder: "tempfile.TemporaryDirectory[str]") -> str:
        """The key of an upload, whose folder is removed."""
        try:
            return self.api.uploads.add(path)
        finally:
            folder.cleanup()
            self.api.uploads.slots.release()
