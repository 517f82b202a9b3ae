"""Files over HTTP: byte ranges as in RFC 9110, and only of the file that was indexed."""

import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from videoprism_mlx.library.indexing.scan import look
from videoprism_mlx.library.web.security import refusal

CHUNK = 2**18  # Bytes that are read at once.
MOST_RANGES = 16

# The media types of video files, for browsers that go by them.
TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".ogv": "video/ogg",
    ".avi": "video/x-msvideo",
    ".mpg": "video/mpeg",
    ".mpeg": "video/mpeg",
    ".3gp": "video/3gpp",
    ".gif": "image/gif",
}
UNKNOWN = "application/octet-stream"

RANGE = re.compile(r"([0-9]{0,19})-([0-9]{0,19})")


class Span(NamedTuple):
    """Bytes from `first` up to, not including, `end`."""

    first: int
    end: int

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.end - self.first


def parse_range(header: str, size: int) -> list[Span] | None:
    """The spans of a Range header, for a file of `size` bytes.

    None if the header is to be ignored: it is of another unit, not valid, or asks for too many
    spans. An empty list if no span is in the file. Spans that overlap become one.
    """
    unit, _, listed = header.partition("=")
    parts = [part.strip() for part in listed.split(",") if part.strip()]
    if unit.strip().lower() != "bytes" or not parts:
        return None
    spans = []
    for part in parts:
        found = RANGE.fullmatch(part)
        if found is None or part == "-":
            return None
        first, last = found.groups()
        if not first:
            span = Span(max(size - int(last), 0), size)
        elif last and int(last) < int(first):
            return None
        else:
            span = Span(int(first), min(int(last) + 1, size) if last else size)
        if span.size > 0:
            spans.append(span)
    merged = merge(spans)
    return None if len(merged) > MOST_RANGES else merged


def merge(spans: Sequence[Span]) -> list[Span]:
    """Spans in the order in which they were asked for; if some overlap, in that of the file."""
    ordered = sorted(spans)
    merged: list[Span] = []
    for span in ordered:
        if merged and span.first <= merged[-1].end:
            merged[-1] = Span(merged[-1].first, max(span.end, merged[-1].end))
        else:
            merged.append(span)
    return merged if len(merged) < len(spans) else list(spans)


class Gone(BaseException):
    """An answer cannot go on: its client is away or too slow, or its file has changed."""


class Changed(Exception):
    """A file is not the one that was indexed."""


def open_indexed(row: Mapping[str, Any]) -> int:
    """The open file of a video's row, as a descriptor.

    Raises FileNotFoundError if it is gone, and Changed if it is another one now.
    """
    # O_NONBLOCK: a pipe in the place of the file must not keep us waiting.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(row["path"], flags)
    found = os.fstat(descriptor)
    is_same = (found.st_size, found.st_mtime_ns) == (row["size"], row["modified"])
    if not stat.S_ISREG(found.st_mode) or not is_same:
        os.close(descriptor)
        raise Changed
    return descriptor


def require_indexed(row: Mapping[str, Any]) -> None:
    """Raises as `open_indexed` does. The video may also be a folder of images."""
    path = Path(row["path"])
    if not path.is_dir():
        os.close(open_indexed(row))
        return
    found = look(path)
    if (found.size, found.modified) != (row["size"], row["modified"]):
        raise Changed


class FileAnswer(Response):
    """An open file, or the parts of it that a request asks for. The descriptor is closed."""

    def __init__(
        self, descriptor: int, media_type: str, limiter: anyio.CapacityLimiter, cache: str
    ):
        found = os.fstat(descriptor)
        self.descriptor = descriptor
        self.size = found.st_size
        self.type = media_type
        self.limiter = limiter
        self.etag = f'"{found.st_size:x}-{found.st_mtime_ns:x}"'
        self.modified = formatdate(found.st_mtime, usegmt=True)
        self.common = {
            "accept-ranges": "bytes",
            "etag": self.etag,
            "last-modified": self.modified,
            "cache-control": cache,
            "content-disposition": "inline",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file."""
        try:
            await self._answer(scope, receive, send)
        finally:
            os.close(self.descriptor)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, is_get = Headers(scope=scope), scope["method"] == "GET"
        if self._is_known(headers):
            await self._start(send, 304, {})
            await send({"type": "http.response.body"})
            return
        asked = headers.get("range") if is_get and self._may_be_partial(headers) else None
        spans = parse_range(asked, self.size) if asked else None
        if spans == []:
            unmet = {"Content-Range": f"bytes */{self.size}", **self.common}
            await refusal(416, f"the file has {self.size:,} bytes", **unmet)(scope, receive, send)
            return
        if not spans:
            whole = Span(0, self.size)
            await self._start(send, 200, self._part(whole, is_whole=True))
            await self._body(send, [(b"", whole)] if is_get else [])
        elif len(spans) == 1:
            await self._start(send, 206, self._part(spans[0]))
            await self._body(send, [(b"", spans[0])])
        else:
            await self._multipart(send, spans)

    def _is_known(self, headers: Headers) -> bool:
        """Whether the client has the file already."""
        if "if-none-match" in headers:
            known = [one.strip() for one in headers["if-none-match"].split(",")]
            return "*" in known or self.etag in [one.removeprefix("W/") for one in known]
        return headers.get("if-modified-since") == self.modified

    def _may_be_partial(self, headers: Headers) -> bool:
        """Whether parts of this file fit to what the client has."""
        return headers.get("if-range") in (None, self.etag, self.modified)

    def _part(self, span: Span, is_whole: bool = False) -> dict[str, str]:
        headers = {"content-type": self.type, "content-length": str(span.size)}
        if not is_whole:
            headers["content-range"] = f"bytes {span.first}-{span.end - 1}/{self.size}"
        return headers

    async def _start(self, send: Send, status: int, headers: Mapping[str, str]) -> None:
        pairs = {**self.common, **headers}.items()
        raw = [(name.encode(), value.encode("latin-1")) for name, value in pairs]
        await send({"type": "http.response.start", "status": status, "headers": raw})

    async def _multipart(self, send: Send, spans: Sequence[Span]) -> None:
        boundary = secrets.token_hex(16)
        parts = []
        for span in spans:
            lines = (
                f"\r\n--{boundary}",
                f"content-type: {self.type}",
                f"content-range: bytes {span.first}-{span.end - 1}/{self.size}",
            )
            parts.append(("\r\n".join([*lines, "\r\n"]).encode(), span))
        end = f"\r\n--{boundary}--\r\n".encode()
        length = sum(len(head) + span.size for head, span in parts) + len(end)
        headers = {
            "content-type": f"multipart/byteranges; boundary={boundary}",
            "content-length": str(length),
        }
        await self._start(send, 206, headers)
        await self._body(send, parts, end)

    async def _body(
        self, send: Send, parts: Sequence[tuple[bytes, Span]], end: bytes = b""
    ) -> None:
        for head, span in parts:
            if head:
                await send({"type": "http.response.body", "body": head, "more_body": True})
            for at, count in chunks(span):
                read = partial(os.pread, self.descriptor, count, at)
                data = await anyio.to_thread.run_sync(read, limiter=self.limiter)
                if len(data) < count:
                    raise Gone  # The file became shorter while it was sent.
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": end})


def chunks(span: Span) -> Iterator[tuple[int, int]]:
    """Where each piece of a span begins, and how long it is."""
    for at in range(span.first, span.end, CHUNK):
        yield at, min(CHUNK, span.end - at)


def media_type(path: str) -> str:
    """The media type of a video file, by its ending."""
    return TYPES.get(Path(path).suffix.lower(), UNKNOWN)
