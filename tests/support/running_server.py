"""The service on a loopback port, in a thread, for the tests of it."""

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterator

import openai
import uvicorn

from pipelines import TextToImagePipeline
from pipelines.serving.app import create_app
from pipelines.serving.command import bind
from pipelines.serving.connections import server_config
from pipelines.serving.limits import ServerSettings


class GatedPipeline(TextToImagePipeline):
    """Its prior looks only while its gate is open, so that a test decides what waits; looks: the rows of each look."""

    def __init__(self, **components):
        super().__init__(
            **components | {"prior": copy.deepcopy(components["prior"])}, sampling={"guidance_scale": 2.0, "top_k": 20}
        )
        self.gate, self.looks, look = threading.Event(), [], self.prior.look
        self.gate.set()

        def gated(codes, places, cache):
            self.looks.append(len(codes))
            assert self.gate.wait(timeout=60)
            return look(codes, places, cache)

        self.prior.look = gated


class Server(uvicorn.Server):
    """address: such as http://127.0.0.1:40000."""

    address: str


@contextlib.contextmanager
def started_server(pipeline: TextToImagePipeline, api_key: str | None = None, **settings) -> Iterator[Server]:
    limits = ServerSettings(**settings)
    app = create_app(pipeline, settings=limits, api_key=api_key)
    server = Server(server_config(app, limits, log_level="error", timeout_graceful_shutdown=10))
    with bind("127.0.0.1", 0) as listener:
        server.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            yield server
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()


@contextlib.contextmanager
def running_server(pipeline: TextToImagePipeline, api_key: str | None = None, **settings) -> Iterator[str]:
    """Its address."""
    with started_server(pipeline, api_key, **settings) as server:
        yield server.address


def client_of(address: str, api_key: str = "none", **options) -> openai.OpenAI:
    """OpenAI's own client, without its retries."""
    return openai.OpenAI(base_url=f"{address}/v1", api_key=api_key, **{"max_retries": 0, "timeout": 60, **options})


def until(condition: Callable[[], bool]) -> None:
    """Waits for what must come soon."""
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")
