"""Malformed requests, made by schemathesis from the server's own OpenAPI: none fails inside, none hangs."""

import collections

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from running_server import running_server
from schemathesis import GenerationMode

from pipelines import TextToImagePipeline

PROMPT = {"prompt": "a red apple", "seed": 0}
REPEATABLE = {"deadline": None, "database": None, "derandomize": True, "phases": [Phase.generate]}


@pytest.fixture(scope="module")
def address(tiny_folder):
    with running_server(TextToImagePipeline.from_pretrained(tiny_folder), batch_wait=0) as address:
        yield address


def fuzz(address: str, number: int, mode: GenerationMode) -> collections.Counter:
    """Sends so many requests, checks that answers are pictures or errors of OpenAI's shape, counts their statuses."""
    operation = schemathesis.openapi.from_url(f"{address}/openapi.json")["/v1/images/generations"]["POST"]
    statuses = collections.Counter()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=number, suppress_health_check=list(HealthCheck), **REPEATABLE)
    def send(case):
        answer = case.call(timeout=20)
        statuses[answer.status_code] += 1
        assert answer.status_code < 500
        if answer.status_code == 200:
            return
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"] and error["type"] == "invalid_request_error"

    send()
    return statuses


@pytest.mark.parametrize("number", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_malformed_requests(address, number):
    statuses = fuzz(address, number, GenerationMode.NEGATIVE)
    print(dict(statuses))
    assert statuses.total() >= number
    assert statuses[400] > 0.9 * number
    assert requests.post(f"{address}/v1/images/generations", json=PROMPT, timeout=20).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/pictures/{name}", "/v1/models/{name}"])
def test_names_of_any_kind(address, path):
    operation = schemathesis.openapi.from_url(f"{address}/openapi.json")[path]["GET"]

    @given(case=operation.as_strategy())
    @settings(max_examples=100, suppress_health_check=list(HealthCheck), **REPEATABLE)
    def send(case):
        assert case.call(timeout=20).status_code in (200, 404)  # "." and ".." lead elsewhere

    send()


@pytest.mark.slow
def test_requests_that_fit_the_schema(address):
    """They paint, or are refused for what a schema cannot say, such as a size that is not square."""
    statuses = fuzz(address, 200, GenerationMode.POSITIVE)
    print(dict(statuses))
    assert set(statuses) <= {200, 400, 404} and statuses[200] > 0
