"""What the service does when there is too much: batches, a full queue, time that is up, clients that go, stops."""

import concurrent.futures
import http.client
import json
import re
import socket
import time
import urllib.request

import httpx
import openai
import pytest
import torch
from messages import refused
from running_server import GatedPipeline, client_of, running_server, until

from pipelines.drawing.settings import SamplingSettings
from pipelines.serving.batching import Job, WorkItem, deal
from pipelines.serving.store import PictureStore

PROMPTS = ["an armchair", "a red apple", "two cats side by side", "a small sailboat"]


@pytest.fixture
def gated(tiny_pipeline):
    return GatedPipeline(**tiny_pipeline.components)


def metric(address: str, name: str) -> float:
    text = urllib.request.urlopen(f"{address}/metrics", timeout=10).read().decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def ask(client: openai.OpenAI, prompt: str, seed: int, n: int = 1, **more) -> str:
    return client.images.generate(prompt=prompt, n=n, extra_body={"seed": seed, **more}).data[0].b64_json


def send(address: str, **body) -> http.client.HTTPConnection:
    """A request whose answer is not waited for."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/images/generations", json.dumps({"prompt": "an armchair", **body}), headers)
    return connection


def test_what_waits_is_painted_together_and_stays_the_same(gated):
    """Nine of three settings join one that is half painted, up to four at once; no picture changes."""
    kinds = [{"top_k": 5}, {"guidance_scale": 1.0}, {"negative_prompt": "two cats"}]
    asked = [(PROMPTS[i % 4], 100 + i, kinds[i % 3]) for i in range(9)]
    with running_server(gated, max_batch=4, batch_wait=0) as address, client_of(address) as client:
        alone = [ask(client, prompt, seed, **arguments) for prompt, seed, arguments in asked]
        assert set(gated.looks) == {1, 2}  # with guidance a picture has two rows
        gated.looks.clear()
        gated.gate.clear()
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            first = pool.submit(ask, client, PROMPTS[0], 0)
            until(lambda: gated.looks == [2])
            together = []
            for i, (prompt, seed, arguments) in enumerate(asked):
                together.append(pool.submit(ask, client, prompt, seed, **arguments))
                until(lambda i=i: metric(address, "armchair_waiting_pictures") == i + 1)
            gated.gate.set()
            assert first.result()
            assert [answer.result() for answer in together] == alone
        assert gated.looks[1] == 2 + 2 + 1 + 2 and max(gated.looks) <= 8
        until(lambda: metric(address, "armchair_pictures_total") == 9 + 10)  # counted once they are answered
        assert metric(address, 'armchair_batch_size_bucket{le="4.0"}') == metric(address, "armchair_batch_size_count")


def test_a_request_larger_than_a_batch_is_painted_in_several(gated):
    with running_server(gated, max_batch=4, batch_wait=0) as address, client_of(address) as client:
        answer = client.images.generate(prompt=PROMPTS[0], n=10, extra_body={"seed": 0})
    assert max(gated.looks) == 8
    assert [one.seed for one in answer.data] == list(range(10))
    assert len({one.b64_json for one in answer.data}) > 1


def test_a_small_request_does_not_wait_for_a_large_one(gated):
    """One picture behind two of ten, four of which are being painted: those rest, and it is answered first."""
    with running_server(gated, max_batch=4, batch_wait=0) as address, client_of(address) as client:
        alone = ask(client, PROMPTS[2], 3)
        needed = len(gated.looks)
        expected = [client.images.generate(prompt=PROMPTS[i], n=10, extra_body={"seed": 0}) for i in (0, 1)]
        gated.looks.clear()
        gated.gate.clear()
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            options = {"n": 10, "extra_body": {"seed": 0}}
            large = [pool.submit(client.images.generate, prompt=PROMPTS[0], **options)]
            until(lambda: gated.looks == [8])
            large.append(pool.submit(client.images.generate, prompt=PROMPTS[1], **options))
            until(lambda: metric(address, "armchair_waiting_pictures") == 16)
            small = pool.submit(ask, client, PROMPTS[2], 3)
            until(lambda: metric(address, "armchair_waiting_pictures") == 17)
            gated.gate.set()
            assert small.result() == alone
            assert not any(answer.done() for answer in large)
            assert needed > 0
            for answer, whole in zip(large, expected, strict=True):
                assert [one.b64_json for one in answer.result().data] == [one.b64_json for one in whole.data]


def test_requests_take_turns():
    def request(n: int, finished: int = 0) -> list[WorkItem]:
        return Job("", torch.zeros(1, 6), torch.zeros(1, 6), list(range(n)), SamplingSettings()).pictures[finished:]

    old, new, single = request(10, finished=2), request(10, finished=1), request(1)
    assert deal([old], 8) == old[:8]
    assert deal([old, new], 5) == [old[0], new[0], old[1], new[1], old[2]]
    assert deal([old, new, single], 8) == [old[0], new[0], single[0]]  # until it has its first picture
    assert deal([old, new, single], 2) == [old[0], new[0]]


def test_past_a_full_queue_it_is_429_until_there_is_room(gated):
    gated.gate.clear()
    with (
        concurrent.futures.ThreadPoolExecutor(4) as pool,
        running_server(gated, max_batch=1, max_queue=2, max_n=2, batch_wait=0) as address,
        client_of(address) as client,
    ):
        accepted = [pool.submit(ask, client, PROMPTS[0], 0)]
        until(lambda: gated.looks)
        accepted.append(pool.submit(ask, client, PROMPTS[0], 1))
        until(lambda: metric(address, "armchair_waiting_pictures") == 1)
        with pytest.raises(openai.RateLimitError) as error:
            ask(client, PROMPTS[0], 2, n=2)
        assert int(error.value.response.headers["Retry-After"]) >= 1
        assert error.value.code == "rate_limit_exceeded"
        accepted.append(pool.submit(ask, client, PROMPTS[0], 2))  # one picture still fits
        until(lambda: metric(address, "armchair_waiting_pictures") == 2)
        gated.gate.set()
        assert all(answer.result() for answer in accepted)
        assert ask(client, PROMPTS[0], 3)


def test_time_that_is_up_is_504_and_nothing_is_painted_for_it(gated):
    gated.gate.clear()
    with running_server(gated, max_batch=1, timeout=0.5, batch_wait=0) as address, client_of(address) as client:
        with pytest.raises(openai.InternalServerError) as error:
            ask(client, PROMPTS[0], 0, n=3)
        assert (error.value.status_code, error.value.code) == (504, "timeout")
        with pytest.raises(openai.APIError) as error:
            list(client.images.generate(prompt=PROMPTS[0], stream=True))
        assert error.value.code == "timeout"
        assert metric(address, 'armchair_dropped_requests_total{reason="timeout"}') == 2
        gated.gate.set()
        ask(client, PROMPTS[1], 7)
    assert set(gated.looks) == {2} and len(gated.looks) <= 1 + 15  # what was dropped stopped at its first look


@pytest.mark.parametrize("stream", [False, True])
def test_work_is_dropped_when_its_client_has_gone(gated, stream):
    gated.gate.clear()
    with running_server(gated, max_batch=1, batch_wait=0) as address, client_of(address) as client:
        painting = send(address, seed=0, stream=stream)
        until(lambda: gated.looks)
        waiting = send(address, seed=1, stream=stream)
        until(lambda: metric(address, "armchair_waiting_pictures") == 1)
        for connection in (painting, waiting):
            connection.close()
        until(lambda: metric(address, 'armchair_dropped_requests_total{reason="client gone"}') == 2)
        assert metric(address, "armchair_waiting_pictures") == 0
        gated.gate.set()
        ask(client, PROMPTS[1], 7)
    assert set(gated.looks) == {2} and len(gated.looks) <= 1 + 15


def test_a_client_that_goes_leaves_its_batch_to_the_others(gated):
    gated.gate.clear()
    with running_server(gated, max_batch=2, batch_wait=0.5) as address, client_of(address) as client:
        leaving = send(address, seed=0)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            staying = pool.submit(ask, client, PROMPTS[1], 1)
            until(lambda: gated.looks == [4])
            leaving.close()
            until(lambda: metric(address, 'armchair_dropped_requests_total{reason="client gone"}') == 1)
            gated.gate.set()
            answer = staying.result()
        assert answer == ask(client, PROMPTS[1], 1)


def test_a_stop_finishes_what_was_accepted(gated):
    gated.gate.clear()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        with running_server(gated, max_batch=1, batch_wait=0) as address:
            client = client_of(address)
            accepted = [pool.submit(ask, client, PROMPTS[0], seed, n=2) for seed in (0, 10)]
            until(lambda: metric(address, "armchair_waiting_pictures") == 3)
            pool.submit(lambda: (time.sleep(0.5), gated.gate.set()))
        assert all(answer.result() for answer in accepted)  # the server has stopped
    with client, pytest.raises(openai.APIConnectionError):
        ask(client, PROMPTS[0], 2)


def test_a_pass_that_fails_is_500_and_what_comes_after_is_painted(tiny_pipeline, monkeypatch):
    pipeline = GatedPipeline(**tiny_pipeline.components)
    bad, read = pipeline.encode_prompt(PROMPTS[2]), pipeline.prior.read

    def failing(captions):
        if (captions == bad).all(dim=1).any():
            raise RuntimeError("out of memory")
        return read(captions)

    monkeypatch.setattr(pipeline.prior, "read", failing)
    with running_server(pipeline) as address, client_of(address) as client:
        before = ask(client, PROMPTS[0], 14)
        with pytest.raises(openai.InternalServerError) as error:
            ask(client, PROMPTS[2], 13)
        assert (error.value.status_code, error.value.code) == (500, "internal_error")
        assert "memory" not in str(error.value)  # what is inside stays inside
        with pytest.raises(openai.APIError) as error:
            list(client.images.generate(prompt=PROMPTS[2], stream=True, extra_body={"seed": 13}))
        assert error.value.code == "internal_error"
        assert ask(client, PROMPTS[0], 14) == before


def talk(address: str, *parts: bytes) -> bytes:
    """Raw bytes to the server -> what it answers until it closes."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return answer


