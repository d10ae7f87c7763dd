"""Connections: sent at once, held by nobody who asks nothing, and no more of them than the server takes."""

import contextlib
import json
import resource
import socket
import time
from collections.abc import Iterator

import pytest
import requests
from messages import refused
from running_server import GatedPipeline, Server, client_of, started_server, until

from pipelines.serving.command import OTHER_FILES, allow_files
from pipelines.serving.limits import ServerSettings

HEAD = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"prompt": "a red apple"}'
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def connect(server: Server, *parts: bytes) -> socket.socket:
    host, port = server.address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    for part in parts:
        connection.sendall(part)
    return connection


@contextlib.contextmanager
def held(server: Server, number: int, *parts: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that ask for nothing more than these parts."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect(server, *parts)) for _ in range(number)]


def rest_of(connection: socket.socket) -> bytes:
    """What the server sends until it closes."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            answer += data
    return answer


def status_of(server: Server) -> int:
    return requests.get(f"{server.address}/health", timeout=20).status_code


def test_an_answer_on_a_kept_connection_does_not_wait_for_more(tiny_pipeline):
    """Nagle's algorithm is off: by it a second packet waits for the receipt of the first, which waits 40 ms."""
    with started_server(tiny_pipeline) as server, requests.Session() as session:
        session.get(f"{server.address}/health", timeout=20)
        [kept] = server.server_state.connections
        accepted = kept.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["first", "second"])
@pytest.mark.parametrize("sent", [b"", HEAD], ids=["none", "half"])
def test_a_header_that_does_not_end_is_cut(tiny_pipeline, monkeypatch, before, sent):
    """Also the second one of a connection, which no clock of an idle connection watches once it has begun."""
    monkeypatch.setattr("pipelines.serving.connections.KEEP_ALIVE", 0.3)
    with started_server(tiny_pipeline, header_timeout=0.3) as server, connect(server) as connection:
        if before:
            connection.sendall(before)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(sent)
        rest_of(connection)  # ends
        assert status_of(server) == 200


def test_who_sends_a_byte_now_and_then_is_cut_too(tiny_pipeline):
    with started_server(tiny_pipeline, header_timeout=0.3) as server, connect(server, HEAD) as connection:
        for _ in range(100):
            time.sleep(0.02)
            try:
                connection.sendall(b"x")
            except (BrokenPipeError, ConnectionResetError):
                break
        else:
            raise AssertionError("it is held after 2 s, of the 0.3 allowed")


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"Content-Length: 50\r\n\r\n{"], ids=["none", "half", "body"])
def test_those_who_hold_connections_and_ask_nothing_stop_nobody(tiny_pipeline, sent):
    with started_server(tiny_pipeline, max_connections=4, max_queue=3, max_n=2) as server:
        with held(server, 20, sent) as connections:
            assert status_of(server) == 200
            assert len(server.server_state.connections) <= 4
            for first in connections[:10]:
                assert rest_of(first) == b""
        assert status_of(server) == 200


def test_past_the_bound_new_ones_are_refused_while_all_are_at_work(tiny_pipeline):
    gated = GatedPipeline(**tiny_pipeline.components)
    gated.gate.clear()
    with started_server(gated, max_connections=4, max_queue=3, max_n=1, max_batch=1, batch_wait=0) as server:
        with held(server, 1, WHOLE) as painted:
            until(lambda: gated.looks)
            with held(server, 3, WHOLE) as waiting:
                until(lambda: sum(one.at_work for one in server.server_state.connections) == 4)
                with held(server, 3) as more:
                    for connection in more:
                        head, body = rest_of(connection).split(b"\r\n\r\n")
                        assert head.startswith(b"HTTP/1.1 503 ") and b"x-request-id: req_" in head.lower()
                        assert json.loads(body)["error"]["type"] == "server_error"
                gated.gate.set()
                for connection in (*painted, *waiting):
                    assert connection.recv(12) == b"HTTP/1.1 200"
        assert status_of(server) == 200


def test_who_asks_and_does_not_read_is_cut(tiny_pipeline, monkeypatch):
    """Some thousand answers of 10 KB are more than what lies between the two holds."""
    monkeypatch.setattr("pipelines.serving.connections.SENDING", 0.2)
    limits = {"timeout": 0.2, "body_timeout": 0.2}
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 3000
    with started_server(tiny_pipeline, **limits) as server, connect(server, asked) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        until(lambda: server.server_state.connections)
        until(lambda: not server.server_state.connections)
        assert status_of(server) == 200


def test_a_web_socket_is_no_way_around_the_limits(tiny_pipeline):
    upgrade = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with started_server(tiny_pipeline) as server, connect(server, upgrade) as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert len(server.server_state.connections) == 1


def test_what_is_no_http_is_an_error_in_the_same_shape(tiny_pipeline):
    with started_server(tiny_pipeline) as server, connect(server, b"hello\r\n\r\n") as connection:
        head, body = rest_of(connection).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and b"x-request-id: req_" in head.lower()
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_a_client_that_keeps_its_connection_asks_again_and_again(tiny_pipeline):
    """Past the time that a header may take: the clock is that of one header."""
    with started_server(tiny_pipeline, header_timeout=0.3) as server, client_of(server.address) as client:
        for _ in range(5):
            assert client.models.list().data
            time.sleep(0.1)
        [kept] = server.server_state.connections
        time.sleep(0.5)
        assert client.models.list().data
        assert server.server_state.connections == {kept}


def test_the_bound_leaves_room_for_what_may_wait():
    with refused(ValueError, "max_connections=64", "max_queue=64"):
        ServerSettings(max_connections=64)
    assert ServerSettings().connections == 256 and ServerSettings(max_queue=1000).connections == 4000


def test_there_are_files_for_all_connections(monkeypatch):
    """Where the process may not have so many open, it says so before it serves."""
    set_to = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: set_to.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (128, 4096))
    allow_files(256 + OTHER_FILES)
    assert set_to == [(256 + OTHER_FILES, 4096)]
    allow_files(100)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (128, resource.RLIM_INFINITY))
    allow_files(128)
    assert len(set_to) == 1
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (128, 300))
    with refused(ValueError, 256 + OTHER_FILES, 300, "--max-connections 200"):
        allow_files(256 + OTHER_FILES)
