"""Connections: how many there are and how long each may take; HTTP itself is uvicorn's."""

import copy
import functools
import json
from asyncio import TimerHandle, Transport
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.h11_impl import H11Protocol

from .errors import error_body
from .guards import log_answer, new_request_id
from .limits import ServerSettings

KEEP_ALIVE = 65  # clients let go of an idle connection after 5 to 60 s: at 5 some requests met its end
SENDING = 60  # seconds that a client may take to read an answer


def server_config(app: Any, settings: ServerSettings, *, access_log: bool = True, **options: Any) -> uvicorn.Config:
    """How uvicorn serves the app: no connection takes more than the settings allow, an answer is a line in the log."""
    http: Any = functools.partial(Connection, settings=settings)  # its type has a class, which is called as this is
    log = copy.deepcopy(LOGGING_CONFIG)
    log["formatters"]["access"] = log["formatters"]["default"]
    return uvicorn.Config(
        app,
        http=http,
        ws="none",  # a web socket would be a connection without limits
        log_config=log,
        access_log=access_log,
        timeout_keep_alive=KEEP_ALIVE,
        **options,
    )


class Connection(H11Protocol):
    """One client's connection. Whatever it waits for has its time, past which it is cut.

    Past max_connections a new one takes the place of the one that has waited longest for its client to ask, so those
    that hold connections and ask nothing stop nobody. While all are at work the new one is refused with 503.
    """

    connections: set["Connection"]  # pyright: ignore[reportIncompatibleVariableOverride]  # all of this server's

    def __init__(self, *args: Any, settings: ServerSettings, **options: Any):
        super().__init__(*args, **options)
        self.access_log = False  # `Identified` writes it
        self.max_connections = settings.connections
        self._seconds = {
            "request": settings.header_timeout,
            "answer": settings.body_timeout + settings.timeout + SENDING,
            "next request": KEEP_ALIVE + SENDING,  # uvicorn's own clock waits for what is not read yet, for ever
        }
        self._awaited, self._since = "", 0.0
        self._clock: TimerHandle | None = None

    @property
    def at_work(self) -> bool:
        """Whether the server has a whole request of it to answer."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        self._await("request")
        if len(self.connections) > self.max_connections and not self._cut_an_idle_one():
            self.connections.discard(self)
            self._refuse(503, f"all of this server's {self.max_connections} connections are at work; try again later")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await("request" if self.cycle is None or self.cycle.response_complete else "answer")

    def on_response_complete(self) -> None:
        self._awaited = ""
        super().on_response_complete()  # which begins the next request, if it is there
        self._await("next request" if self.cycle.response_complete else "answer")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_clock()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is no HTTP that can be read")

    def _await(self, what: str) -> None:
        """Start its clock, unless that runs already."""
        if what != self._awaited:
            self._awaited, self._since = what, self.loop.time()
            self._stop_clock()
            self._clock = self.loop.call_later(self._seconds[what], self.transport.abort)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()

    def _cut_an_idle_one(self) -> bool:
        """False when all the others are at work."""
        ours = [other for other in self.connections if isinstance(other, Connection)]
        idle = [other for other in ours if other is not self and not other.at_work]
        if not idle:
            return False
        oldest = min(idle, key=lambda other: other._since)
        self.connections.discard(oldest)  # at once: more may come before it is told that it is lost
        oldest.transport.abort()
        return True

    def _refuse(self, status: int, message: str) -> None:
        """An answer without a request, after which it is closed."""
        request_id = new_request_id()
        body = json.dumps(error_body(status, message)).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\nX-Request-ID: {request_id}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        log_answer(self.client, "-", status, 0.0, request_id)