def test_a_body_too_long_or_too_slow(tiny_pipeline):
    head = (
        b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    )
    with running_server(tiny_pipeline, max_body=1000, body_timeout=0.5) as address:
        declared = talk(address, head + b"Content-Length: 100000000\r\n\r\n{")
        chunked = talk(address, head + b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b" " * 1024 + b"\r\n")
        slow = talk(address, head + b'Content-Length: 50\r\n\r\n{"prompt":')
        no_json = talk(address, head + b"Content-Length: 2\r\n\r\n{]")
        deep = talk(address, head + b"Content-Length: 900\r\n\r\n" + b"[" * 900)
    for answer, status in [(declared, 413), (chunked, 413), (slow, 408), (no_json, 400), (deep, 400)]:
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("host", ["[", "a b", "x" * 5000, "", "http://"])
def test_a_strange_host_header_is_no_failure(tiny_pipeline, host):
    body = b'{"prompt": "a", "response_format": "url"}'
    with running_server(tiny_pipeline) as address:
        head = f"POST /v1/images/generations HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        answer = talk(address, f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))


def test_a_picture_larger_than_the_store_is_no_broken_address(tiny_pipeline):
    with running_server(tiny_pipeline, max_store=10) as address, client_of(address) as client:
        with refused(openai.BadRequestError, 10, "b64_json", "--max-store"):
            client.images.generate(prompt="a", response_format="url")
        assert client.images.generate(prompt="a", response_format="b64_json").data[0].b64_json


def test_pictures_of_one_answer_do_not_drop_each_other(tiny_pipeline):
    with running_server(tiny_pipeline, max_store=3000) as address, client_of(address) as client:
        one = client.images.generate(prompt="a", response_format="url").data
        assert httpx.get(one[0].url).status_code == 200 and len(httpx.get(one[0].url).content) > 300
        with refused(openai.BadRequestError, 3000, "b64_json", "--max-store"):
            client.images.generate(prompt="a", n=10, response_format="url")


def test_the_store_is_bounded():
    store = PictureStore(max_bytes=100)
    names = [store.put(bytes(30), "image/png") for _ in range(5)]
    assert [store.get(name) is not None for name in names] == [False, False, True, True, True]
    assert store.num_bytes == 90 and len(store) == 3
    with refused(OverflowError, 101, 100):
        store.put(bytes(101), "image/webp")
    assert store.num_bytes == 90, "what is kept stays"
    assert len(set(names)) == 5 and all(len(name) == 36 for name in names)
