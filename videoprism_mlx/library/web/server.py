"""The server: sockets, time limits of connections, start and end."""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from videoprism_mlx.errors import InputError
from videoprism_mlx.library.web.limits import Limits
from videoprism_mlx.library.web.media import Gone
from videoprism_mlx.library.web.security import ANY_ADDRESS, Access, check_token, refusal

# The port that is tried first, and how many after it.
PORT, MORE_PORTS = 8765, 20

# How long answers in progress may take when the server ends.
LAST_SECONDS = 2


class TimedProtocol(H11Protocol):
    """A connection that is closed when its client is too slow."""

    limits = Limits()

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.app: Any = Timed(self.app, self)
        self.head_since: float | None = None
        self.stuck_since: float | None = None
        self.waiting_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(transport)
        self.head_since = time.monotonic()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self.head_since = None  # The request is there; its body has limits of its own.
        elif self.head_since is None:
            self.head_since = time.monotonic()

    def on_response_complete(self) -> None:
        """An answer was sent. Until the next request begins, the limit is that of keep-alive."""
        self.head_since = None
        super().on_response_complete()

    def shutdown(self) -> None:
        """The server ends."""
        super().shutdown()
        self.loop.call_later(LAST_SECONDS, self.transport.abort)

    def _watch(self) -> None:
        """Once a second: ends the connection if its client sends or takes nothing for too long."""
        now = time.monotonic()
        waiting = self.transport.get_write_buffer_size()
        if not waiting or waiting != self.waiting_bytes:
            self.stuck_since = None
        elif self.stuck_since is None:
            self.stuck_since = now
        self.waiting_bytes = waiting
        limits = ((self.head_since, "head_seconds"), (self.stuck_since, "send_seconds"))
        for since, limit in limits:
            if since is not None and now - since > getattr(self.limits, limit):
                self.transport.abort()
                return
        if waiting or not self.transport.is_closing():
            self.loop.call_later(min(1.0, self.limits.head_seconds / 4), self._watch)


class Timed:
    """An application whose client has a limited time for the body of its request."""

    def __init__(self, app: ASGIApp, connection: TimedProtocol):
        self.app = app
        self.connection = connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        limits, has_begun = self.connection.limits, False
        deadline = time.monotonic() + limits.body_seconds

        async def receive_soon() -> Message:
            idle = min(limits.body_idle_seconds, deadline - time.monotonic())
            try:
                return await asyncio.wait_for(receive(), max(idle, 0.001))
            except (TimeoutError, asyncio.TimeoutError):
                if not has_begun:
                    slow = refusal(408, "the request came too slowly", Connection="close")
                    await slow(scope, receive, send)
                raise Gone from None

        async def send_if_there(message: Message) -> None:
            nonlocal has_begun
            if self.connection.transport.is_closing():
                raise Gone
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive_soon, send_if_there)
        except Gone:
            self.connection.transport.close()
            await asyncio.sleep(0)  # So that the connection knows that it is closed.


class Page(uvicorn.Server):
    """A server of the page, on a socket that is open already."""

    def __init__(self, app: ASGIApp, opened: socket.socket, limits: Limits | None = None):
        limits = limits or Limits()
        protocol = type("Protocol", (TimedProtocol,), {"limits": limits})
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=limits.connections,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=LAST_SECONDS,
            h11_max_incomplete_event_size=limits.header_bytes,
        )
        super().__init__(config)
        logging.getLogger("uvicorn").setLevel(logging.ERROR)  # Not a line for every bad request.
        self.opened = opened

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until it is told to stop."""
        with self.opened:
            super().run(sockets or [self.opened])


def open_socket(host: str, port: int | None) -> socket.socket:
    """A socket that listens on a host. Without a port, one that is free.

    Raises InputError if the port is taken, or the host is not one of this machine.
    """
    ports = [port] if port is not None else [*range(PORT, PORT + MORE_PORTS), 0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in ports:
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((host, number))
            opened.listen(1024)
            return opened
        except (OSError, OverflowError) as error:
            opened.close()
            if number == ports[-1]:
                raise InputError(
                    f"cannot listen on {host or 'all addresses'}, port {number} "
                    f"({getattr(error, 'strerror', None) or error}); name another --port"
                ) from None
    raise AssertionError("unreachable")


def address_of(host: str, port: int, token: str | None) -> str:
    """The address to open in a browser."""
    name = "127.0.0.1" if host in ANY_ADDRESS else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def serve(
    where: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    token: str | None = None,
    *,
    ready: Callable[[str], object] = print,
) -> None:
    """Serves the page of a library until Ctrl-C. `ready` is called with its address.

    The page is for this machine alone. A `host` for a network needs a `token`, which visitors have
    to know; "" makes one up. Without a `port`, a free one is taken.
    """
    from videoprism_mlx.library.searcher import Searcher
    from videoprism_mlx.library.web.app import create_app

    # What is typed is searched for at once, word by word: no line for each unknown word.
    logging.getLogger("videoprism_mlx.tokenizers").setLevel(logging.ERROR)
    token = secrets.token_urlsafe(16) if token == "" else token
    check_token(host, token)
    searcher = Searcher(where)
    opened = open_socket(host, port)
    number = opened.getsockname()[1]
    limits = Limits()
    app = create_app(searcher, Access.to(host, number, token), limits)
    ready(address_of(host, number, token))
    Page(app, opened, limits).run()
