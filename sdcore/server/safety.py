"""What every request must be before any route sees it: who asks, by which name, in which form.

Host            a name of the list: a page whose name was made to point here (DNS rebinding)
                knows another
Origin, Sec-Fetch-Site   a page of another site may not change anything, nor have models loaded
key             Bearer, Basic (any user) or X-API-Key, compared in constant time
Content-Type    JSON, or multipart where files are sent: what a foreign form may send is neither
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdcore.server.answers import refusal
from sdcore.server.options import ServerOptions, is_loopback
from sdcore.server.refusals import places

SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = ("/health", "/metrics")  # told without a key: they hold no prompt and no path
# What works or loads when it is only read: a picture in a foreign page would have it done.
WORKING = ("/models/", "/runs/", "/sdapi/v1/progress")
FORMS = ("/v1/images/edits",)  # whose bodies may be multipart
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


log = logging.getLogger("sdcore.server")


class Gate:
    """The outermost layer of the server, around everything else.

    What goes wrong behind it is one line of the log, without the error's words, which may be a
    prompt's; beyond it the whole error would be written.
    """

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        self.app, self.options = app, options
        self.names = {host_of(name) for name in (options.host, *options.host_allowed)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return

        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                if b"cache-control" not in there:
                    more.append((b"cache-control", b"no-store"))
                message["headers"] = [
                    *message["headers"], *(each for each in more if each[0] not in there)
                ]  # fmt: skip
            await send(message)

        answer = self.refused(scope)
        try:
            await (self.app if answer is None else answer)(scope, receive, guarded)
        except ClientDisconnect:  # in the middle of its body: nobody waits for an answer
            return
        except Exception as error:
            log.error("a request failed: %s", places(error))
            if not begun:
                line = f"it went wrong ({type(error).__name__}); the server's log says where"
                await refusal(scope["path"], 500, line)(scope, receive, guarded)

    def refused(self, scope: Scope) -> Response | None:
        """The answer to a request that no route is to see; None: it may pass."""
        path, method = scope["path"], scope["method"]
        headers = _headers(scope)
        if headers is None:
            return refusal(path, 400, "a header is there twice, or no ASCII")
        host = headers.get("host", "")
        if not self.allows(host):
            return refusal(
                path, 400, "the server is not reached by this name: sdcore serve --host-allowed"
            )
        harmless = method in SAFE and (method == "OPTIONS" or not path.startswith(WORKING))
        if not harmless and (why := self._foreign(headers, host)) is not None:
            return refusal(path, 403, why)
        preflight = method == "OPTIONS" and "access-control-request-method" in headers
        if path not in OPEN and not preflight and not self.knows(headers):
            answer = refusal(path, 401, "this server wants its key")
            answer.headers["www-authenticate"] = 'Basic realm="sdcore", charset="UTF-8"'
            return answer
        if method not in SAFE and (why := _of_wrong_kind(headers, path)) is not None:
            return refusal(path, 415, why)
        return None

    def allows(self, host: str) -> bool:
        """Whether the Host header names this server."""
        name = host_of(host)
        if name in self.names or is_loopback(name):
            return bool(name)
        if self.options.is_local:
            return False
        try:  # an address is nothing that a name can be made to point to
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Whether the key is there, or none is wanted."""
        if self.options.key is None:
            return True
        kind, _, value = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key", "")
        if kind.casefold() == "bearer":
            given = value.strip()
        elif kind.casefold() == "basic":
            try:
                given = base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                given = ""
        return secrets.compare_digest(given.encode("utf-8", "replace"), self.options.key.encode())

    def _foreign(self, headers: Mapping[str, str], host: str) -> str | None:
        """Why what takes work is not done for another site's page; None: it is done."""
        origin = headers.get("origin")
        if origin in self.options.cors:
            return None
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "a page of another site asks: sdcore serve --cors names those that may"
        if origin is not None and _netloc(origin) != host.casefold():
            return "a page of another origin asks: sdcore serve --cors names those that may"
        return None


def _netloc(origin: str) -> str | None:
    """Host and port of an origin, in lower case; None where it cannot be read."""
    try:
        return urlsplit(origin).netloc.casefold()
    except ValueError:  # "http://[::1"
        return None


def host_of(header: str) -> str:
    """The name or address in a Host header, without its port, in lower case.

    >>> host_of("[::1]:8765"), host_of("LocalHost:80"), host_of("::1")
    ('::1', 'localhost', '::1')
    """
    text = header.strip().casefold()
    if text.startswith("["):
        inner, _, port = text[1:].partition("]")
        return inner if not port or (port[:1] == ":" and port[1:].isdigit()) else ""
    if text.count(":") > 1:
        return text
    name, _, port = text.partition(":")
    return name.rstrip(".") if not port or port.isdigit() else ""


def _headers(scope: Scope) -> dict[str, str] | None:
    """By name; None where one that decides stands there twice."""
    alone = ("host", "origin", "authorization", "content-type", "content-length", "x-api-key")
    headers: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        if name in headers and name in alone:
            return None
        headers[name] = value.decode("latin-1")
    return headers


def _of_wrong_kind(headers: Mapping[str, str], path: str) -> str | None:
    """Why a body is not read; None: it is, or there is none."""
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return None
    kind = headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind == "application/json" or (path in FORMS and kind == "multipart/form-data"):
        return None
    return "a body is application/json" + (", or multipart/form-data" if path in FORMS else "")
