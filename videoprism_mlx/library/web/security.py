"""Who may ask the server for what: hosts, origins, the token, and the headers of every answer.

A page of another site can send requests to 127.0.0.1, and a name of its own can be made to mean
127.0.0.1 (DNS rebinding). So the Host of a request has to be a name of this server, and whatever
the browser says about where a request comes from has to be this server as well.
"""

import dataclasses
import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videoprism_mlx.errors import InputError
from videoprism_mlx.library.web.limits import Limits

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

# All addresses of the machine.
ANY_ADDRESS = ("0.0.0.0", "::", "")

UPLOAD = "/api/upload"

LEAST_TOKEN = 8

# A Host header: a name, an IPv4 or an IPv6 address, and perhaps a port.
HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_.-]{1,253})(?::\d{1,5})?", re.IGNORECASE)

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob:",
    "media-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
}

HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclasses.dataclass(frozen=True)
class Access:
    """Which names the server answers to, and the token that it asks for, if any."""

    names: frozenset[str] = frozenset(LOOPBACK)
    any_address: bool = False  # Whether every IP address is a name of the server.
    token: str | None = None
    cookie: str = "videoprism-mlx"

    @classmethod
    def to(cls, host: str, port: int, token: str | None) -> "Access":
        """The access to a server that listens on a host. Raises InputError without a token."""
        check_token(host, token)
        names = {*LOOPBACK}
        if host in ANY_ADDRESS:
            own = socket.gethostname().lower()
            names |= {own, f"{own.partition('.')[0]}.local"}
        else:
            names.add(f"[{host.lower()}]" if ":" in host else host.lower())
        return cls(frozenset(names), host in ANY_ADDRESS, token, f"videoprism-mlx-{port}")

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server."""
        found = HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].lower()
        return name in self.names or (self.any_address and is_address(name.strip("[]")))

    def is_token(self, given: str | None) -> bool:
        """Whether this is the token, compared in constant time."""
        expected = (self.token or "").encode()
        return given is not None and hmac.compare_digest(given.encode(), expected)


def check_token(host: str, token: str | None) -> None:
    """Raises InputError if a server on this host needs a token, or if the token is too short."""
    if token is None:
        if host not in ("127.0.0.1", "localhost", "::1"):
            raise InputError(
                f"on {host or 'all addresses'}, everybody on the network could see the library; "
                "give a token as well: --token makes one up, --token WORD takes yours"
            )
    elif len(token) < LEAST_TOKEN or not re.fullmatch(r"[A-Za-z0-9_.~-]+", token):
        raise InputError(
            f"the token has to have {LEAST_TOKEN} characters or more, letters and digits and "
            "any of _ . ~ -; --token without a word makes one up"
        )


def is_address(name: str) -> bool:
    """Whether this is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def refusal(status: int, message: str, **headers: str) -> Response:
    """An answer that says in one line why something is refused."""
    return JSONResponse({"error": message}, status, headers)


class Guard:
    """Refuses requests that do not come from the page, and adds HEADERS to every answer."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits):
        self.app = app
        self.access = access
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = self._token_of_address(scope) if self.access.token else None

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                if given and message["status"] == 200:
                    cookie = f"{self.access.cookie}={given}; HttpOnly; SameSite=Strict; Path=/"
                    headers.append("set-cookie", cookie)
            await send(message)

        refused = self._refused(scope, is_shown=given is not None)
        await (refused or self.app)(scope, receive, send_more)

    def _refused(self, scope: Scope, is_shown: bool) -> Response | None:
        """The answer to a request that is refused. None if it is not."""
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        raw = len(scope.get("raw_path") or path) + len(scope["query_string"])
        if raw > self.limits.url_bytes:
            return refusal(414, f"the address has more than {self.limits.url_bytes:,} bytes")
        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > (
            self.limits.header_bytes
        ):
            return refusal(431, f"the headers have more than {self.limits.header_bytes:,} bytes")
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.access.knows(hosts[0]):
            return refusal(421, "this name is not one of this server")
        allowed = ("POST",) if path == UPLOAD else ("GET", "HEAD")
        if method not in allowed:
            return refusal(405, f"expected {' or '.join(allowed)}", Allow=", ".join(allowed))
        if not self._is_own(headers, hosts[0], is_page=path == "/"):
            return refusal(403, "this request comes from another site")
        if self.access.token and not is_shown and not self._has_token(headers):
            return refusal(
                401,
                "open the address that the terminal shows, with its token",
                **{"WWW-Authenticate": "Bearer"},
            )
        return None

    def _is_own(self, headers: Headers, host: str, is_page: bool) -> bool:
        """Whether a request comes from the page, or from no site at all."""
        if any(one != f"http://{host}" for one in headers.getlist("origin")):
            return False
        if all(one in ("same-origin", "none") for one in headers.getlist("sec-fetch-site")):
            return True
        # A link to the page may be anywhere.
        return is_page and headers.get("sec-fetch-mode") == "navigate"

    def _token_of_address(self, scope: Scope) -> str | None:
        """The token in the address of the page, if it is the right one."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        right = (one for one in given if self.access.is_token(one))
        return next(right, None) if scope["path"] == "/" else None

    def _has_token(self, headers: Headers) -> bool:
        """Whether a request holds the token, in its cookie or as a bearer token."""
        bearer = headers.get("authorization", "")
        given = [bearer[7:]] if bearer[:7].lower() == "bearer " else []
        return any(map(self.access.is_token, [*given, *cookies(headers, self.access.cookie)]))


def cookies(headers: Headers, name: str) -> Iterable[str]:
    """The values of a cookie."""
    for line in headers.getlist("cookie"):
        try:
            jar = SimpleCookie(line)
        except CookieError:
            continue
        if name in jar:
            yield jar[name].value
