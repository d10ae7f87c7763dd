"""What those who run the service see: ids in answers and log, whether it lives, and whether it had better be asked."""

import logging
import re
import uuid

import openai
import pytest
import requests
from messages import holds
from running_server import GatedPipeline, client_of, started_server, until

from pipelines import TextToImagePipeline
from pipelines.serving.connections import server_config
from pipelines.serving.guards import log_answer
from pipelines.serving.limits import ServerSettings
from pipelines.serving.service import Service

ASK = {"prompt": "a red apple", "seed": 0}
OWN_ID = r"req_[0-9a-f]{32}"


@pytest.fixture
def server(tiny_folder):
    with started_server(TextToImagePipeline.from_pretrained(tiny_folder), "key", max_body=500) as server:
        yield server


@pytest.fixture
def listen(caplog):
    """To be called once the server has set its loggers up: what they write from then on."""
    loggers = [logging.getLogger(name) for name in ("uvicorn.access", "uvicorn.error")]

    def begin():
        for logger in loggers:
            logger.addHandler(caplog.handler)
            logger.setLevel(logging.INFO)
        return caplog

    yield begin
    for logger in loggers:
        logger.removeHandler(caplog.handler)


def test_every_answer_has_an_id_and_the_log_has_it(server, listen):
    log = listen()
    images, key = f"{server.address}/v1/images/generations", {"Authorization": "Bearer key"}
    answers = [
        requests.post(images, json=ASK, headers=key, timeout=20),
        requests.post(images, json=ASK | {"stream": True, "partial_images": 1}, headers=key, timeout=20),
        requests.post(images, json=ASK | {"n": 0}, headers=key, timeout=20),
        requests.post(images, data="x" * 600, headers=key, timeout=20),
        requests.post(images, json=ASK, timeout=20),
        requests.get(f"{server.address}/no/such path", headers=key, timeout=20),
        requests.delete(f"{server.address}/health", headers=key, timeout=20),
        requests.get(f"{server.address}/ready", timeout=20),
    ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert [answer.status_code for answer in answers] == [200, 200, 400, 413, 401, 404, 405, 200]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(OWN_ID, one) for one in ids)
    until(lambda: ids[-1] in log.text)
    lines = [record.getMessage() for record in log.records if record.name == "uvicorn.access"]
    for line, one, answer in zip(lines, ids, answers, strict=True):
        assert line.endswith(one) and f" {answer.status_code}," in line
    assert '"GET /no/such%20path"' in lines[5]


def test_the_log_has_no_key_and_no_name_of_a_picture(server, listen):
    log, key = listen(), {"Authorization": "Bearer key"}
    asked = ASK | {"response_format": "url"}
    answer = requests.post(f"{server.address}/v1/images/generations", json=asked, headers=key, timeout=20).json()
    address = answer["data"][0]["url"]
    assert requests.get(address, timeout=20).status_code == 200
    until(lambda: "/pictures/…" in log.text)
    assert address.rpartition("/")[2] not in log.text and "Bearer" not in log.text


def test_a_line_of_the_access_log_can_be_written_and_turned_off(capsys):
    for wanted in (True, False):
        server_config(None, ServerSettings(), access_log=wanted)
        log_answer(("127.0.0.1", 7), "GET /health", 200, 0.5, "mine")
        out, err = capsys.readouterr()
        assert (bool(out), err) == (wanted, "")
        assert not wanted or holds(out, "127.0.0.1:7", "GET /health", 200, "0.500", "mine")


def test_openais_client_shows_the_id(server):
    with client_of(server.address, "key") as client:
        assert re.fullmatch(OWN_ID, client.images.generate(prompt="a red apple")._request_id)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (str(uuid.UUID(int=7)), True),
        ("trace:01.a_b-c", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("two words", False),
        ('"quoted"', False),
        ("ünsane", False),
    ],
)
def test_an_id_that_is_given_comes_back_where_it_is_sane(server, given, taken):
    headers = {"x-request-id": given.encode("latin-1")}
    answer = requests.get(f"{server.address}/health", headers=headers, timeout=20).headers["x-request-id"]
    assert answer == given if taken else re.fullmatch(OWN_ID, answer)


def test_what_nobody_foresaw_is_500_with_its_id_in_the_log(server, listen, monkeypatch):
    log = listen()

    def failing(*args):
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(Service, "order", failing)
    headers = {"Authorization": "Bearer key", "x-request-id": "mine"}
    answer = requests.post(f"{server.address}/v1/images/generations", json=ASK, headers=headers, timeout=20)
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
    assert answer.json()["error"]["code"] == "internal_error" and "secret" not in answer.text
    assert [record.getMessage() for record in log.records if record.exc_info][:1] == ["request mine failed"]


