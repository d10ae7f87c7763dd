"""The routes: pictures, models, health, readiness and metrics."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST

from ..steps import PipelineSteps
from .batching import PaintingFailed
from .errors import APIError, add_error_handlers, error_event
from .guards import Bounded, Counted, Identified, Keyed
from .limits import ServerSettings
from .orders import Order
from .schemas import ErrorResponse, Health, ImagesResponse, Model, ModelList, images_request
from .service import Attention, Service


def create_app(
    pipeline: PipelineSteps,
    *,
    name: str = "armchair",
    settings: ServerSettings | None = None,
    api_key: str | None = None,
) -> FastAPI:
    """The service as an ASGI application; its painting starts and stops with the application's lifespan.

    pipeline: used by nobody else meanwhile. name: of the model, as clients see it. api_key: if there is one, clients
    must send it as a bearer token.
    """
    settings = settings or ServerSettings()
    service = Service(pipeline, name, settings)

    @contextlib.asynccontextmanager
    async def painting(app: FastAPI) -> AsyncIterator[None]:
        painter = asyncio.create_task(service.batcher.run())
        yield
        painter.cancel()
        await asyncio.gather(painter, return_exceptions=True)

    app = FastAPI(title="armchair", version="1", lifespan=painting, docs_url=None, redoc_url=None)
    app.state.batcher = service.batcher
    app.openapi = lambda: _openapi(app)
    for router in (_images(service), _models(service), _upkeep(service)):
        app.include_router(router)
    add_error_handlers(app)
    app.add_middleware(Bounded, max_body=settings.max_body, seconds=settings.body_timeout)
    if api_key is not None:
        app.add_middleware(Keyed, api_key=api_key)
    app.add_middleware(Counted, metrics=service.metrics)
    app.add_middleware(Identified)  # the last one added is the first to see a request
    return app


def _images(service: Service) -> APIRouter:
    router = APIRouter()
    body = images_request(service.settings, service.pipeline.prior.config.codebook_size)

    @router.post(
        "/v1/images/generations",
        response_model=ImagesResponse,
        response_model_exclude_none=True,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "pictures, or with stream=true their events"},
            **_errors(400, 401, 404, 408, 413, 429, 500, 504),
        },
    )
    async def generate_images(
        asked: body,  # pyright: ignore[reportInvalidTypeForm]  # made for this model
        request: Request,
    ) -> Any:
        order = service.order(asked, request.state.request_id)
        attention = service.accept(order, request.receive)
        if asked.stream:
            return StreamingResponse(_stream(order, attention), media_type="text/event-stream")
        try:
            finished = {event.index: event async for event in order.job.events()}
            events = [finished[index] for index in range(len(finished))]
            files = await asyncio.to_thread(lambda: [order.encode(event) for event in events])
        finally:
            attention.end()
        return order.response(files, _keep(service, request, files))

    @router.get("/pictures/{name}", response_class=Response, responses=_errors(404))
    async def show_picture(name: str) -> Response:
        """A picture that was answered by its address; the oldest are forgotten first."""
        found = service.store.get(name)
        if found is None:
            raise APIError(404, "there is no such picture, or it is too old to be kept", code="not_found")
        data, media_type = found
        return Response(data, media_type=media_type)

    return router


def _models(service: Service) -> APIRouter:
    router = APIRouter()
    model = Model(id=service.name, created=service.started)

    @router.get("/v1/models", responses=_errors(401))
    async def list_models() -> ModelList:
        return ModelList(data=[model])

    @router.get("/v1/models/{name:path}", responses=_errors(401, 404))
    async def show_model(name: str) -> Model:
        service.check_model(name)
        return model

    return router


def _upkeep(service: Service) -> APIRouter:
    router = APIRouter()

    @router.head("/health", include_in_schema=False)
    @router.get("/health", responses=_errors(503))
    async def health() -> Health:
        """Liveness: 503 says that this process had better be started anew."""
        if trouble := service.batcher.trouble():
            raise APIError(503, trouble, code="unhealthy")
        return Health(waiting=service.batcher.waiting)

    @router.head("/ready", include_in_schema=False)
    @router.get("/ready", responses=_errors(503))
    async def ready() -> Health:
        """Readiness: 503 says that a request had better go to another server, for now or for good."""
        if trouble := service.batcher.trouble():
            raise APIError(503, trouble, code="unhealthy")
        if not service.batcher.has_room:
            raise APIError(503, "as many pictures wait as may", code="queue_full")
        return Health(waiting=service.batcher.waiting)

    @router.get("/metrics", response_class=Response, responses=_errors(401))
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router


async def _stream(order: Order, attention: Attention) -> AsyncIterator[str]:
    """Server-sent events; an error after the first byte is an event too, as OpenAI's clients expect it."""
    try:
        async for event in order.job.events():
            file = await asyncio.to_thread(order.encode, event)
            yield order.sse(event, file)
    except (APIError, PaintingFailed) as error:
        yield error_event(error)
    finally:
        attention.end()


def _keep(service: Service, request: Request, files: list[bytes]) -> Callable[[bytes, str], str]:
    """Keeps one of an answer's files, all of which have to find room, and returns its address."""

    together = sum(map(len, files))

    def keep(data: bytes, media_type: str) -> str:
        try:
            service.store.check(together)
            return str(request.url_for("show_picture", name=service.store.put(data, media_type)))
        except ValueError as error:  # the address starts with what the client calls this host
            raise APIError(400, "the Host header is no address; send host:port") from error
        except OverflowError as error:
            remedy = "ask for response_format=b64_json, or start the server with more --max-store"
            raise APIError(400, f"{error}: {remedy}", param="response_format") from error

    return keep


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorResponse} for status in statuses}


def _openapi(app: FastAPI) -> dict[str, Any]:
    """As FastAPI writes it, without its 422: what is invalid is answered 400 here, as by OpenAI."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for methods in schema["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
        for unused in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema
