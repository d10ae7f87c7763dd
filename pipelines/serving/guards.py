"""What a request passes before any route sees it: an id, a count, a look at its key, and limits on its body.

Plain ASGI, so that a streamed answer and the news of a client that has gone pass through untouched.
"""

import asyncio
import hmac
import logging
import re
import secrets
import time
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import error_response
from .metrics import Metrics

PICTURES = "/pictures/"
OPEN_PATHS = ("/health", "/ready", PICTURES)  # a picture's name is its own key, and so in no log
SANE_ID = re.compile(rb"[\w.:-]{1,128}")  # as a client names its request; safe in a header and in the log

logger = logging.getLogger("uvicorn.error")
access_logger = logging.getLogger("uvicorn.access")


def new_request_id() -> str:
    return f"req_{secrets.token_hex(16)}"


def log_answer(client: tuple[str, int] | None, asked: str, status: int, seconds: float, request_id: str) -> None:
    """asked: the method and the path, quoted, as a client makes it up."""
    where = f"{client[0]}:{client[1]}" if client else "-"
    access_logger.info('%s "%s" %d, %.3f s, %s', where, asked, status, seconds, request_id)


class Identified:
    """Each answer has an x-request-id, which the log says too: the client's own, if it sent one that is sane.

    What nobody foresaw is logged with it, and answered 500.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, start, request_id = None, time.monotonic(), self._id(scope)
        scope.setdefault("state", {})["request_id"] = request_id

        async def identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, identified)
        except Exception:
            logger.exception("request %s failed", request_id)
            if status is None:
                text = "the server failed at this request; its log says how"
                await error_response(500, text, code="internal_error")(scope, receive, identified)
        finally:
            path = scope["path"]
            asked = f"{scope['method']} {PICTURES + '…' if path.startswith(PICTURES) else quote(path)}"
            log_answer(scope.get("client"), asked, status or 500, time.monotonic() - start, request_id)

    def _id(self, scope: Scope) -> str:
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        return given.decode() if SANE_ID.fullmatch(given) else new_request_id()


class Counted:
    """Counts answers by route and status, and times them."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, start = 500, time.monotonic()

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counting)
        finally:
            endpoint: Any = scope.get("endpoint")
            route = endpoint.__name__ if endpoint else "none"  # never the path, which a client makes up
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(time.monotonic() - start)


class Keyed:
    """Lets pass who shows the key as a bearer token; compared in constant time."""

    def __init__(self, app: ASGIApp, api_key: str):
        self.app, self.api_key = app, api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(OPEN_PATHS) and not self._shown(scope):
            response = error_response(
                401,
                "the API key is missing or wrong; send the server's own as 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
            return await response(scope, receive, send)
        await self.app(scope, receive, send)

    def _shown(self, scope: Scope) -> bool:
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        return hmac.compare_digest(key.strip(), self.api_key) and scheme.lower() == b"bearer"


class Bounded:
    """Reads a body of at most max_body bytes in at most so many seconds; a longer one is 413, a slower one 408."""

    def __init__(self, app: ASGIApp, max_body: int, seconds: float):
        self.app, self.max_body, self.seconds = app, max_body, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            async with asyncio.timeout(self.seconds):
                body = await self._read(Headers(scope=scope), receive)
        except TimeoutError:
            body = error_response(408, f"the body did not arrive in {self.seconds} s", code="timeout")
        if not isinstance(body, bytes):
            body.headers["Connection"] = "close"  # what is left of the body is not read
            return await body(scope, receive, send)
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self.app(scope, replay, send)

    async def _read(self, headers: Headers, receive: Receive) -> Any:
        """The body, or the answer that refuses it."""
        body = b""
        declared = headers.get("content-length", "0")
        size = int(declared) if declared.isdigit() else 0
        while size <= self.max_body:
            message = await receive()
            body += message.get("body", b"")
            size = max(size, len(body))
            if not message.get("more_body", False):  # all of it, or the client has gone
                break
        if size > self.max_body:
            text = f"the body is longer than this server's {self.max_body} bytes; send less"
            return error_response(413, text, code="body_too_large")
        return body