def test_a_pass_that_fails_names_its_requests_in_the_log(tiny_pipeline, listen, monkeypatch):
    pipeline = GatedPipeline(**tiny_pipeline.components)
    monkeypatch.setattr(pipeline.prior, "read", lambda captions: 1 / 0)
    with started_server(pipeline) as server:
        log, headers = listen(), {"x-request-id": "mine"}
        answer = requests.post(f"{server.address}/v1/images/generations", json=ASK, headers=headers, timeout=20)
    assert answer.status_code == 500
    [failure] = [record for record in log.records if record.exc_info]
    assert failure.exc_info[0] is ZeroDivisionError and "mine" in failure.getMessage()


def test_time_that_is_up_is_not_to_be_asked_again(tiny_pipeline):
    """OpenAI's clients ask twice more after a 504, unless they are told not to."""
    gated = GatedPipeline(**tiny_pipeline.components)
    gated.gate.clear()
    with started_server(gated, timeout=0.2, batch_wait=0) as server:
        with client_of(server.address, max_retries=2) as client, pytest.raises(openai.InternalServerError) as error:
            client.images.generate(prompt="a red apple")
        assert error.value.status_code == 504
        assert error.value.response.headers["x-should-retry"] == "false"
        metrics = requests.get(f"{server.address}/metrics", timeout=20).text
        assert 'armchair_requests_total{route="generate_images",status="504"} 1.0' in metrics
        gated.gate.set()


def statuses(address: str) -> tuple[int, int]:
    return tuple(requests.get(f"{address}/{name}", timeout=20).status_code for name in ("health", "ready"))


def test_a_full_queue_is_alive_and_not_ready(tiny_pipeline):
    gated = GatedPipeline(**tiny_pipeline.components)
    gated.gate.clear()
    with started_server(gated, max_batch=1, max_queue=1, max_n=1, batch_wait=0) as server:
        assert statuses(server.address) == (200, 200)
        with client_of(server.address) as client:
            streams = [client.images.generate(prompt="a", stream=True)]
            until(lambda: gated.looks)
            streams.append(client.images.generate(prompt="a", stream=True))
            until(lambda: statuses(server.address) == (200, 503))
            assert requests.get(f"{server.address}/ready", timeout=20).json()["error"]["code"] == "queue_full"
            gated.gate.set()
            assert all(list(stream) for stream in streams)
        assert statuses(server.address) == (200, 200)


def test_a_painter_that_is_stuck_is_unhealthy_until_it_goes_on(tiny_pipeline):
    """Longer in one pass than a request may take, so nobody can have a picture of it."""
    gated = GatedPipeline(**tiny_pipeline.components)
    gated.gate.clear()
    with started_server(gated, timeout=0.3, batch_wait=0) as server:
        requests.post(f"{server.address}/v1/images/generations", json=ASK, timeout=20)
        until(lambda: statuses(server.address) == (503, 503))
        answer = requests.get(f"{server.address}/health", timeout=20)
        assert answer.json()["error"]["code"] == "unhealthy" and answer.headers["x-request-id"]
        assert requests.head(f"{server.address}/health", timeout=20).status_code == 503
        gated.gate.set()
        until(lambda: statuses(server.address) == (200, 200))


def test_a_painter_that_fails_at_everything_is_unhealthy(tiny_pipeline, monkeypatch):
    """As after an error of a GPU, past which nothing runs on it. One bad request among others is no such thing."""
    pipeline = GatedPipeline(**tiny_pipeline.components)
    with started_server(pipeline) as server, monkeypatch.context() as broken:
        broken.setattr(pipeline.prior, "read", lambda captions: 1 / 0)
        images = f"{server.address}/v1/images/generations"
        seen = []
        for _ in range(4):
            seen.append(statuses(server.address)[0])
            assert requests.post(images, json=ASK, timeout=20).status_code == 500
        assert seen == [200, 200, 200, 503]
        broken.undo()
        assert requests.post(images, json=ASK, timeout=20).status_code == 200
        assert statuses(server.address) == (200, 200)


def test_a_painter_that_has_stopped_is_unhealthy_and_answers_at_once(tiny_pipeline, monkeypatch):
    pipeline = GatedPipeline(**tiny_pipeline.components)

    class End(BaseException):
        pass

    def end(captions):
        raise End

    monkeypatch.setattr(pipeline.prior, "read", end)
    with started_server(pipeline) as server:
        images = f"{server.address}/v1/images/generations"
        assert [requests.post(images, json=ASK, timeout=20).status_code for _ in range(2)] == [500, 500]
        assert statuses(server.address) == (503, 503)
