"""Who may ask the page for anything: this machine alone, or who has the token."""

import secrets
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlsplit

MOST_BYTES = 2_000_000
"""Of a request."""

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

Environment = dict[str, Any]
Start = Callable[..., Any]
Application = Callable[[Environment, Start], Iterable[bytes]]

HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


class Guard:
    """Lets a request through to an application, or refuses it in a sentence.

    A page of another site that is open in the same browser can send requests here: its Origin tells it. One whose name was made to point
    to this machine is told by the Host that the browser asks for.

    Args:
        port: that is listened at.
        token: that must be shown, in the address at first, then in a cookie; None where only this machine can ask.
        scripts: sources of inline scripts that the page consists of, as a Content Security Policy names them.
        names: of this machine, by which others may ask with the token. Any address in figures is taken too: it cannot be made to point
            elsewhere, as a name can.
    """

    def __init__(
        self,
        application: Application,
        port: int,
        token: str | None = None,
        scripts: Iterable[str] = (),
        names: Iterable[str] = (),
    ) -> None:
        self._application, self._token, self._names = application, token, frozenset(names)
        self._hosts = {name for one in LOOPBACK for name in (f"{one}:{port}", *([one] if port == 80 else []))}
        self._cookie = f"explore-{port}"
        sources = " ".join(["'self'", *scripts])
        policy = (
            f"default-src 'self'; script-src {sources}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        )
        policy += "font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
        policy += "frame-ancestors 'none'"
        self._headers = [*HEADERS, ("Content-Security-Policy", policy)]

    def __call__(self, environment: Environment, start: Start) -> Iterable[bytes]:
        refused = self._refused(environment)
        if refused is not None:
            return self._say(*refused, start)
        cookie = self._new_cookie(environment)

        def begin(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start(status, [*headers, *self._headers, *cookie], *more)

        return self._application(environment, begin)

    def _refused(self, environment: Environment) -> tuple[HTTPStatus, str] | None:
        host = str(environment.get("HTTP_HOST", "")).lower()
        if self._token is None and host not in self._hosts:
            return HTTPStatus.FORBIDDEN, "This page answers to localhost and 127.0.0.1 only."
        if self._token is not None and not self._is_here(host):
            return HTTPStatus.FORBIDDEN, "This page answers to the names and addresses of its machine only."
        origin = environment.get("HTTP_ORIGIN")
        if origin is not None and urlsplit(str(origin).lower()).netloc != host:
            return HTTPStatus.FORBIDDEN, "A page of another site may not ask here."
        if (
            environment.get("HTTP_SEC_FETCH_SITE") in ("cross-site", "same-site")
            and environment["REQUEST_METHOD"] != "GET"
        ):
            return HTTPStatus.FORBIDDEN, "A page of another site may not ask here."
        if self._token is not None and not self._knows(environment):
            return HTTPStatus.FORBIDDEN, "Open the address that `interp explore` printed, with its token."
        length = str(environment.get("CONTENT_LENGTH") or "0")
        if "chunked" in str(environment.get("HTTP_TRANSFER_ENCODING", "")).lower() or not length.isdecimal():
            return HTTPStatus.LENGTH_REQUIRED, "A request must say how long it is."
        if int(length) > MOST_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"This request is too large: at most {MOST_BYTES:,} bytes."
        return None

    def _is_here(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or _in_figures(name)

    def _knows(self, environment: Environment) -> bool:
        assert self._token is not None
        shown = [_in_address(environment), _in_cookie(environment, self._cookie)]
        return any(secrets.compare_digest(one.encode(), self._token.encode()) for one in shown)

    def _new_cookie(self, environment: Environment) -> list[tuple[str, str]]:
        if self._token is None or not _in_address(environment):
            return []
        return [("Set-Cookie", f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/")]

    def _say(self, status: HTTPStatus, said: str, start: Start) -> Iterable[bytes]:
        body = said.encode()
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        start(f"{status.value} {status.phrase}", [*headers, *self._headers])
        return [body]


def _in_figures(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _in_address(environment: Environment) -> str:
    try:
        read = parse_qs(str(environment.get("QUERY_STRING", ""))[:100_000], max_num_fields=100)
    except ValueError:
        return ""
    return read.get("token", [""])[0]


def _in_cookie(environment: Environment, name: str) -> str:
    try:
        found = SimpleCookie(str(environment.get("HTTP_COOKIE", ""))).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value
