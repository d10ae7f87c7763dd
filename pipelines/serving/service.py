"""One pipeline at work: requests become orders, which wait for their pictures and are dropped when nobody listens."""

import asyncio
import secrets
import time
import warnings

from starlette.types import Receive
from torch import Tensor

from ..checks import check_negative_prompts, check_prompts, check_seeds
from ..drawing.settings import SamplingSettings, check_settings
from ..steps import PipelineSteps
from .batching import Batcher, Job
from .errors import APIError
from .limits import ServerSettings
from .metrics import Metrics
from .orders import Order
from .schemas import ImagesRequest
from .store import PictureStore
from .worker import Worker


class Service:
    """What the routes share. name: of the model, as clients see it."""

    def __init__(self, pipeline: PipelineSteps, name: str, settings: ServerSettings):
        self.pipeline, self.name, self.settings = pipeline, name, settings
        self.started = int(time.time())
        self.store = PictureStore(settings.max_store)
        self.metrics = Metrics(lambda: self.batcher.waiting, settings.max_batch)
        self.batcher = Batcher(
            Worker(pipeline),
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            batch_wait=settings.batch_wait,
            patience=settings.timeout,
            observe=self.metrics.observe_pass,
        )

    def order(self, request: ImagesRequest, request_id: str) -> Order:
        """The request as an order, nulls filled in. request_id: what the log calls it.

        Raises `APIError` for what its schema could not refuse.
        """
        self.check_model(request.model)
        partial_images = self._checked_stream(request)
        sampling = self._sampling(request)
        text_ids, read = self._encode(request.prompt)
        negative_ids = self._negative_ids(request, sampling, text_ids)
        job = Job(request_id, text_ids, negative_ids, self._seeds(request), sampling, partial_images)
        return Order(
            job=job,
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            revised_prompt=read,
            model=self.name,
            side=self._side(request.size or "auto"),
            format=request.output_format or "png",
            quality=100 if request.output_compression is None else request.output_compression,
            as_url=request.response_format == "url",
            text_tokens=int((text_ids != self.pipeline.tokenizer.pad_token_id).sum()),
            image_tokens=self.pipeline.prior.config.grid_size**2,
        )

    def check_model(self, model: str | None) -> None:
        if model is not None and model != self.name:
            text = f"there is no model {model!r} here; pass {self.name!r}, or nothing"
            raise APIError(404, text, param="model", code="model_not_found")

    def _checked_stream(self, request: ImagesRequest) -> int:
        """How many partial pictures."""
        if request.stream and (request.n or 1) > 1:
            raise APIError(400, f"n={request.n} pictures cannot be streamed; pass n=1", param="n")
        if request.stream and request.response_format == "url":
            raise APIError(400, "a stream holds its pictures; pass response_format b64_json", param="response_format")
        if request.partial_images and not request.stream:
            text = f"partial_images={request.partial_images} needs stream; pass stream=true, or 0"
            raise APIError(400, text, param="partial_images")
        return request.partial_images or 0

    def _side(self, size: str) -> int:
        own = self.pipeline.image_processor.size
        if size == "auto":
            return own
        width, height = map(int, size.split("x"))
        if width != height or width > self.settings.max_size:
            limit = self.settings.max_size
            text = f"size={size} is not square or above {limit}x{limit}; pass auto, {own}x{own} or another square"
            raise APIError(400, text, param="size")
        return width

    def _seeds(self, request: ImagesRequest) -> list[int]:
        n = request.n or 1
        if request.seed is None:
            return [secrets.randbelow(2**32) for _ in range(n)]
        seeds = [request.seed + i for i in range(n)]
        try:
            check_seeds(seeds, n)
        except ValueError as error:
            raise APIError(400, str(error), param="seed") from error
        return seeds

    def _sampling(self, request: ImagesRequest) -> SamplingSettings:
        names = ("temperature", "top_k", "top_p", "min_p", "guidance_scale")
        try:
            settings = self.pipeline.settings(**{name: getattr(request, name) for name in names})
            check_settings(settings, self.pipeline.prior)
        except ValueError as error:
            raise APIError(400, str(error)) from error
        return settings

    def _negative_ids(self, request: ImagesRequest, sampling: SamplingSettings, text_ids: Tensor) -> Tensor:
        """(1, T), the empty caption where nothing is steered away from: so all prompts fit one batch."""
        try:
            prompts = check_negative_prompts(request.negative_prompt, 1, sampling.guidance_scale)
        except ValueError as error:
            raise APIError(400, str(error), param="negative_prompt") from error
        if prompts is None:
            return self.pipeline.prior.null(text_ids)
        return self._encode(prompts[0], param="negative_prompt")[0]

    def _encode(self, prompt: str, param: str = "prompt") -> tuple[Tensor, str]:
        """Text ids (1, T), and the words that they hold: a long prompt is cut, which the answer tells."""
        try:
            check_prompts(prompt)
        except ValueError as error:
            raise APIError(400, str(error), param=param) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python keeps each text that it warned of, for ever
            text_ids = self.pipeline.encode_prompt(prompt)
        return text_ids, self.pipeline.tokenizer.decode_captions(text_ids)[0]

    def accept(self, order: Order, receive: Receive) -> "Attention":
        """Queue the order and attend to its client. Raises `QueueFull`."""
        self.batcher.submit(order.job)
        return Attention(order.job, receive, self.settings.timeout, self.metrics)


class Attention:
    """Fails a job when its client goes or its time is up, until `end`, after which nobody waits for it at all."""

    def __init__(self, job: Job, receive: Receive, timeout: float, metrics: Metrics):
        self.job, self.metrics = job, metrics
        self._clock = asyncio.get_running_loop().call_later(timeout, self._late, timeout)
        self._watch = asyncio.create_task(self._until_gone(receive))

    def end(self) -> None:
        self.job.dropped = True
        self._clock.cancel()
        self._watch.cancel()

    def _late(self, timeout: float) -> None:
        self._drop("timeout", APIError(504, f"not painted within {timeout} s; try again later", code="timeout"))

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._drop("client gone", APIError(499, "the client has gone", code="client_gone"))

    def _drop(self, reason: str, error: APIError) -> None:
        if not self.job.dropped:
            self.metrics.dropped.labels(reason).inc()
            self.job.fail(error)
